"""Layouts in which detectors give boxes: what each candidate's corners, score and class are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from seed_runtime.backends import Array
from seed_runtime.errors import FormatError, OutputError
from seed_runtime.limits import PICTURE_SIDE_MAX
from seed_runtime.processing.fields import Fields
from seed_runtime.processing.labels import NONE, SIGMOID, SOFTMAX, activated
from seed_runtime.processing.sources import Sources
from seed_runtime.processing.steps import Outputs, one_row

XYXY: Final = "xyxy"
YXYX: Final = "yxyx"
CENTER: Final = "center"
_ORDERS: Final = (XYXY, YXYX, CENTER)


@dataclass(frozen=True)
class Candidates:
    """All boxes that a model gives."""

    corners: Array
    """`(n, 4)`: left, top, right, bottom."""
    scores: Array
    """`(n,)`"""
    classes: Array
    """`(n,)`"""


@dataclass(frozen=True)
class Layout:
    """How one model gives its boxes."""

    where: str
    name: str
    reads: Mapping[str, str]
    order: str
    """What the four numbers of a box are: left, top, right, bottom; the same by rows; or center, width and height."""
    activation: str
    is_transposed: bool
    """Whether an output has its candidates on the last axis."""
    has_objectness: bool
    """Whether a score of the box itself stands before those of the classes."""
    strides: tuple[int, ...]
    """Pixels of the canvas between cells, for numbers that count in cells."""
    anchors: Array
    """`(n, 4)`: center, width and height that boxes are relative to; none for absolute ones, and for those of cells."""
    cells: tuple[tuple[int, int], ...]
    """Pixels of the canvas between cells, and anchors in the middle of each, as large as the canvas."""
    has_logarithms: bool
    """Whether sizes relative to anchors are logarithms."""
    extra: int
    """Numbers behind the four of a box that aren't used, such as points of a face."""
    variances: tuple[float, ...]
    """Units of these differences, of centers and of sizes."""
    background: int
    """Number of classes before the first that isn't background."""

    def candidates(self, outputs: Outputs, canvas: tuple[int, int]) -> Candidates:
        """Return all boxes.

        Args:
            outputs: of the model.
            canvas: width and height of the picture that it saw [pixel].

        Raises:
            OutputError: the outputs have another form.
        """
        return LAYOUTS[self.name].find(self, outputs, canvas)

    def output(self, outputs: Outputs, role: str, axes: int) -> Array:
        """Return an output without its batch, candidates first."""
        rows = one_row(self.where, outputs[self.reads[role]], axes)
        return rows.T if self.is_transposed and rows.ndim == 2 else rows

    def corners(self, boxes: Array) -> Array:
        """Return left, top, right and bottom of boxes in this order of numbers."""
        found = boxes.astype(np.float64)
        if self.order == YXYX:
            found = found[:, [1, 0, 3, 2]]
        if self.order == CENTER:
            half = found[:, 2:] / 2
            found = np.concatenate([found[:, :2] - half, found[:, :2] + half], axis=1)
        return found

    def refuse(self, array: Array, wanted: str) -> OutputError:
        """Return the error for an output of another form."""
        return OutputError(self.where, f"{wanted} is needed; the model gave {array.dtype}{list(array.shape)}")


@dataclass(frozen=True)
class _Kind:
    needed: tuple[str, ...]
    optional: tuple[str, ...]
    find: Callable[[Layout, Outputs, tuple[int, int]], Candidates]
    order: str


def _grid(layout: Layout, outputs: Outputs, canvas: tuple[int, int]) -> Candidates:
    """Return one candidate a row: a box, its objectness where there is one, and a score for each class."""
    rows = layout.output(outputs, "boxes", 3).astype(np.float64)
    first = 5 if layout.has_objectness else 4
    if rows.shape[1] <= first:
        raise layout.refuse(rows, "a box and scores in each row")
    boxes = rows[:, :4]
    if layout.strides:
        boxes = _from_cells(layout, boxes, canvas)
    scores = activated(rows[:, first:], layout.activation)
    if layout.has_objectness:
        scores = scores * activated(rows[:, 4:5], SIGMOID if layout.activation == SIGMOID else NONE)
    classes = scores.argmax(axis=1)
    return Candidates(layout.corners(boxes), scores[np.arange(len(scores)), classes], classes)


def _from_cells(layout: Layout, boxes: Array, canvas: tuple[int, int]) -> Array:
    """Return centers and sizes in pixels of boxes that count from their cell, sizes as logarithms (YOLOX)."""
    sides = [(canvas[1] // stride, canvas[0] // stride) for stride in layout.strides]
    if (total := sum(rows * columns for rows, columns in sides)) != len(boxes):
        raise layout.refuse(boxes, f"{total:,} cells of {list(layout.strides)} pixels")
    cells = []
    for stride, side in zip(layout.strides, sides, strict=True):
        rows, columns = np.mgrid[: side[0], : side[1]]
        cells.append(np.stack([columns.ravel(), rows.ravel(), np.full(rows.size, stride)], axis=1))
    grid = np.concatenate(cells).astype(np.float64)
    with np.errstate(over="ignore"):
        return np.concatenate([(boxes[:, :2] + grid[:, :2]) * grid[:, 2:], np.exp(boxes[:, 2:]) * grid[:, 2:]], axis=1)


def _rows(layout: Layout, outputs: Outputs, canvas: tuple[int, int]) -> Candidates:
    """Return boxes of rows with four numbers, a score and a class, as models give them that suppress by themselves."""
    rows = _table(layout, outputs)
    return Candidates(layout.corners(rows[:, :4]), rows[:, 4], _numbers(rows[:, 5]))


def _leading(layout: Layout, outputs: Outputs, canvas: tuple[int, int]) -> Candidates:
    """Return boxes of rows that begin with class and score, as those of Paddle."""
    rows = _table(layout, outputs)
    return Candidates(layout.corners(rows[:, 2:]), rows[:, 1], _numbers(rows[:, 0]))


def _table(layout: Layout, outputs: Outputs) -> Array:
    """Return an output of six columns, with a batch of 1 or without one."""
    array = outputs[layout.reads["boxes"]]
    rows = array[0] if array.ndim == 3 and array.shape[0] == 1 else array
    if rows.ndim != 2 or rows.shape[1] != 6 or rows.dtype.kind not in "fiu":
        raise layout.refuse(array, "a table of six columns")
    return rows


def _separate(layout: Layout, outputs: Outputs, canvas: tuple[int, int]) -> Candidates:
    """Return boxes of one output, with their scores, or one for each class, in another; SSD's relative to anchors."""
    boxes = layout.output(outputs, "boxes", 3).astype(np.float64)
    if boxes.shape[1] != 4 + layout.extra:
        raise layout.refuse(boxes, f"{4 + layout.extra} numbers for each box")
    boxes = boxes[:, :4]
    if "classes" in layout.reads:
        scores = one_row(layout.where, outputs[layout.reads["scores"]], 2).astype(np.float64)
        classes = _numbers(one_row(layout.where, outputs[layout.reads["classes"]], 2))
        scores = activated(scores, layout.activation) if layout.activation == SIGMOID else scores
    else:
        table = activated(layout.output(outputs, "scores", 3).astype(np.float64), layout.activation)
        table = table[:, layout.background :]
        if table.shape[1] == 0:
            raise layout.refuse(table, "a score for each class")
        classes = table.argmax(axis=1)
        scores = table[np.arange(len(table)), classes]
    if not len(boxes) == len(scores) == len(classes):
        raise layout.refuse(scores, f"scores of {len(boxes):,} boxes")
    if not len(layout.anchors) and not layout.cells:
        return Candidates(layout.corners(boxes), scores, classes)
    anchors = _of_cells(layout, boxes, canvas) if layout.cells else layout.anchors
    if len(boxes) != len(anchors):
        raise layout.refuse(boxes, f"boxes of {len(anchors):,} anchors")
    if layout.order == YXYX:
        boxes = boxes[:, [1, 0, 3, 2]]
    center, size = anchors[:, :2], anchors[:, 2:]
    with np.errstate(over="ignore"):
        middle = boxes[:, :2] * layout.variances[0] * size + center
        sizes = boxes[:, 2:] * layout.variances[1]
        half = (np.exp(sizes) if layout.has_logarithms else sizes) * size / 2
    return Candidates(np.concatenate([middle - half, middle + half], axis=1), scores, classes)


def _of_cells(layout: Layout, boxes: Array, canvas: tuple[int, int]) -> Array:
    """Return the anchors of cells, row by row, in shares of the canvas.

    Source: MediaPipe, calculators/tflite/ssd_anchors_calculator.cc, with `fixed_anchor_size`.
    """
    sides = [(-(-canvas[1] // stride), -(-canvas[0] // stride), count) for stride, count in layout.cells]
    if (total := sum(rows * columns * count for rows, columns, count in sides)) != len(boxes):
        raise layout.refuse(boxes, f"boxes of {total:,} anchors")
    found = []
    for rows, columns, count in sides:
        y, x = np.mgrid[:rows, :columns]
        middles = np.stack([(x.ravel() + 0.5) / columns, (y.ravel() + 0.5) / rows], axis=1)
        found.append(np.repeat(middles, count, axis=0))
    centers = np.concatenate(found)
    return np.concatenate([centers, np.ones_like(centers)], axis=1)


def _numbers(classes: Array) -> Array:
    """Return classes as integers; those of boxes that are none may be anything."""
    return np.clip(np.nan_to_num(classes.astype(np.float64), nan=-1.0), -1, 2**31).astype(np.int64)


LAYOUTS: Final[dict[str, _Kind]] = {
    "grid": _Kind(("boxes",), (), _grid, CENTER),
    "rows": _Kind(("boxes",), (), _rows, XYXY),
    "class-first": _Kind(("boxes",), (), _leading, XYXY),
    "separate": _Kind(("boxes", "scores"), ("classes",), _separate, XYXY),
}
"""Layouts by the word of the description."""


def read_layout(fields: Fields, sources: Sources, name: str) -> Layout:
    """Read the fields of a layout."""
    kind = LAYOUTS[name]
    anchors = np.empty((0, 4))
    if fields.has("anchors"):
        if fields.has("cells"):
            fields.refuse("'anchors' and 'cells' exclude each other")
        anchors = _read_anchors(sources.data(fields.text("anchors"), fields.where), fields.where)
    return Layout(
        where=fields.where,
        name=name,
        reads=fields.names("reads", kind.needed, kind.optional),
        order=fields.word("order", _ORDERS, kind.order),
        activation=fields.word("activation", (NONE, SIGMOID, SOFTMAX), NONE),
        is_transposed=fields.flag("transposed", False),
        has_objectness=fields.flag("objectness", False),
        strides=fields.integers("strides", (0, 8), 1, PICTURE_SIDE_MAX, ()),
        anchors=anchors,
        cells=_read_cells(fields),
        has_logarithms=fields.flag("logarithms", True),
        extra=fields.integer("extra", 0, 1024, 0),
        variances=fields.numbers("variances", 2, 2, (0.1, 0.2)),
        background=fields.integer("background", 0, 1, 0),
    )


def _read_anchors(data: bytes | memoryview, where: str) -> Array:
    """Return anchors: float32, four for each."""
    if len(data) == 0 or len(data) % 16:
        raise FormatError(where, "anchors are four float32 each")
    return np.frombuffer(data, "<f4").reshape(-1, 4).astype(np.float64)


def _read_cells(fields: Fields) -> tuple[tuple[int, int], ...]:
    """Read pairs of a stride and a number of anchors."""
    values = fields.integers("cells", (0, 16), 1, PICTURE_SIDE_MAX, ())
    if len(values) % 2:
        fields.refuse("'cells' are pairs: pixels between cells, and anchors in each")
    return tuple(zip(values[::2], values[1::2], strict=True))
