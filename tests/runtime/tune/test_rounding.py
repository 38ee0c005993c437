"""Values that are scored as a delta will hold them."""

from __future__ import annotations

import weakref
from collections.abc import Mapping

import numpy as np
import pytest

from seed_runtime.tune.records import UNUSABLE, Score
from seed_runtime.tune.rounding import SHARES, VECTOR_SHARE, Inputs, round_differences, round_for_score

STORED = {"variance": np.array([0.5, 20, 300, 400], np.float32)}
VALUES = {"variance": np.array([0.3, 2, 6, 10], np.float32)}


def test_differences_are_whole_steps_and_rounding_them_again_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    stored = {"w": rng.standard_normal((40, 7)).astype(np.float32)}
    values = {"w": stored["w"] + rng.standard_normal((40, 7)).astype(np.float32) / 100}
    found, steps = round_differences(lambda name: stored[name].copy(), values, 0.25)
    error = np.abs(found["w"] - values["w"]).max()
    assert 0.4 * steps["w"] < error <= 0.51 * steps["w"]
    share = steps["w"] / float(np.sqrt(np.mean((found["w"] - stored["w"]).astype(np.float64) ** 2)))
    again, same = round_differences(lambda name: stored[name].copy(), found, share)
    assert same == steps
    assert np.array_equal(again["w"], found["w"])


def test_vectors_have_finer_steps_than_matrices() -> None:
    values = {name: np.ones(shape, np.float32) for name, shape in (("matrix", (4, 5)), ("bias", (5,)))}
    _, steps = round_differences(lambda name: np.zeros_like(values[name]), values, SHARES[0])
    assert steps == {"matrix": SHARES[0], "bias": VECTOR_SHARE}


def test_steps_are_refined_until_the_score_is_that_of_the_values() -> None:
    seen: list[np.ndarray] = []

    def score(values: Mapping[str, np.ndarray]) -> Score:
        seen.append(values["variance"])
        return UNUSABLE if values["variance"].min() <= 0 else Score(0.9, 1.0)

    reached, (found, _) = round_for_score(lambda name: STORED[name].copy(), VALUES, Score(0.9, 1.0), score)
    assert reached == Score(0.9, 1.0)
    assert len(seen) > 1
    assert seen[0].min() <= 0 < found["variance"].min()


def test_the_finest_steps_count_where_none_reaches_the_score() -> None:
    scores = iter([*(Score(0.5, 1) for _ in SHARES[1:]), Score(0.8, 1)])
    reached, (found, _) = round_for_score(
        lambda name: STORED[name].copy(), VALUES, Score(0.9, 1.0), lambda values: next(scores)
    )
    assert reached == Score(0.8, 1)
    np.testing.assert_allclose(found["variance"], VALUES["variance"], atol=0.1)


def test_no_two_roundings_are_held_at_once() -> None:
    before: list[weakref.ref[np.ndarray]] = []

    def score(values: Mapping[str, np.ndarray]) -> Score:
        assert all(each() is None for each in before)
        before.append(weakref.ref(values["variance"]))
        return Score(0.5, 1.0)

    round_for_score(lambda name: STORED[name].copy(), VALUES, Score(0.9, 1.0), score)
    assert len(before) == len(SHARES)


@pytest.mark.parametrize(
    ("wanted", "tried"),
    [
        (Score(0.9, 1.0), [Score(0.89, 1.0), Score(0.9, 1.1), Score(0.9, 1.01)]),
        (Score(-1.0, 1.0), [Score(-1.1, 1.1), Score(-1.01, 1.01)]),
    ],
)
def test_coarse_steps_may_cost_some_loss_and_no_decisions(wanted: Score, tried: list[Score]) -> None:
    scores = iter(tried)
    reached, _ = round_for_score(lambda name: STORED[name].copy(), VALUES, wanted, lambda values: next(scores))
    assert reached is tried[-1]
    assert not list(scores)


@pytest.mark.parametrize("most", [0, 2])
def test_steps_are_as_fine_as_the_size_allows(most: int) -> None:
    sizes = iter(range(1, 9))
    reached, (found, steps) = round_for_score(
        lambda name: STORED[name].copy(),
        VALUES,
        Score(0.9, 1.0),
        lambda values: Score(0.5, 1.0),
        fits=lambda rounded: next(sizes) <= most,
    )
    assert (reached, bool(found), bool(steps)) == ((Score(0.5, 1.0), True, True) if most else (UNUSABLE, False, False))


@pytest.mark.parametrize("is_transposed", [False, True])
def test_what_is_known_of_a_matrix_s_inputs_keeps_its_outputs(is_transposed: bool) -> None:
    rng = np.random.default_rng(1)
    x = np.maximum(rng.standard_normal((300, 6)) @ rng.standard_normal((6, 40)) + 1, 0).astype(np.float32)
    stored = {"matrix": np.zeros((40, 10), np.float32), "bias": np.zeros(10, np.float32)}
    values = {name: rng.standard_normal(value.shape).astype(np.float32) for name, value in stored.items()}
    if is_transposed:
        stored["matrix"], values["matrix"] = (np.ascontiguousarray(each["matrix"].T) for each in (stored, values))
    inputs = Inputs(np.cov(x.T, bias=True).astype(np.float32), x.mean(axis=0), is_transposed, "bias")

    def error(known: Mapping[str, Inputs] | None) -> float:
        found, steps = round_differences(lambda name: stored[name].copy(), values, 1.0, known)
        assert np.allclose(found["matrix"] / steps["matrix"], np.rint(found["matrix"] / steps["matrix"]), atol=1e-3)
        moved = {name: found[name] - values[name] for name in values}
        matrix = moved["matrix"].T if is_transposed else moved["matrix"]
        return float(np.square(x @ matrix + moved["bias"]).mean())

    assert error({"matrix": inputs}) < 0.25 * error(None)


def test_what_a_matrix_loses_on_average_goes_to_its_bias_whatever_their_names_and_the_axes_of_the_bias() -> None:
    rng = np.random.default_rng(0)
    values = {"b": rng.standard_normal(6).astype(np.float32), "w": rng.standard_normal((9, 6)).astype(np.float32)}
    inputs = {"w": Inputs(np.eye(9, dtype=np.float32), np.full(9, 3, np.float32), False, "b")}
    flat, _ = round_differences(lambda name: np.zeros_like(values[name]), values, 1.0, inputs)
    values["b"] = values["b"][None]
    found, _ = round_differences(lambda name: np.zeros_like(values[name]), values, 1.0, inputs)
    assert not np.array_equal(flat["b"], values["b"][0])
    np.testing.assert_array_equal(found["b"][0], flat["b"])
    np.testing.assert_array_equal(found["w"], flat["w"])
