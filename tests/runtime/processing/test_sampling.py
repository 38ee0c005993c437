"""Which token is chosen by its scores."""

from __future__ import annotations

import numpy as np
import pytest

from seed_runtime.errors import FormatError
from seed_runtime.processing.generation.sampling import Sampling, choose

SCORES = np.array([0.0, 3.0, 1.0, 2.9, -1.0], np.float32)


def counts(sampling: Sampling, scores: np.ndarray = SCORES, draws: int = 3000) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.bincount([choose(scores, [], sampling, rng) for _ in range(draws)], minlength=len(scores)) / draws


def test_at_temperature_0_the_best_token_is_taken_and_no_random_number_drawn() -> None:
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    assert choose(SCORES, [], Sampling(), rng) == 1
    assert rng.bit_generator.state == before


def test_tokens_come_as_often_as_their_probabilities_say() -> None:
    expected = np.exp(SCORES / 2) / np.exp(SCORES / 2).sum()
    np.testing.assert_allclose(counts(Sampling(temperature=2.0)), expected, atol=0.03)


def test_top_k_and_top_p_leave_unlikely_tokens_out() -> None:
    assert set(np.flatnonzero(counts(Sampling(temperature=1.0, top_k=2)))) == {1, 3}
    # The best two have .87 of the probability, the best one .46.
    assert set(np.flatnonzero(counts(Sampling(temperature=1.0, top_p=0.5)))) == {1, 3}
    assert set(np.flatnonzero(counts(Sampling(temperature=1.0, top_p=0.4)))) == {1}
    assert set(np.flatnonzero(counts(Sampling(temperature=1.0, top_p=0.0)))) == {1}


def test_tokens_that_were_there_already_become_less_likely() -> None:
    rng = np.random.default_rng(0)
    assert choose(SCORES, [1, 1, 900], Sampling(repetition_penalty=1.1), rng) == 3
    below = np.array([-1.0, -1.05], np.float32)
    assert choose(below, [0], Sampling(repetition_penalty=1.1), rng) == 1
    assert SCORES[1] == 3.0


def test_tokens_without_a_chance_are_never_chosen() -> None:
    scores = np.array([-np.inf, 1.0, -np.inf], np.float32)
    assert set(np.flatnonzero(counts(Sampling(temperature=5.0), scores, 50))) == {1}


@pytest.mark.parametrize("scores", [[np.nan, 1.0], [-np.inf, -np.inf], [np.inf, 0.0], []])
def test_scores_that_are_no_numbers_are_refused(scores: list[float]) -> None:
    with pytest.raises(FormatError, match="a finite one is needed"):
        choose(np.array(scores, np.float32), [], Sampling(), np.random.default_rng(0))


def test_the_lowest_temperature_takes_the_best_token_as_0_does() -> None:
    rng = np.random.default_rng(0)
    scores = np.array([-np.inf, 3.0, 4.0, -1e30])
    assert {choose(scores, [], Sampling(temperature=5e-324), rng) for _ in range(20)} == {2}
