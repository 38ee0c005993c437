"""Choose the next token by its scores: the best one, or one at random among the likely ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from seed_runtime.backends import Array
from seed_runtime.errors import FormatError

TEMPERATURE_MAX: Final = 10.0
PENALTY_MAX: Final = 10.0


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen."""

    temperature: float = 0.0
    """What scores are divided by; 0 always takes the best token."""
    top_k: int = 0
    """Number of the best tokens to choose among; 0 for all."""
    top_p: float = 1.0
    """Choose among the fewest tokens whose probabilities sum up to it."""
    repetition_penalty: float = 1.0
    """What scores of tokens that were there already are divided by, or multiplied with where they are negative."""


def choose(scores: Array, seen: Sequence[int], sampling: Sampling, random: np.random.Generator | None) -> int:
    """Return the next token.

    Args:
        scores: `(tokens,)`, logits of any float type. They aren't changed.
        seen: tokens of the prompt and the answer so far.
        sampling: how to choose.
        random: is asked once, and not at all at temperature 0; None to take the best token.

    Raises:
        FormatError: scores are NaN, or all of them -infinity.

    Source: Keskar et al. 2019, CTRL (repetition penalty); Fan et al. 2018 (top-k); Holtzman et al. 2020 (top-p).
    """
    logits = scores.astype(np.float64)
    best = logits.max(initial=-np.inf)
    if not np.isfinite(best):
        raise FormatError("processing, generation", f"the best score of a token is {best}, a finite one is needed")
    if sampling.repetition_penalty != 1.0:
        known = np.unique(np.asarray(seen, np.int64))
        known = known[known < logits.size]
        values = logits[known]
        logits[known] = np.where(values > 0, values / sampling.repetition_penalty, values * sampling.repetition_penalty)
    if sampling.temperature == 0 or random is None:
        return int(logits.argmax())
    # Best first, the lower number first among equal ones.
    order = np.argsort(-logits, kind="stable")
    if sampling.top_k:
        order = order[: sampling.top_k]
    # The difference first: a low temperature would make infinities of the scores themselves.
    with np.errstate(over="ignore"):
        shares = np.exp((logits[order] - logits[order[0]]) / sampling.temperature)
    sums = np.cumsum(shares)
    if sampling.top_p < 1:
        # The one that crosses the line is in.
        count = int(np.searchsorted(sums, sampling.top_p * sums[-1])) + 1
        sums = sums[:count]
    place = int(np.searchsorted(sums, random.random() * sums[-1], side="right"))
    return int(order[min(place, len(sums) - 1)])
