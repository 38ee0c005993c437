"""Step "regions": rectangles at any angle around what a map of probabilities marks, such as lines of text.

Source: M. Liao, Z. Wan, C. Yao, K. Chen, X. Bai, "Real-time Scene Text Detection with Differentiable Binarization"
(2020), 3.4, and the post-processing of PP-OCR, whose rectangles are those of the smallest area.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from seed_runtime.backends import Array
from seed_runtime.errors import FormatError, OutputError, OutputLimitError
from seed_runtime.limits import BOXES_MAX, PICTURE_INPUT_MAX, PICTURE_SIDE_MAX, RUNS_MAX
from seed_runtime.processing.answers import Answer, Facts, Mark, Placement, rounded
from seed_runtime.processing.areas import Rectangle, Runs, joined, runs_of, smallest_rectangle
from seed_runtime.processing.fields import Fields
from seed_runtime.processing.sources import Sources
from seed_runtime.processing.steps import Outputs, OutputStep

_ROUNDING: Final = 1e-6
"""Distance by which a pixel on a side may seem to lie outside [pixel]."""


@dataclass(frozen=True)
class Region:
    """One rectangle."""

    score: float
    """Mean probability within it, before it was grown."""
    corners: tuple[tuple[float, float], ...]
    """Clockwise from the upper left one, in the picture as it was given [pixel]."""


@dataclass(frozen=True)
class RegionsAnswer(Answer):
    """Regions of one picture, from top to bottom."""

    regions: tuple[Region, ...]
    kind = "regions"

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "regions": [
                {"score": rounded(each.score), "corners": [[round(side, 2) for side in pair] for pair in each.corners]}
                for each in self.regions
            ]
        }

    def lines(self) -> Iterator[str]:
        """Yield a line for each region: its score, and x and y of its corners."""
        if not self.regions:
            yield "nothing is found"
        for each in self.regions:
            yield f"{each.score:7.4f}  {'  '.join(f'{x:.0f} {y:.0f}' for x, y in each.corners)}"

    def marks(self) -> Iterator[Mark]:
        """Yield the rectangles with their scores."""
        for each in self.regions:
            yield Mark(each.corners, f"{each.score:.2f}")


@dataclass(frozen=True)
class RegionsStep:
    """Makes regions of a map of probabilities."""

    where: str
    reads: Mapping[str, str]
    threshold: float
    """Probability above which a pixel is marked."""
    dilate: bool
    """Whether a marked pixel marks the next one to the right and below as well."""
    score: float
    """Least mean probability of a region."""
    least: float
    """Shortest side of a region before it is grown [pixel of the map]."""
    grow: float
    """Share of area over perimeter by which each side moves outwards: models mark the core of a line alone."""
    most: int
    kind: str = "regions"

    def answer(self, calls: Sequence[Outputs], facts: Facts) -> RegionsAnswer:
        """Find regions (see `OutputStep`)."""
        place = facts.placement
        if place is None:
            raise FormatError(self.where, "regions are of pictures, and no step before the model reads any")
        values = self._map(calls[-1][self.reads["map"]])
        found = self.found(values)[: facts.top or self.most]
        regions = [Region(score, _in_picture(each.corners(), values.shape, place)) for score, each in found]
        return RegionsAnswer(tuple(sorted(regions, key=lambda each: (each.corners[0][1], each.corners[0][0]))))

    def _map(self, array: Array) -> Array:
        """Return an output as rows of probabilities; NaN is 0."""
        given = f"{array.dtype}{list(array.shape)}"
        if array.dtype.kind != "f" or array.ndim < 2 or array.size == 0 or array.size != np.prod(array.shape[-2:]):
            raise OutputError(self.where, f"one map of probabilities is needed; the model gave {given}")
        rows: Array = array.reshape(array.shape[-2:])
        if max(rows.shape) > PICTURE_SIDE_MAX or rows.size > PICTURE_INPUT_MAX:
            raise OutputLimitError(f"{self.where}: pixels of the map", rows.size, PICTURE_INPUT_MAX)
        return np.clip(np.nan_to_num(rows.astype(np.float32), nan=0.0), 0.0, 1.0)

    def found(self, values: Array) -> list[tuple[float, Rectangle]]:
        """Return scores and rectangles of a map `(height, width)`, the highest score first."""
        mask = values > self.threshold
        if self.dilate:
            mask[:, 1:] |= mask[:, :-1].copy()
            mask[1:] |= mask[:-1].copy()
        runs = runs_of(mask)
        if len(runs) > RUNS_MAX:
            raise OutputLimitError(f"{self.where}: runs of marked pixels", len(runs), RUNS_MAX)
        sums = np.zeros((values.shape[0], values.shape[1] + 1))
        np.cumsum(values, axis=1, dtype=np.float64, out=sums[:, 1:])
        found = []
        for points in _largest(runs):
            core = smallest_rectangle(points)
            if min(core.size) < self.least:
                continue
            score = _mean(sums, core)
            if score < self.score:
                continue
            width, height = core.size
            found.append((score, core.grown(self.grow * width * height / max(2 * (width + height), 1.0))))
        return sorted(found, key=lambda each: -each[0])


def _largest(runs: Runs) -> Iterator[Array]:
    """Yield the outermost pixels of each row, x and y, of each area; of the BOXES_MAX with the most pixels."""
    labels = joined(runs)
    sizes = np.bincount(labels, runs.end - runs.first)
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], np.arange(len(sizes) + 1))
    for label in np.argsort(-sizes, kind="stable")[:BOXES_MAX]:
        own = order[starts[label] : starts[label + 1]]
        rows = runs.rows[own]
        is_first = np.r_[True, rows[1:] != rows[:-1]]
        is_last = np.r_[is_first[1:], True]
        ends = np.stack([runs.first[own][is_first], runs.end[own][is_last] - 1], axis=1)
        yield np.stack([ends.ravel(), np.repeat(rows[is_first], 2)], axis=1)


def _mean(sums: Array, core: Rectangle) -> float:
    """Return the mean of a map within a rectangle, by the sums of its rows from their beginnings."""
    corners = core.corners()
    height, width = sums.shape[0], sums.shape[1] - 1
    rows = np.arange(
        max(0, int(np.ceil(corners[:, 1].min() - 0.5))), min(height, int(corners[:, 1].max() + 0.5) + 1)
    )  # fmt: skip
    # Of each row, the part between both pairs of sides: |(x, y) - center| along an axis is at most half the size.
    low, high = np.full(len(rows), -np.inf), np.full(len(rows), np.inf)
    for (x, y), side in ((core.axis, core.size[0]), ((-core.axis[1], core.axis[0]), core.size[1])):
        # A little more, so that pixels on a side count whatever the rounding.
        middle, half = (rows - core.center[1]) * y, side / 2 + _ROUNDING
        if abs(x) < 1e-9:
            high[np.abs(middle) > half] = -np.inf
            continue
        ends = np.sort(np.stack([(-half - middle) / x, (half - middle) / x]), axis=0) + core.center[0]
        low, high = np.maximum(low, ends[0]), np.minimum(high, ends[1])
    first = np.clip(np.ceil(low), 0, width).astype(np.int64)
    end = np.clip(np.floor(high) + 1, first, width).astype(np.int64)
    count = int((end - first).sum())
    return float((sums[rows, end] - sums[rows, first]).sum() / count) if count else 0.0


def _in_picture(corners: Array, shape: tuple[int, ...], place: Placement) -> tuple[tuple[float, float], ...]:
    """Return corners in pixels of the picture, none outside of it."""
    found = corners * np.array([place.canvas_width / shape[1], place.canvas_height / shape[0]])
    found = (found - np.array([place.left, place.top])) / np.array([place.scale_x, place.scale_y])
    found = np.clip(found, 0.0, np.array([place.width, place.height], np.float64))
    return tuple((float(x), float(y)) for x, y in found)


def read(fields: Fields, sources: Sources) -> OutputStep:
    """Read a step of this kind."""
    return RegionsStep(
        where=fields.where,
        reads=fields.names("reads", ["map"]),
        threshold=fields.number("threshold", 0.0, 1.0, 0.3),
        dilate=fields.flag("dilate", False),
        score=fields.number("score", 0.0, 1.0, 0.5),
        least=fields.number("least", 0.0, PICTURE_SIDE_MAX, 3.0),
        grow=fields.number("grow", 0.0, 16.0, 1.6),
        most=fields.integer("most", 1, BOXES_MAX, 1000),
    )
