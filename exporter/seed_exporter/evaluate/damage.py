"""Damage: how far a candidate's outputs lie from the original's, as one number; 0 is none, smaller is better.

A metric is a pure function of outputs, so that a search, a comparison with peers and a benchmark measure alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from seed_exporter.evaluate.compare import compare
from seed_exporter.evaluate.outliers import ordinary
from seed_exporter.evaluate.user_metric import Calls, load_function
from seed_runtime.backends import Array
from seed_runtime.data.calls import LABELS
from seed_runtime.errors import InputError, UsageError

F64 = npt.NDArray[np.float64]
PROBABILITY_FLOOR: Final = 1e-7
"""Smaller probabilities are rounding noise of a softmax in fp32, which would dominate a mean."""
SUM_TOLERANCE: Final = 1e-3
"""Most by which the sum of a row of probabilities differs from 1; in half precision _HALF_TOLERANCE."""
_HALF_TOLERANCE: Final = 1e-2
_SILENT: Final = 1e-3
"""Share of the root mean square of an output's rows below which a row has no direction that counts."""

_Measure = Callable[[Sequence[Array], Sequence[Array]], float | None]
"""Damage of one output over all calls; None where it isn't defined for such an output."""


@dataclass(frozen=True)
class Metric:
    """One way to measure damage.

    Attributes:
        name: its word on the command line.
        measure: function of the feeds, the original's outputs and the candidate's, of the same calls.
    """

    name: str
    measure: Callable[[Calls, Calls, Calls], float]

    def damage(self, original: Calls, candidate: Calls, feeds: Calls = ()) -> float:
        """Measure the damage of all calls together; infinite where shapes, infinities or NaN differ.

        Args:
            original: the original's outputs.
            candidate: the candidate's.
            feeds: the inputs, which only a user's function asks for.

        Raises:
            InputError: the metric isn't defined for these outputs, or the user's function failed.
        """
        return self.measure(feeds, original, candidate)


def metric_of(word: str, noisy: Collection[str] = (), labels: Array | None = None) -> Metric:
    """Return the metric of a word of `--metric`.

    Args:
        word: `auto`, `kl`, `cosine`, `agreement`, `relative`, `labels`, or `module:function` of the user's.
        noisy: outputs that noise decides (`evaluate.noise`); no metric sees them.
        labels: right decisions of the judged calls, which only the metric LABELS looks at.

    Raises:
        UsageError: there is no such metric.
        InputError: the user's module can't be imported.
    """
    if word == LABELS:
        return Metric(word, lambda feeds, original, candidate: _more_errors(labels, original, candidate))
    if word in _MEASURES:
        measure = _MEASURES[word]

        def worst(feeds: Calls, original: Calls, candidate: Calls) -> float:
            return _worst(word, measure, _without(original, noisy), _without(candidate, noisy))

        return Metric(word, worst)
    if ":" not in word:
        words = ", ".join([*_MEASURES, LABELS])
        raise UsageError(f"no metric is called {word!r}; use one of {words}, or module:function")
    function = load_function(word)

    def user(feeds: Calls, original: Calls, candidate: Calls) -> float:
        return function(feeds, _without(original, noisy), _without(candidate, noisy))

    return Metric(word, user)


def judged_outputs(original: Calls) -> list[str]:
    """List the outputs that metrics look at: floats, and integers or texts only where there are no floats.

    One box more, and the indices of all others have moved.
    """
    kinds = {name: array.dtype.kind for call in original for name, array in call.items()}
    floats = [name for name, kind in kinds.items() if kind == "f"]
    return floats or list(kinds)


def has_rows(arrays: Sequence[Array]) -> bool:
    """Return whether one output has rows of floats along its last axis, with two entries at least."""
    return bool(arrays) and arrays[0].dtype.kind == "f" and arrays[0].ndim >= 2 and arrays[0].shape[-1] >= 2


def is_probabilities(arrays: Sequence[Array]) -> bool:
    """Return whether rows along the last axis are probabilities: not negative, and their sum is 1."""
    if not has_rows(arrays):
        return False
    allowed = _HALF_TOLERANCE if arrays[0].dtype.itemsize < 4 else SUM_TOLERANCE
    for array in arrays:
        values = array.astype(np.float64)
        if values.size and not (values.min() >= 0 and np.abs(values.sum(axis=-1) - 1).max() <= allowed):
            return False
    return any(array.size for array in arrays)


def error_rate(labels: Array, outputs: Calls) -> float | None:
    """Compute the share of wrong decisions of a labelled task; None where no output decides once a label.

    Args:
        labels: index of the right class, one for each row of scores over all calls.
        outputs: by name, one mapping a call.
    """
    if labels.dtype.kind not in "iu":
        return None
    wanted = labels.reshape(-1)
    for name in judged_outputs(outputs):
        arrays = [call[name] for call in outputs if name in call]
        if has_rows(arrays):
            chosen = np.concatenate([array.argmax(axis=-1).reshape(-1) for array in arrays])
            if chosen.shape == wanted.shape:
                return float(np.mean(chosen != wanted))
    return None


def _more_errors(labels: Array | None, original: Calls, candidate: Calls) -> float:
    """Compute by how much the candidate's error rate exceeds the original's; 0 where it is lower.

    Raises:
        InputError: there are no labels, or they are no integer for each row of scores.
    """
    if labels is None:
        raise InputError(
            f"--metric {LABELS} counts wrong decisions, and there is nothing that says which are right; save an array "
            f"{LABELS!r} beside the inputs of --calib"
        )
    before, after = error_rate(labels, original), error_rate(labels, candidate)
    if before is None or after is None:
        raise InputError(
            f"--metric {LABELS} needs labels that are an integer for each row of scores of an output; use --metric kl"
        )
    return max(0.0, after - before)


def kl(original: Sequence[Array], candidate: Sequence[Array]) -> float | None:
    """Compute the mean over rows of KL(original || candidate) of one output [nat]; rows may be logits as well."""
    if not has_rows(original):
        return None
    as_logs = _log_probabilities if is_probabilities(original) else _log_softmax

    def total(a: F64, b: F64) -> F64:
        log_p, log_q = as_logs(a), as_logs(b)
        divergence: F64 = np.sum(np.exp(log_p) * (log_p - log_q), axis=-1)
        # Each entry that is raised to the floor adds to the sum; none of it is a difference below 0.
        return np.maximum(divergence, 0)

    return _mean_of_rows(original, candidate, total)


def cosine(original: Sequence[Array], candidate: Sequence[Array]) -> float | None:
    """Compute 1 - the mean cosine of the rows of one output; two rows of nearly nothing are equal."""
    if not has_rows(original):
        return None
    count = sum(array.size // array.shape[-1] for array in original if array.size)
    energy = sum(float(np.square(np.where(ordinary(x := a.astype(np.float64)), x, 0)).sum()) for a in original)
    silent = _SILENT * math.sqrt(energy / max(1, count))

    def total(a: F64, b: F64) -> F64:
        norms_a, norms_b = np.linalg.norm(a, axis=-1), np.linalg.norm(b, axis=-1)
        norms = norms_a * norms_b
        cosines = np.divide(np.sum(a * b, axis=-1), norms, out=np.zeros_like(norms), where=norms > 0)
        # The cosine of a row with itself is 1 but for rounding, which a line of no damage would not let pass.
        equal = (a == b).all(axis=-1) | ((norms_a <= silent) & (norms_b <= silent))
        damage: F64 = np.where(equal, 0.0, 1 - np.minimum(cosines, 1.0))
        return damage

    return _mean_of_rows(original, candidate, total)


def agreement(original: Sequence[Array], candidate: Sequence[Array]) -> float | None:
    """Compute 1 - the share of rows of one output whose largest score is at the same place; of equal texts."""
    if original[0].dtype.kind == "O":
        return compare([{"": a} for a in original], [{"": b} for b in candidate])[""].relative
    if not has_rows(original):
        return None
    return _mean_of_rows(original, candidate, lambda a, b: (a.argmax(axis=-1) != b.argmax(axis=-1)).astype(np.float64))


def relative(original: Sequence[Array], candidate: Sequence[Array]) -> float:
    """Compute the squared error of one output over its square; of texts the share that differs."""
    error = compare([{"": a} for a in original], [{"": b} for b in candidate])[""].relative
    return error if original[0].dtype.kind == "O" else error**2


def auto(original: Sequence[Array], candidate: Sequence[Array]) -> float:
    """Compute `kl` of probabilities, `cosine` of other floats with rows, `relative` of all else."""
    if not has_rows(original):
        return relative(original, candidate)
    found = (kl if is_probabilities(original) else cosine)(original, candidate)
    assert found is not None
    return found


_MEASURES: Final[Mapping[str, _Measure]] = {
    "auto": auto,
    "kl": kl,
    "cosine": cosine,
    "agreement": agreement,
    "relative": relative,
}
"""Metrics by their words."""


def _worst(word: str, measure: _Measure, original: Calls, candidate: Calls) -> float:
    """Return the damage of the output that has most, of those for which the metric is defined."""
    damages = []
    for name in judged_outputs(original):
        calls = list(zip(original, candidate, strict=True))
        pairs = [(a[name], b[name]) for a, b in calls if name in a and name in b]
        if any((name in a) != (name in b) for a, b in calls) or any(a.shape != b.shape for a, b in pairs):
            return math.inf
        damages.append(measure([a for a, _ in pairs], [b for _, b in pairs]))
    defined = [damage for damage in damages if damage is not None]
    if damages and not defined:
        raise InputError(
            f"--metric {word} compares rows of floats, and no output of this model has any; use --metric relative"
        )
    return max(defined, default=0.0)


def _mean_of_rows(original: Sequence[Array], candidate: Sequence[Array], of_rows: Callable[[F64, F64], F64]) -> float:
    """Average a function of rows, call by call; infinite where only one of both has an infinity or NaN."""
    total, count = 0.0, 0
    for first, second in zip(original, candidate, strict=True):
        if not first.size:
            continue
        a, b = first.astype(np.float64), second.astype(np.float64)
        odd = ~(np.isfinite(a) & np.isfinite(b))
        if not np.array_equal(a[odd], b[odd], equal_nan=True):
            return math.inf
        # Where both have the same mask there is nothing to measure.
        masked = odd | (~ordinary(a) & (a == b))
        rows = of_rows(np.where(masked, 0.0, a), np.where(masked, 0.0, b))
        total, count = total + float(rows.sum()), count + rows.size
    return total / count if count else 0.0


def _log_probabilities(rows: F64) -> F64:
    logs: F64 = np.log(np.maximum(rows, PROBABILITY_FLOOR))
    return logs


def _log_softmax(rows: F64) -> F64:
    shifted = rows - rows.max(axis=-1, keepdims=True)
    logs: F64 = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return logs


def _without(calls: Calls, names: Collection[str]) -> Calls:
    return [{name: array for name, array in call.items() if name not in names} for call in calls] if names else calls
