"""Compare a seed's outputs with the original's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from seed_exporter.evaluate.outliers import ordinary
from seed_runtime.backends import Array


@dataclass(frozen=True)
class OutputError:
    """One output of the seed against the original's, over all inputs.

    Attributes:
        relative: root mean square of the difference over that of the original, without masks that both have
            (`outliers.ordinary`); infinite where shapes differ, or where only one of both has an infinity or NaN.
        largest: largest absolute difference of two values.
        cosine: cosine between both, each as one vector of all its values.
        agreement: share of rows whose largest value is at the same place, for float outputs with a last axis of
            scores; else None.
        identical: True if both have the same shapes and bits.
    """

    relative: float
    largest: float
    cosine: float
    agreement: float | None
    identical: bool

    def as_json(self) -> dict[str, float | bool | None]:
        """Return the fields for JSON, which has no infinity and no NaN: null stands for them."""
        return {key: value if value is None or np.isfinite(value) else None for key, value in vars(self).items()}


def compare(
    original: Sequence[Mapping[str, Array]], candidate: Sequence[Mapping[str, Array]]
) -> dict[str, OutputError]:
    """Compare outputs over all calls.

    Args:
        original: outputs by name, one mapping per call.
        candidate: the same of the other model, of the same calls.

    Returns:
        The error of each output of `original`.
    """
    return {
        name: _compare_output([call[name] for call in original], [call[name] for call in candidate])
        for name in original[0]
    }


def worst_relative(errors: Mapping[str, OutputError]) -> float:
    """Return the largest relative error among the outputs, 0 where there are none."""
    return max((error.relative for error in errors.values()), default=0.0)


def _compare_output(original: Sequence[Array], candidate: Sequence[Array]) -> OutputError:
    """Compare one output over all calls."""
    identical = all(a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in zip(original, candidate, strict=True))
    if any(a.shape != b.shape for a, b in zip(original, candidate, strict=True)):
        return OutputError(float("inf"), float("inf"), 0.0, 0.0, False)
    a = np.concatenate([array.astype(np.float64).reshape(-1) for array in original])
    b = np.concatenate([array.astype(np.float64).reshape(-1) for array in candidate])
    odd = ~(np.isfinite(a) & np.isfinite(b))
    if not np.array_equal(a[odd], b[odd], equal_nan=True):
        return OutputError(float("inf"), float("inf"), 0.0, _agreement(original, candidate), False)
    # Where both have the same mask there is nothing to measure; a mask in another place is an error.
    measured = ~odd & (ordinary(a) | (a != b))
    a, b = a[measured], b[measured]
    # Squares of a float64 may exceed its range. A power of two changes no digit.
    largest = max(float(np.abs(a).max(initial=0)), float(np.abs(b).max(initial=0)))
    scale = 2.0 ** (math.frexp(largest)[1] - 1)
    a, b = a / scale, b / scale
    norm_a, norm_b = float(np.sqrt(a @ a)), float(np.sqrt(b @ b))
    gap = b - a
    relative = float(np.sqrt(gap @ gap)) / norm_a if norm_a else float(norm_b > 0)
    cosine = float(a @ b / (norm_a * norm_b)) if norm_a and norm_b else float(norm_a == norm_b)
    return OutputError(
        relative, float(np.abs(gap).max(initial=0)) * scale, cosine, _agreement(original, candidate), identical
    )


def _agreement(original: Sequence[Array], candidate: Sequence[Array]) -> float | None:
    """Return the share of rows along the last axis with the same argmax; None for what are no scores."""
    if original[0].dtype.kind != "f" or original[0].ndim < 2 or original[0].shape[-1] < 2:
        return None
    same = total = 0
    for a, b in zip(original, candidate, strict=True):
        equal = a.argmax(axis=-1) == b.argmax(axis=-1)
        same, total = same + int(equal.sum()), total + equal.size
    return same / total if total else None
