"""Scores with their labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from seed_runtime.errors import FormatError
from seed_runtime.processing.answers import Facts, Mark
from seed_runtime.processing.fields import Fields
from seed_runtime.processing.labels import LabelsAnswer, read
from seed_runtime.processing.sources import Sources

NAMES = b"cat\ndog\nowl\n"


def answer(scores: Any, top: int | None = None, **fields: Any) -> LabelsAnswer:
    sources = Sources({"labels.txt": NAMES}, dict)
    value = {"reads": {"scores": "y"}, "labels": "labels.txt", "activation": "none", **fields}
    return read(Fields(value, "here"), sources).answer([{"y": np.asarray(scores)}], Facts("it", top=top))  # type: ignore[return-value]


def test_labels_come_with_the_highest_score_first() -> None:
    found = answer([[1.0, 3.0, 2.0]])
    assert [(one.index, one.label, one.score) for one in found.labels] == [(1, "dog", 3), (2, "owl", 2), (0, "cat", 1)]
    assert list(found.lines()) == [" 3.0000  dog", " 2.0000  owl", " 1.0000  cat"]
    assert found.as_json()["labels"][0] == {"index": 1, "label": "dog", "score": 3.0}
    assert next(found.marks()) == Mark((), "dog 3.00")


def test_equal_scores_keep_the_order_of_the_classes() -> None:
    assert [one.index for one in answer(np.zeros((1, 3), np.float32)).labels] == [0, 1, 2]


def test_softmax_and_sigmoid_make_probabilities_without_overflow() -> None:
    softmax = answer([[1000.0, 1000.0, -1000.0]], activation="softmax")
    assert [one.score for one in softmax.labels] == pytest.approx([0.5, 0.5, 0.0])
    sigmoid = answer([[1000.0, 0.0, -1000.0]], activation="sigmoid")
    assert [one.score for one in sigmoid.labels] == pytest.approx([1.0, 0.5, 0.0])


def test_many_labels_at_once_are_those_above_a_threshold() -> None:
    found = answer([[2.0, -2.0, 0.1]], activation="sigmoid", threshold=0.5)
    assert [one.label for one in found.labels] == ["cat", "owl"]
    assert list(answer([[-1.0, -1.0, -1.0]], threshold=0.5).lines()) == ["no label reaches the threshold"]


def test_the_user_may_ask_for_fewer_labels_or_more() -> None:
    assert len(answer([[1.0, 2.0, 3.0]], top=1).labels) == 1
    sources = Sources({}, dict)
    step = read(Fields({"reads": {"scores": "y"}, "activation": "none", "top": 1}, "here"), sources)
    for top, shown in ((None, 1), (2, 2)):
        found = step.answer([{"y": np.arange(3.0)}], Facts("it", top=top))
        assert len(found.as_json()["labels"]) == shown


def test_without_labels_classes_have_their_numbers() -> None:
    assert [one.label for one in answer([[5.0, 4.0]], labels="").labels] == ["class 0", "class 1"]


@pytest.mark.parametrize("scores", [np.zeros((2, 3)), np.zeros(()), np.array([["a"]]), np.zeros((1, 4))])
def test_outputs_of_another_form_are_refused(scores: Any) -> None:
    with pytest.raises(FormatError, match=r"one vector of scores is needed|3 labels for 4 scores"):
        answer(scores)
