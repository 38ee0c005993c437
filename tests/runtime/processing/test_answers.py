"""Answers behind the model: embeddings and their similarity, lines of text, boxes, segments."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from seed_runtime.errors import FormatError, OutputError
from seed_runtime.limits import BOXES_MAX
from seed_runtime.processing import SampleAnswer, boxes, comparisons, ctc, embeddings, segments
from seed_runtime.processing.answers import Answer, Facts, Placement
from seed_runtime.processing.fields import Fields
from seed_runtime.processing.sources import Sources

PLACE = Placement(200, 100, 0.5, 0.5, 0, 25, 100, 100)
"""Of a picture of 200 x 100 pixels in a letterbox of 100 x 100."""
SQUARE = Placement(100, 100, 1, 1, 0, 0, 100, 100)


def answer(
    module: Any, output: Any, facts: Facts | None = None, files: Mapping[str, bytes] | None = None, **fields: Any
) -> Any:
    """Return what a step says of one output, or of several calls."""
    step = module.read(Fields(fields, "here"), Sources(files or {}, dict))
    calls = output if isinstance(output, list) else [output]
    return step.answer(calls, facts or Facts("it"))


def embedding(output: Any, mask: Any = None, **fields: Any) -> Any:
    facts = Facts("it", mask=None if mask is None else np.array([mask]))
    reads = {"reads": {"vectors": "y"}, "pooling": "mean", **fields}
    return answer(embeddings, {"y": np.asarray(output, np.float32)}, facts, **reads)


ROWS = [[[3.0, 0.0], [1.0, 4.0], [9.0, 9.0]]]


@pytest.mark.parametrize(
    ("pooling", "expected"), [("mean", [2, 2]), ("first", [3, 0]), ("last", [1, 4]), ("max", [3, 4])]
)
def test_vectors_of_tokens_are_pooled_without_what_fills_up(pooling: str, expected: list[float]) -> None:
    assert embedding(ROWS, [1, 1, 0], pooling=pooling, normalize=False).values.tolist() == expected


def test_an_embedding_has_length_one() -> None:
    assert embedding([[3.0, 4.0]], pooling="none").values.tolist() == pytest.approx([0.6, 0.8])
    assert embedding([[0.0, 0.0]], pooling="none").values.tolist() == [0.0, 0.0]
    assert list(embedding([[3.0, 4.0]], pooling="none").lines()) == ["2 values: 0.6000 0.8000"]


def test_several_embeddings_are_compared() -> None:
    vectors = ([[1.0, 0.0]], [[1.0, 1.0]], [[-2.0, 0.0]])
    samples = [
        SampleAnswer(Facts(name), (embedding(each, pooling="none"),)) for name, each in zip("abc", vectors, strict=True)
    ]
    found = comparisons(samples)[0]
    assert list(found.lines()) == [" 0.7071  a, b", "-1.0000  a, c", "-0.7071  b, c"]
    assert found.as_json()["cosines"][0] == pytest.approx([1.0, 0.707107, -1.0])
    assert comparisons(samples[:1]) == {}
    other = SampleAnswer(Facts("d"), (embedding([[1.0]], pooling="none"),))
    assert comparisons([samples[0], other]) == {}


@pytest.mark.parametrize("output", [ROWS[0], [ROWS], np.zeros((2, 3, 2))])
def test_vectors_of_another_form_are_refused(output: Any) -> None:
    with pytest.raises(FormatError, match="an output of 3 axes"):
        embedding(output, [1, 1, 1])


def test_a_mask_of_another_length_is_refused() -> None:
    for mask in ([1, 1], [0, 0, 0]):
        with pytest.raises(FormatError, match="3 vectors are given for"):
            embedding(ROWS, mask)


def line(columns: list[int], classes: int = 4, **fields: Any) -> Any:
    scores = np.full((1, len(columns), classes), 0.01, np.float32)
    scores[0, range(len(columns)), columns] = 0.9
    reads = {"reads": {"scores": "y"}, "characters": "c", **fields}
    return answer(ctc, {"y": scores}, files={"c": "a\nb\nß".encode()}, **reads)


def test_repeated_characters_are_one_unless_a_blank_separates_them() -> None:
    found = line([0, 1, 1, 0, 1, 2, 2, 3, 0])
    assert (found.text, found.score) == ("aabß", pytest.approx(0.9))
    assert list(found.lines()) == ["aabß"]
    assert line([0, 0]).as_json() == {"text": "", "score": 0.0}


def test_the_blank_may_be_last_and_a_space_may_be_added() -> None:
    assert line([3, 0, 1, 3, 2], blank="last").text == "abß"
    assert line([1, 4, 2], classes=5, space=True).text == "a b"


def test_characters_for_other_classes_are_refused() -> None:
    with pytest.raises(FormatError, match="there are 4 characters for 7 classes"):
        line([0], classes=7)


def found_boxes(outputs: Mapping[str, Any], facts: Facts | None = None, **fields: Any) -> Any:
    reads = {name: name for name in outputs}
    given = {name: np.asarray(array, np.float32) for name, array in outputs.items()}
    options = {"reads": reads, "labels": "l", **fields}
    files = {"l": b"cat\ndog", "anchors": np.array([[50, 50, 20, 20]], "<f4").tobytes()}
    return answer(boxes, given, facts or Facts("it", placement=PLACE), files, **options).boxes


def test_a_grid_of_candidates_becomes_boxes_of_the_picture() -> None:
    # Centers and sizes on the canvas, two classes; transposed as in YOLO 8 and later.
    rows = np.array([[50, 50, 20, 10, 0.1, 0.8], [51, 50, 20, 10, 0.1, 0.7], [20, 40, 10, 10, 0.6, 0.2]])
    found = found_boxes({"boxes": rows.T[None]}, layout="grid", transposed=True)
    assert [(box.label, round(box.score, 3), box.corners) for box in found] == [
        ("dog", 0.8, (80, 40, 120, 60)), ("cat", 0.6, (30, 20, 50, 40)),
    ]  # fmt: skip


def test_overlapping_boxes_of_different_classes_stay() -> None:
    rows = np.array([[[50, 50, 20, 10, 0.9, 0.1], [50, 50, 20, 10, 0.1, 0.8]]])
    assert [box.label for box in found_boxes({"boxes": rows}, layout="grid")] == ["cat", "dog"]
    same = np.array([[[50, 50, 20, 10, 0.9, 0.1], [50, 50, 20, 10, 0.8, 0.1]]])
    assert len(found_boxes({"boxes": same}, layout="grid")) == 1
    assert len(found_boxes({"boxes": same}, layout="grid", iou=1)) == 2


def test_objectness_multiplies_scores() -> None:
    rows = np.array([[[50, 50, 20, 10, 0.5, 0.1, 0.8], [9, 50, 2, 2, 0.1, 1, 1]]])
    (box,) = found_boxes({"boxes": rows}, layout="grid", objectness=True)
    assert (box.label, box.score) == ("dog", pytest.approx(0.4))


def test_numbers_may_count_in_cells() -> None:
    # A canvas of 100 x 100 has 4 cells of 50 pixels; the last one's center is moved by half a cell.
    rows = np.zeros((1, 4, 6))
    rows[0, 3] = [0.5, 0.5, np.log(0.4), np.log(0.2), 0.9, 0.0]
    (box,) = found_boxes({"boxes": rows}, layout="grid", strides=[50])
    assert box.corners == pytest.approx((130, 90, 170, 100))
    with pytest.raises(FormatError, match=r"5 cells of \[50, 100\] pixels is needed"):
        found_boxes({"boxes": rows}, layout="grid", strides=[50, 100])


@pytest.mark.parametrize(
    ("layout", "row", "fields"),
    [
        ("rows", [40, 45, 60, 55, 0.8, 1], {}),
        ("rows", [45, 40, 55, 60, 0.8, 1], {"order": "yxyx"}),
        ("rows", [0.4, 0.45, 0.6, 0.55, 0.8, 1], {"unit": "relative"}),
        ("class-first", [1, 0.8, 80, 40, 120, 60], {"unit": "source"}),
    ],
)
def test_rows_of_models_that_suppress_by_themselves(layout: str, row: list[float], fields: dict[str, Any]) -> None:
    for output in ([row, [-1] * 6], [[row, [-1] * 6]]):
        (box,) = found_boxes({"boxes": output}, layout=layout, **fields)
        assert (box.label, box.score) == ("dog", pytest.approx(0.8))
        assert box.corners == pytest.approx((80, 40, 120, 60), abs=1e-4)


def test_boxes_and_scores_may_be_outputs_of_their_own() -> None:
    corners = [[[40, 45, 60, 55], [0, 25, 10, 35]]]
    scores = {"boxes": corners, "scores": [[[0.1, 0.8], [0.6, 0.3]]]}
    assert [box.label for box in found_boxes(scores, layout="separate")] == ["dog", "cat"]
    classes = {"boxes": corners, "scores": [[0.8, 0.6]], "classes": [[1, 0]]}
    assert [box.label for box in found_boxes(classes, layout="separate")] == ["dog", "cat"]
    behind = {"boxes": corners, "scores": [[[0.1, 0.0, 0.9], [0.9, 0.1, 0.0]]]}
    assert [box.label for box in found_boxes(behind, layout="separate", background=1)] == ["dog"]


def test_boxes_may_be_differences_to_anchors() -> None:
    outputs = {"boxes": [[[5, -5, 0, np.log(0.5) / 0.2]]], "scores": [[[0.1, 0.9]]]}
    (box,) = found_boxes(outputs, layout="separate", anchors="anchors")
    # The anchor is 20 x 20 around (50, 50): the center moves by 10 each way, and the height is halved.
    assert box.corners == pytest.approx((100, 20, 140, 40))
    with pytest.raises(FormatError, match="boxes of 1 anchors is needed"):
        found_boxes({"boxes": np.zeros((1, 2, 4)), "scores": np.ones((1, 2, 2))}, layout="separate", anchors="anchors")
    with pytest.raises(FormatError, match="anchors are four float32"):
        found_boxes(outputs, layout="separate", anchors="l")


def test_anchors_may_be_given_by_their_cells() -> None:
    # A canvas of 100 x 100: 2 anchors in each of 2 x 2 cells, and one in the middle.
    rows = np.zeros((1, 9, 6))
    rows[0, 2] = [10, -5, 40, 20, 7, 7]
    scores = np.full((1, 9, 1), -9.0)
    scores[0, [2, 8]] = [[4.0], [3.0]]
    fields = {
        "layout": "separate", "order": "center", "unit": "relative", "activation": "sigmoid", "extra": 2,
        "cells": [50, 2, 100, 1], "logarithms": False, "variances": [0.01, 0.01],
    }  # fmt: skip
    first, second = found_boxes({"boxes": rows, "scores": scores}, Facts("it", placement=SQUARE), **fields)
    # The third anchor is of the second cell, whose middle is (.75, .25).
    assert first.corners == pytest.approx((65, 10, 100, 30))
    assert second.corners == pytest.approx((50, 50, 50, 50))
    with pytest.raises(FormatError, match="boxes of 16 anchors is needed"):
        found_boxes(
            {"boxes": rows, "scores": scores}, Facts("it", placement=SQUARE), **fields | {"cells": [50, 2, 99, 2]}
        )
    with pytest.raises(FormatError, match="6 numbers for each box"):
        found_boxes({"boxes": rows[..., :5], "scores": scores}, **fields)


def test_cells_are_counted_before_they_are_made() -> None:
    huge = Facts("it", placement=Placement(1, 1, 1, 1, 0, 0, 8192, 8192))
    tracemalloc.start()
    try:
        with pytest.raises(OutputError, match=r"536,870,912 cells of \[1, 1, 1, 1, 1, 1, 1, 1\] pixels is needed"):
            found_boxes({"boxes": np.zeros((1, 4, 6))}, huge, layout="grid", strides=[1] * 8)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_anchors_are_counted_before_they_are_made() -> None:
    huge = Placement(1, 1, 1, 1, 0, 0, 8192, 8192)
    fields = {"layout": "separate", "cells": [1, 8192] * 8}
    with pytest.raises(FormatError, match="boxes of 4,398,046,511,104 anchors is needed"):
        found_boxes({"boxes": np.zeros((1, 2, 4)), "scores": np.ones((1, 2, 1))}, Facts("it", placement=huge), **fields)
    for wrong in ({"cells": [8]}, {"cells": [0, 1]}, {"cells": [8, 1] * 9}, {"cells": [8, 1], "anchors": "anchors"}):
        with pytest.raises(FormatError, match="cells"):
            found_boxes({"boxes": np.zeros((1, 1, 4)), "scores": np.ones((1, 1, 1))}, layout="separate", **wrong)


def test_candidates_that_are_no_numbers_are_left_out() -> None:
    rows = np.array([[[np.nan, 50, 20, 10, 0.9, 0], [50, 50, 20, 10, np.nan, np.nan], [50, 50, np.inf, 1, 1, 1]]])
    assert found_boxes({"boxes": rows}, layout="grid") == ()
    empty = found_boxes({"boxes": np.zeros((1, 0, 6))}, layout="grid")
    assert empty == ()


def test_so_many_boxes_are_compared_and_no_more() -> None:
    count = BOXES_MAX + 500
    found = boxes.Candidates(np.zeros((count, 4)), np.arange(count), np.zeros(count, int))
    corners, scores, classes = boxes.strongest(found, 10.0)
    assert len(corners) == len(scores) == len(classes) == BOXES_MAX
    assert (scores[0], scores[-1]) == (count - 1, count - BOXES_MAX)


def test_a_box_has_lines_marks_and_an_object() -> None:
    found = answer(
        boxes, {"y": np.array([[10, 20, 30, 40, 0.9, 7]], np.float32)}, Facts("it", placement=PLACE),
        reads={"boxes": "y"}, layout="rows", unit="source",
    )  # fmt: skip
    assert list(found.lines()) == [" 0.9000  class 7  10 20 30 40"]
    box = {"index": 7, "label": "class 7", "score": pytest.approx(0.9), "box": [10, 20, 30, 40]}
    assert found.as_json() == {"boxes": [box]}
    (mark,) = found.marks()
    assert mark.corners == ((10, 20), (30, 20), (30, 40), (10, 40))
    assert json.dumps(found.as_json() | {"boxes": []})


@pytest.mark.parametrize(
    ("outputs", "fields"),
    [
        ({"boxes": np.zeros((1, 3, 4))}, {"layout": "grid"}),
        ({"boxes": np.zeros((1, 3, 5))}, {"layout": "rows"}),
        ({"boxes": np.zeros((3,))}, {"layout": "class-first"}),
        ({"boxes": np.zeros((1, 3, 5)), "scores": np.zeros((1, 3, 2))}, {"layout": "separate"}),
        ({"boxes": np.zeros((1, 3, 4)), "scores": np.zeros((1, 2, 2))}, {"layout": "separate"}),
        ({"boxes": np.zeros((2, 3, 4)), "scores": np.zeros((2, 3, 2))}, {"layout": "separate"}),
    ],
)
def test_outputs_of_another_form_are_refused(outputs: Mapping[str, Any], fields: dict[str, Any]) -> None:
    with pytest.raises(OutputError, match="needed; the model gave"):
        found_boxes(outputs, **fields)


def test_boxes_need_a_picture_and_segments_a_sound() -> None:
    with pytest.raises(FormatError, match="boxes are of pictures"):
        found_boxes({"boxes": np.zeros((1, 3, 6))}, Facts("it"), layout="grid")
    with pytest.raises(FormatError, match="segments are of sound"):
        answer(segments, {"y": np.zeros((1, 1))}, reads={"probability": "y"})


def speech(probabilities: list[float], **fields: Any) -> Any:
    facts = Facts("it", frame_seconds=0.1, seconds=len(probabilities) * 0.1)
    calls = [{"y": np.array([[value]], np.float32)} for value in probabilities]
    options = {"reads": {"probability": "y"}, "margin": 0, "least": 0.2, "gap": 0.2, **fields}
    return answer(segments, calls, facts, **options)


def test_frames_of_high_probability_are_segments() -> None:
    found = speech([0, 0.9, 0.9, 0.4, 0.9, 0, 0, 0, 0.6, 0, 0, 0, 0.9, 0.9])
    assert [tuple(round(each, 3) for each in pair) for pair in found.segments] == [(0.1, 0.5), (1.2, 1.4)]
    assert next(found.lines()) == "    0.10 s to     0.50 s"
    assert found.as_json()["segments"][0] == {"start": 0.1, "end": 0.5}
    assert list(speech([0, 0]).lines()) == ["no segment"]


def test_margins_stay_within_the_sound_and_do_not_overlap() -> None:
    found = speech([0.9, 0.9, 0, 0, 0.9, 0.9], margin=0.15)
    assert [tuple(round(each, 3) for each in pair) for pair in found.segments] == [(0.0, 0.35), (0.35, 0.6)]


def test_outputs_that_are_no_probabilities_are_refused() -> None:
    facts = Facts("it", frame_seconds=0.1, seconds=1.0)
    for output in (np.zeros((1, 0), np.float32), np.zeros((1, 1), np.int64)):
        with pytest.raises(FormatError, match="an output of probabilities"):
            answer(segments, {"y": output}, facts, reads={"probability": "y"})


def test_every_answer_says_its_kind() -> None:
    kinds: list[Callable[[], Answer]] = [
        lambda: embedding([[1.0]], pooling="none"),
        lambda: line([0]),
        lambda: speech([0.0]),
    ]
    assert [make().kind for make in kinds] == ["embeddings", "ctc", "segments"]
