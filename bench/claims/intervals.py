"""Intervals of what a seed keeps: pairs of verdicts on the same samples, and what counts as kept.

Source: the normal interval of a mean of paired differences, and the bootstrap of clusters (Efron and Tibshirani,
An Introduction to the Bootstrap, 1993, chapter 13, percentile interval).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

KEPT, KEPT_LEAST = 0.99, 0.98  # the middle of the interval, its lower end
NORMAL = 1.959964  # two-sided 95 %


@dataclass(frozen=True)
class Interval:
    """A share of what the reference reaches, with its 95 % interval."""

    middle: float
    low: float
    high: float

    @property
    def kept(self) -> bool:
        """Whether it counts as kept."""
        return self.middle >= KEPT and self.low >= KEPT_LEAST


def paired(reference: np.ndarray, candidate: np.ndarray) -> Interval:
    """Return the share of the reference's mean that the candidate keeps, by the normal interval of the differences.

    The reference's mean is taken as exact: the interval is that of the difference.

    Args:
        reference: `(n,)` right or wrong, or a score, per sample.
        candidate: `(n,)` on the same samples.

    Raises:
        ValueError: there are fewer than two samples, or not as many on both sides, or the reference is 0.
    """
    base, difference = _checked(reference, candidate)
    half = NORMAL * float(difference.std(ddof=1)) / np.sqrt(len(difference))
    middle = float(difference.mean())
    return Interval(1 + middle / base, 1 + (middle - half) / base, 1 + (middle + half) / base)


def bootstrap(
    reference: np.ndarray, candidate: np.ndarray, clusters: np.ndarray | None = None, draws: int = 2000
) -> Interval:
    """Return the same share by drawing clusters (fonts, packages) with replacement; samples where none are given.

    Both means are drawn, so the reference's own uncertainty counts too. Deterministic.

    Raises:
        ValueError: as `paired`, or there is one cluster only.
    """
    base, difference = _checked(reference, candidate)
    if clusters is None:
        clusters = np.arange(len(difference))
    members = np.unique(clusters, return_inverse=True)[1]
    count = int(members.max()) + 1
    if count < 2:
        raise ValueError("one cluster has no spread; give at least two")
    sums = np.bincount(members, difference, count)
    bases = np.bincount(members, np.asarray(reference, np.float64), count)
    rng = np.random.default_rng(0)
    shares = np.empty(draws)
    for draw in range(draws):
        weights = np.bincount(rng.integers(0, count, count), minlength=count)
        shares[draw] = 1 + weights @ sums / max(weights @ bases, 1e-12)
    low, high = np.quantile(shares, [0.025, 0.975])
    return Interval(1 + float(difference.mean()) / base, float(low), float(high))


def perplexity_ratio(reference: np.ndarray, candidate: np.ndarray) -> Interval:
    """Return candidate over reference perplexity with the normal interval of the paired differences.

    Args:
        reference: `(n,)` mean negative log-likelihood of each window [nat a token], all windows of one length.
        candidate: `(n,)` of the same windows.
    """
    _, difference = _checked(reference, candidate)
    half = NORMAL * float(difference.std(ddof=1)) / np.sqrt(len(difference))
    middle = float(difference.mean())
    return Interval(float(np.exp(middle)), float(np.exp(middle - half)), float(np.exp(middle + half)))


def _checked(reference: np.ndarray, candidate: np.ndarray) -> tuple[float, np.ndarray]:
    first, second = np.asarray(reference, np.float64), np.asarray(candidate, np.float64)
    if first.shape != second.shape or first.ndim != 1 or len(first) < 2:
        raise ValueError(
            f"shapes {first.shape} and {second.shape}: give two verdicts or scores a sample, two samples at least"
        )
    base = float(first.mean())
    if base == 0:
        raise ValueError("the reference is 0 on all samples, so nothing can be kept of it")
    return base, second - first
