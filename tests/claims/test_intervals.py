"""Intervals of what a seed keeps, and what counts as kept."""

from __future__ import annotations

import numpy as np
import pytest

from bench.claims.intervals import Interval, bootstrap, paired, perplexity_ratio


def test_the_same_verdicts_keep_everything_without_doubt() -> None:
    verdicts = np.array([True, False, True, True])
    assert paired(verdicts, verdicts) == Interval(1, 1, 1)
    assert bootstrap(verdicts, verdicts) == Interval(1, 1, 1)


def test_the_paired_interval_is_the_normal_one_of_the_differences() -> None:
    # By hand: 1,000 samples, the reference has 900 right, the candidate loses 10 and gains 5 others.
    reference = np.arange(1000) < 900
    candidate = reference.copy()
    candidate[:10] = False
    candidate[900:905] = True
    mean, variance = -0.005, (15 - 1000 * 0.005**2) / 999
    half = 1.959964 * (variance / 1000) ** 0.5
    found = paired(reference, candidate)
    assert found.middle == pytest.approx(1 + mean / 0.9)
    assert (found.low, found.high) == pytest.approx((1 + (mean - half) / 0.9, 1 + (mean + half) / 0.9))


def test_pairs_are_far_surer_than_two_separate_rates() -> None:
    rng = np.random.default_rng(1)
    reference = rng.random(4000) < 0.8
    candidate = reference ^ (rng.random(4000) < 0.01)
    found = paired(reference, candidate)
    apart = 2 * 1.96 * np.sqrt(2 * 0.8 * 0.2 / 4000) / 0.8
    assert found.high - found.low < apart / 3


def test_the_bootstrap_agrees_with_the_normal_interval_where_samples_are_independent() -> None:
    rng = np.random.default_rng(2)
    reference = rng.random(3000) < 0.9
    candidate = reference & (rng.random(3000) < 0.98)
    normal, drawn = paired(reference, candidate), bootstrap(reference, candidate)
    assert drawn.middle == normal.middle
    assert (drawn.low, drawn.high) == pytest.approx((normal.low, normal.high), abs=2e-3)


def test_samples_of_one_font_count_less_than_as_many_fonts() -> None:
    # Every font is wholly right or wholly wrong: 20 fonts say as much as 20 samples, not as 2,000.
    fonts = np.repeat(np.arange(20), 100)
    reference = np.ones(2000)
    candidate = (fonts % 4 > 0).astype(float)
    alone, clustered = bootstrap(reference, candidate), bootstrap(reference, candidate, fonts)
    assert clustered.high - clustered.low > 5 * (alone.high - alone.low)


def test_the_bootstrap_is_the_same_each_time() -> None:
    rng = np.random.default_rng(3)
    reference, candidate = rng.random((2, 50))
    assert bootstrap(reference, candidate) == bootstrap(reference, candidate)


def test_a_perplexity_ratio_is_the_exponential_of_the_mean_difference() -> None:
    reference = np.array([3.0, 3.2, 2.9, 3.1])
    found = perplexity_ratio(reference, reference + np.log(1.25))
    assert (found.middle, found.low, found.high) == pytest.approx((1.25, 1.25, 1.25))
    wide = perplexity_ratio(reference, reference + np.array([0.1, 0.3, 0.2, 0.2]))
    assert wide.middle == pytest.approx(np.exp(0.2))
    assert wide.low < wide.middle < wide.high


@pytest.mark.parametrize(
    ("interval", "kept"),
    [
        (Interval(0.99, 0.98, 1.0), True),
        (Interval(1.01, 0.99, 1.03), True),
        (Interval(0.989, 0.985, 0.993), False),
        (Interval(0.995, 0.979, 1.011), False),
    ],
)
def test_kept_means_the_middle_at_99_percent_and_the_lower_end_at_98(interval: Interval, kept: bool) -> None:
    assert interval.kept is kept


@pytest.mark.parametrize(
    ("reference", "candidate", "said"),
    [
        (np.ones(3), np.ones(4), "two verdicts"),
        (np.ones(1), np.ones(1), "two samples"),
        (np.zeros(5), np.ones(5), "the reference is 0"),
    ],
)
def test_what_has_no_interval_is_refused(reference: np.ndarray, candidate: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        paired(reference, candidate)


def test_one_cluster_has_no_spread() -> None:
    with pytest.raises(ValueError, match="one cluster"):
        bootstrap(np.ones(5), np.ones(5), np.zeros(5, int))
