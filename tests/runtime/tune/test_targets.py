"""Labels as targets of a loss, and scores."""

from __future__ import annotations

import numpy as np
import pytest

from seed_runtime.errors import InputError, UsageError
from seed_runtime.skeletons.info import ValueInfo
from seed_runtime.skeletons.training import COSINE, SQUARED_ERROR, TARGET, TrainingInfo
from seed_runtime.tune.records import UNUSABLE, Score
from seed_runtime.tune.targets import Task


def info(axis: int | None = 1, dims: tuple[int | str, ...] = ("n", 4)) -> TrainingInfo:
    name = "train.cross_entropy" + ("" if axis is None else f".{axis}")
    return TrainingInfo(ValueInfo(TARGET, 1, dims), name, axis, (), (), False)


ROWS = np.arange(3)


def test_numbers_of_classes_become_rows_of_one() -> None:
    task = Task(info(), np.array([2, 0, 3, 1]), None)
    fed = task.feeds(ROWS, 3.0)
    assert np.array_equal(fed[TARGET], np.eye(4, dtype=np.float32)[[2, 0, 3]])
    assert fed["train.cross_entropy.1"] == np.float32(1 / 3)
    assert (fed[SQUARED_ERROR], fed[COSINE]) == (0, 0)
    assert task.metric == "accuracy"


def test_positions_of_negative_classes_do_not_count() -> None:
    task = Task(info(2, ("n", "t", 4)), np.array([[1, -100], [2, 3], [-100, -100]]), None)
    assert task.count(ROWS) == 3
    target = task.target(ROWS)
    assert target.shape == (3, 2, 4)
    assert not target[0, 1].any()
    outputs = np.zeros((3, 2, 4), np.float32)
    outputs[..., 2] = 1
    assert task.hits(outputs, ROWS) == 1


def test_decisions_of_their_own_have_targets_of_the_outputs_shape() -> None:
    task = Task(info(None, ("n", 1)), np.array([1, 0, 1]), None)
    assert np.array_equal(task.target(ROWS), [[1], [0], [1]])
    assert task.hits(np.array([[0.9], [0.8], [0.7]], np.float32), ROWS) == 2


def test_floats_are_shares_of_classes_if_they_add_up_to_one_and_values_otherwise() -> None:
    shares = np.full((3, 4), 0.25, np.float32)
    assert Task(info(), shares, None).metric == "negative cross-entropy"
    values = Task(info(), 2 * shares, None)
    assert values.metric == "negative squared-error"
    assert values.count(ROWS) == 12
    assert Task(info(), shares, "cosine").count(ROWS) == 3


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (np.array([0, 4, 1]), "holds class 4, and the model has classes 0 to 3"),
        (np.array([0, -1, 1]), "holds class -1"),
        (np.zeros((3, 2), np.int64), "give the number of a class"),
        (np.zeros((3, 5), np.float32), "give the number of a class"),
        (np.array(["a", "b", "c"]), "give the number of a class"),
    ],
)
def test_labels_that_do_not_fit_the_output_are_refused(labels: np.ndarray, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        Task(info(), labels, None)


def test_an_unknown_loss_is_refused() -> None:
    with pytest.raises(UsageError, match="use one of cross-entropy, squared-error, cosine"):
        Task(info(), None, "hinge")


def test_of_equal_scores_the_one_with_less_loss_is_better() -> None:
    assert Score(0.9, 2.0) > Score(0.8, 0.1)
    assert Score(0.9, 1.0) > Score(0.9, 2.0)
    assert not Score(0.9, 2.0) > Score(0.9, 2.0)


@pytest.mark.parametrize("axis", [None, 1])
def test_values_that_are_no_shares_have_no_cross_entropy(axis: int | None) -> None:
    with pytest.raises(InputError, match=r"are no shares of classes.*--loss squared-error"):
        Task(info(axis), np.array([[0.5, -2, 1, 0]], np.float32), "cross-entropy")


@pytest.mark.parametrize("loss", [np.nan, np.inf])
def test_outputs_that_are_no_numbers_are_worse_than_any_others(loss: float) -> None:
    score = Task(info(), np.array([0, 0, 0, 0]), None).score(3, loss, 4)
    assert score == UNUSABLE
    assert Score(0.0, 1e30) > score
    assert not score > score
