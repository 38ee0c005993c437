"""Compare a seed's outputs with the original's."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from seed_exporter.evaluate.outliers import ordinary
from seed_runtime.backends import Array


@dataclass(frozen=True)
class OutputError:
    """One output of the seed against the original's, over all inputs.

    Attributes:
        relative: root mean square of the difference over that of the original, without masks that both have
            (`outliers.ordinary`); infinite where shapes differ, or where only one of both has an infinity or NaN. Of
            text, the share of elements that differ.
        largest: largest absolute difference of two values; NaN for text.
        cosine: cosine between both, each as one vector of all its values; NaN for text.
        agreement: share of rows whose largest value is at the same place, for float outputs with a last axis of
            scores; share of equal elements of text; else None.
        identical: True if both have the same shapes and bits.
        noisy: True if noise decides the output: two runs of the original differ. Type, rank, the sizes that noise
            doesn't decide and whether all is finite are compared, and no error is measured: `relative` is NaN, or
            infinite where these differ.
    """

    relative: float
    largest: float
    cosine: float
    agreement: float | None
    identical: bool
    noisy: bool = False

    @property
    def is_text(self) -> bool:
        """True if the output is text, of which no difference is a number."""
        return not self.noisy and math.isnan(self.cosine)

    def as_json(self) -> dict[str, float | bool | None]:
        """Return the fields for JSON, which has no infinity and no NaN: null stands for them."""
        return {key: value if value is None or np.isfinite(value) else None for key, value in vars(self).items()}


def compare(
    original: Sequence[Mapping[str, Array]],
    candidate: Sequence[Mapping[str, Array]],
    noisy: Mapping[str, Collection[int]] | None = None,
) -> dict[str, OutputError]:
    """Compare outputs over all calls.

    Args:
        original: outputs by name, one mapping per call.
        candidate: the same of the other model, of the same calls.
        noisy: outputs that noise decides, and the axes whose sizes it decides.

    Returns:
        The error of each output.
    """
    errors = {}
    # A sequence may have another length in each call, so that some of its elements are missing in some.
    for name in dict.fromkeys(name for call in (*original, *candidate) for name in call):
        calls = list(zip(original, candidate, strict=True))
        pairs = [(a[name], b[name]) for a, b in calls if name in a and name in b]
        first, second = [a for a, _ in pairs], [b for _, b in pairs]
        if noisy is not None and name in noisy:
            errors[name] = _compare_noisy(first, second, noisy[name])
        elif any((name in a) != (name in b) for a, b in calls):
            errors[name] = OutputError(float("inf"), float("inf"), 0.0, 0.0, False)
        else:
            errors[name] = _compare_texts(first, second) if _is_text(first) else _compare_output(first, second)
    return errors


def worst_relative(errors: Mapping[str, OutputError]) -> float:
    """Return the largest relative error among the outputs in which one is measured, 0 where there are none."""
    return max((error.relative for error in errors.values() if not math.isnan(error.relative)), default=0.0)


def _compare_output(original: Sequence[Array], candidate: Sequence[Array]) -> OutputError:
    """Compare one output over all calls."""
    identical = all(a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in zip(original, candidate, strict=True))
    if _shapes_differ(original, candidate):
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


def _compare_texts(original: Sequence[Array], candidate: Sequence[Array]) -> OutputError:
    """Compare one output of text over all calls: elements are equal or not."""
    if _shapes_differ(original, candidate):
        return OutputError(float("inf"), float("nan"), float("nan"), 0.0, False)
    total = sum(array.size for array in original)
    equal = sum(int(np.count_nonzero(a == b)) for a, b in zip(original, candidate, strict=True))
    share = equal / total if total else 1.0
    return OutputError(1 - share, float("nan"), float("nan"), share, equal == total)


def _is_text(arrays: Sequence[Array]) -> bool:
    return bool(arrays) and arrays[0].dtype.kind == "O"


def _shapes_differ(original: Sequence[Array], candidate: Sequence[Array]) -> bool:
    return any(a.shape != b.shape for a, b in zip(original, candidate, strict=True))


def _compare_noisy(original: Sequence[Array], candidate: Sequence[Array], axes: Collection[int]) -> OutputError:
    """Compare what noise leaves of one output; `axes` are those whose sizes it decides."""
    alike = all(
        a.dtype == b.dtype
        and a.ndim == b.ndim
        and all(axis in axes or a.shape[axis] == b.shape[axis] for axis in range(a.ndim))
        and (a.dtype.kind != "f" or bool(np.isfinite(b).all()) or not np.isfinite(a).all())
        for a, b in zip(original, candidate, strict=True)
    )
    error = float("nan") if alike else float("inf")
    return OutputError(error, error, float("nan"), None, False, noisy=True)


def _agreement(original: Sequence[Array], candidate: Sequence[Array]) -> float | None:
    """Return the share of rows along the last axis with the same argmax; None for what are no scores."""
    if original[0].dtype.kind != "f" or original[0].ndim < 2 or original[0].shape[-1] < 2:
        return None
    same = total = 0
    for a, b in zip(original, candidate, strict=True):
        equal = a.argmax(axis=-1) == b.argmax(axis=-1)
        same, total = same + int(equal.sum()), total + equal.size
    return same / total if total else None
