"""Step "boxes": objects in a picture, from the layouts of common detectors, without those that overlap."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from seed_runtime.backends import Array
from seed_runtime.errors import FormatError
from seed_runtime.limits import BOXES_MAX
from seed_runtime.processing.answers import Answer, Facts, Mark, Placement, rounded
from seed_runtime.processing.box_layouts import LAYOUTS, Candidates, Layout, read_layout
from seed_runtime.processing.fields import Fields
from seed_runtime.processing.labels import name_of, read_labels
from seed_runtime.processing.sources import Sources
from seed_runtime.processing.steps import Outputs, OutputStep

CANVAS: Final = "canvas"
RELATIVE: Final = "relative"
SOURCE: Final = "source"
_COUNT: Final = 100


@dataclass(frozen=True)
class Box:
    """One object."""

    index: int
    label: str
    score: float
    corners: tuple[float, float, float, float]
    """Left, top, right and bottom in the picture as it was given [pixel]."""


@dataclass(frozen=True)
class BoxesAnswer(Answer):
    """Objects of one picture, the highest score first."""

    boxes: tuple[Box, ...]
    kind = "boxes"

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "boxes": [
                {
                    "index": box.index,
                    "label": box.label,
                    "score": rounded(box.score),
                    "box": [round(side, 2) for side in box.corners],
                }
                for box in self.boxes
            ]
        }

    def lines(self) -> Iterator[str]:
        """Yield a line for each object."""
        if not self.boxes:
            yield "nothing is found"
        for box in self.boxes:
            yield f"{box.score:7.4f}  {box.label}  {' '.join(f'{side:.0f}' for side in box.corners)}"

    def marks(self) -> Iterator[Mark]:
        """Yield the boxes with their labels."""
        for box in self.boxes:
            left, top, right, bottom = box.corners
            yield Mark(((left, top), (right, top), (right, bottom), (left, bottom)), f"{box.label} {box.score:.2f}")


@dataclass(frozen=True)
class BoxesStep:
    """Makes boxes of a detector's outputs."""

    where: str
    layout: Layout
    labels: tuple[str, ...]
    unit: str
    """What the boxes count in: pixels of the canvas, shares of it, or pixels of the picture."""
    threshold: float
    """Least score."""
    iou: float
    """Largest overlap of two boxes of one class, as intersection over union; 1 keeps all."""
    most: int
    kind: str = "boxes"

    @property
    def reads(self) -> Mapping[str, str]:
        """Names of the model's outputs by their roles."""
        return self.layout.reads

    def answer(self, calls: Sequence[Outputs], facts: Facts) -> BoxesAnswer:
        """Choose boxes (see `OutputStep`)."""
        place = facts.placement
        if place is None:
            raise FormatError(self.where, "boxes are of pictures, and no step before the model reads any")
        found = self.layout.candidates(calls[-1], (place.canvas_width, place.canvas_height))
        corners, scores, classes = strongest(found, self.threshold)
        corners = self._in_picture(corners, place)
        kept = suppressed(corners, scores, classes, self.iou)[: facts.top or self.most]
        return BoxesAnswer(
            tuple(
                Box(
                    int(classes[index]),
                    name_of(self.labels, int(classes[index])),
                    float(scores[index]),
                    (left, top, right, bottom),
                )
                for index, (left, top, right, bottom) in zip(kept, corners[kept].tolist(), strict=True)
            )
        )

    def _in_picture(self, corners: Array, place: Placement) -> Array:
        """Return corners in pixels of the picture, none outside of it."""
        found = corners.astype(np.float64)
        if self.unit == RELATIVE:
            found *= np.array([place.canvas_width, place.canvas_height] * 2)
        if self.unit != SOURCE:
            found -= np.array([place.left, place.top] * 2)
            found /= np.array([place.scale_x, place.scale_y] * 2)
        return np.clip(found, 0.0, np.array([place.width, place.height] * 2, np.float64))


def strongest(found: Candidates, threshold: float) -> tuple[Array, Array, Array]:
    """Return corners, scores and classes of the candidates above a threshold, the highest first, at most BOXES_MAX."""
    scores = np.nan_to_num(found.scores.astype(np.float64), nan=-1.0)
    usable = np.flatnonzero((scores >= threshold) & np.isfinite(found.corners).all(axis=1))
    order = usable[np.argsort(-scores[usable], kind="stable")][:BOXES_MAX]
    return found.corners[order], scores[order], found.classes[order]


def suppressed(corners: Array, scores: Array, classes: Array, most: float) -> list[int]:
    """Return the numbers of boxes that no better one of their class overlaps by more than `most`.

    Args:
        corners: `(n, 4)`, left, top, right, bottom, in the order of the scores.
        scores: `(n,)`, the highest first.
        classes: `(n,)`.
        most: intersection over union.
    """
    areas = np.prod(np.maximum(corners[:, 2:] - corners[:, :2], 0.0), axis=1)
    is_left = np.ones(len(scores), bool)
    kept = []
    for index in range(len(scores)):
        if not is_left[index]:
            continue
        kept.append(index)
        first = np.maximum(corners[index, :2], corners[index + 1 :, :2])
        last = np.minimum(corners[index, 2:], corners[index + 1 :, 2:])
        common = np.prod(np.maximum(last - first, 0.0), axis=1)
        union = areas[index] + areas[index + 1 :] - common
        overlaps = common > most * np.maximum(union, np.finfo(np.float64).tiny)
        is_left[index + 1 :] &= ~(overlaps & (classes[index + 1 :] == classes[index]))
    return kept


def read(fields: Fields, sources: Sources) -> OutputStep:
    """Read a step of this kind."""
    return BoxesStep(
        where=fields.where,
        layout=read_layout(fields, sources, fields.word("layout", tuple(LAYOUTS))),
        labels=read_labels(fields, sources),
        unit=fields.word("unit", (CANVAS, RELATIVE, SOURCE), CANVAS),
        threshold=fields.number("threshold", 0.0, 1e30, 0.25),
        iou=fields.number("iou", 0.0, 1.0, 0.45),
        most=fields.integer("most", 1, BOXES_MAX, _COUNT),
    )
