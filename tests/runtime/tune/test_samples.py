"""Samples: what fits a model, and what of them is held out."""

from __future__ import annotations

import numpy as np
import pytest

from seed_runtime.backends import TensorSpec
from seed_runtime.errors import InputError, UnsupportedError
from seed_runtime.tune.samples import check_samples, split

SPECS = [TensorSpec("x", "float32", ("n", 3))]
X = np.ones((6, 3), np.float32)


def test_integers_become_floats_and_labels_stand_beside() -> None:
    samples = check_samples({"x": np.full((6, 3), 7, np.uint8), "labels": np.arange(6)}, SPECS)
    assert samples.feeds(np.array([4]))["x"].tolist() == [[7, 7, 7]]
    assert samples.feeds(np.array([4]))["x"].dtype == np.float32
    assert samples.labels is not None
    assert (samples.count, samples.batch_max) == (6, None)


def test_a_model_of_one_sample_takes_them_one_by_one() -> None:
    samples = check_samples({"x": X[:, None]}, [TensorSpec("x", "float32", (1, 3))])
    assert (samples.feeds(np.arange(6))["x"].shape, samples.batch_max) == ((6, 3), 1)


NAN = X.copy()
NAN[2, 1] = np.nan
INFINITE = np.where(np.isnan(NAN), -np.inf, NAN).astype(np.float32)
WRONG = {
    "another name": ({"z": X}, "no input 'z'"),
    "none": ({}, "an input is missing"),
    "a type that would be rounded": ({"x": X.astype(np.float64)}, "is float64, and the model takes float32"),
    "another size": ({"x": np.ones((6, 4), np.float32)}, "is expected"),
    "other axes": ({"x": np.ones((6, 2, 3), np.float32)}, "is expected"),
    "NaN": ({"x": NAN}, "holds NaN"),
    "an infinity": ({"x": INFINITE}, "holds NaN or infinities"),
    "a single label": ({"x": X, "labels": np.array(1)}, "'labels' is a single int64"),
    "NaN in labels": ({"x": X, "labels": NAN}, "'labels' holds NaN"),
    "fewer labels": ({"x": X, "labels": np.arange(5)}, "different numbers of samples: x 6, labels 5"),
}


@pytest.mark.parametrize("case", WRONG)
def test_samples_that_do_not_fit_are_refused(case: str) -> None:
    arrays, problem = WRONG[case]
    with pytest.raises(InputError, match=problem):
        check_samples(arrays, SPECS)


def test_a_model_of_larger_batches_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="batches of 4"):
        check_samples({"x": X}, [TensorSpec("x", "float32", (4, 3))])


def test_of_each_class_some_samples_choose_and_some_are_held_out_and_the_rng_seed_decides_which() -> None:
    classes = np.repeat([0, 1, 7, 9], [40, 10, 3, 2])
    samples = check_samples({"x": np.ones((55, 3), np.float32)}, SPECS)
    found = split(samples, classes, np.random.default_rng(5))
    assert np.array_equal(np.sort(np.concatenate([found.train, found.validation, found.held_out])), np.arange(55))
    for rows, counts in ((found.held_out, [6, 2, 1, 1]), (found.validation, [6, 2, 1, 0])):
        assert [int((classes[rows] == name).sum()) for name in (0, 1, 7, 9)] == counts
    again = split(samples, classes, np.random.default_rng(5))
    assert np.array_equal(found.held_out, again.held_out)
    assert not np.array_equal(found.held_out, split(samples, classes, np.random.default_rng(6)).held_out)


@pytest.mark.parametrize(
    ("classes", "problem"),
    [([0, 0, 4, 1, 1, 1], "of class 4 there is one sample"), ([0, 0, 4, 4, 1, 1], "no class has three samples")],
)
def test_classes_of_too_few_samples_are_refused(classes: list[int], problem: str) -> None:
    samples = check_samples({"x": X}, SPECS)
    with pytest.raises(InputError, match=problem):
        split(samples, np.array(classes), np.random.default_rng(0))
