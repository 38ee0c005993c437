"""Values that are scored as a delta will hold them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from seed_runtime.tune.records import UNUSABLE, Score
from seed_runtime.tune.rounding import SHARES, round_differences, round_for_score

STORED = {"variance": np.array([0.5, 20, 300, 400], np.float32)}
VALUES = {"variance": np.array([0.3, 2, 6, 10], np.float32)}


def test_differences_are_whole_steps_and_rounding_them_again_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    stored = {"w": rng.standard_normal((40, 7)).astype(np.float32)}
    values = {"w": stored["w"] + rng.standard_normal((40, 7)).astype(np.float32) / 100}
    found, steps = round_differences(lambda name: stored[name].copy(), values, SHARES[0])
    error = np.abs(found["w"] - values["w"]).max()
    assert 0.4 * steps["w"] < error <= 0.51 * steps["w"]
    share = steps["w"] / float(np.sqrt(np.mean((found["w"] - stored["w"]).astype(np.float64) ** 2)))
    again, same = round_differences(lambda name: stored[name].copy(), found, share)
    assert same == steps
    assert np.array_equal(again["w"], found["w"])


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
    scores = iter([Score(0.5, 1), Score(0.6, 1), Score(0.7, 1), Score(0.8, 1)])
    reached, (found, _) = round_for_score(
        lambda name: STORED[name].copy(), VALUES, Score(0.9, 1.0), lambda values: next(scores)
    )
    assert reached == Score(0.8, 1)
    np.testing.assert_allclose(found["variance"], VALUES["variance"], atol=0.1)
