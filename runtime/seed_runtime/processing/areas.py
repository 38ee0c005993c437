"""Areas of a mask: pixels that hang together, and the smallest rectangles around them.

Everything works on runs, pixels side by side in a row: their number bounds the work, whatever a mask looks like.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from seed_runtime.backends import Array


@dataclass(frozen=True)
class Runs:
    """Pixels of a mask that are side by side, row by row from left to right."""

    rows: Array
    first: Array
    """Column of the first pixel."""
    end: Array
    """Column behind the last one."""

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Rectangle:
    """A rectangle at any angle."""

    center: Array
    """x and y."""
    axis: Array
    """Direction of its width, of length 1."""
    size: tuple[float, float]
    """Width and height."""

    def grown(self, by: float) -> Rectangle:
        """Return it with each side moved outwards."""
        return Rectangle(self.center, self.axis, (self.size[0] + 2 * by, self.size[1] + 2 * by))

    def corners(self) -> Array:
        """Return the corners `(4, 2)`, clockwise from the upper left one of the picture as people hold it."""
        across = np.array([-self.axis[1], self.axis[0]])
        half = np.array([self.axis * self.size[0] / 2, across * self.size[1] / 2])
        signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
        found = self.center + signs @ half
        # An axis lies within 45 degrees of the rows (see `smallest_rectangle`), so the first corner is the upper left.
        return np.asarray(found)


def runs_of(mask: Array) -> Runs:
    """Return the runs of a mask `(height, width)`."""
    height, width = mask.shape
    padded = np.zeros((height, width + 2), np.int8)
    padded[:, 1:-1] = mask
    steps = np.diff(padded, axis=1)
    rows, first = np.nonzero(steps == 1)
    return Runs(rows, first, np.nonzero(steps == -1)[1])


def joined(runs: Runs) -> Array:
    """Return a number for each run, the same for all that touch, also at their corners; numbers count from 0.

    Source: S. Liu, R. E. Tarjan, "Simple Concurrent Labeling Algorithms for Connected Components" (2019): hooking to
    the smallest neighbor with full shortcuts takes O(log^2 n) rounds.
    """
    below, above = _touching(runs)
    labels = np.arange(len(runs))
    while True:
        one, other = labels[below], labels[above]
        differ = one != other
        if not differ.any():
            return np.unique(labels, return_inverse=True)[1].reshape(-1)
        one, other = one[differ], other[differ]
        np.minimum.at(labels, np.maximum(one, other), np.minimum(one, other))
        while True:
            further = labels[labels]
            if (further == labels).all():
                break
            labels = further


def _touching(runs: Runs) -> tuple[Array, Array]:
    """Return pairs of runs that touch, the one in the lower row first."""
    # Runs are sorted by (row, column). Those of the row above that touch a run lie side by side: their end is at least
    # its first column, and their first column at most its end.
    width = int(runs.end.max(initial=0)) + 2
    above = (runs.rows - 1) * width
    low = np.searchsorted(runs.rows * width + runs.end, above + runs.first, "left")
    high = np.searchsorted(runs.rows * width + runs.first, above + runs.end, "right")
    counts = np.maximum(high - low, 0)
    below = np.repeat(np.arange(len(runs)), counts)
    offsets = np.arange(len(below)) - np.repeat(np.cumsum(counts) - counts, counts)
    return below, low[below] + offsets


def hull(points: Array) -> Array:
    """Return the corners of the convex hull of points `(n, 2)`, which are sorted by y and then by x.

    Source: A. M. Andrew, "Another Efficient Algorithm for Convex Hulls in Two Dimensions" (1979).
    """

    def chain(values: list[list[float]]) -> list[list[float]]:
        kept: list[list[float]] = []
        for x, y in values:
            while len(kept) > 1:
                (ax, ay), (bx, by) = kept[-2:]
                if (bx - ax) * (y - ay) > (by - ay) * (x - ax):
                    break
                kept.pop()
            kept.append([x, y])
        return kept[:-1]

    values = points.tolist()
    return np.array(chain(values) + chain(values[::-1]) or values[:1], np.float64)


def smallest_rectangle(points: Array) -> Rectangle:
    """Return the rectangle of the smallest area around points: a side of it lies on a side of their hull.

    Source: H. Freeman, R. Shapira, "Determining the Minimum-Area Encasing Rectangle for an Arbitrary Closed Curve"
    (1975).
    """
    corners = hull(points)
    sides = np.roll(corners, -1, axis=0) - corners
    lengths = np.hypot(sides[:, 0], sides[:, 1])
    axes = np.divide(sides, lengths[:, None], out=np.tile([1.0, 0.0], (len(sides), 1)), where=lengths[:, None] > 0)
    # Turned by quarters until each lies within 45 degrees of the rows; a rectangle stays the same.
    steep = np.abs(axes[:, 1]) > np.abs(axes[:, 0])
    axes[steep] = np.stack([axes[steep, 1], -axes[steep, 0]], axis=1)
    axes[axes[:, 0] < 0] *= -1
    along = axes @ corners.T
    across = np.stack([-axes[:, 1], axes[:, 0]], axis=1) @ corners.T
    spans = [(each.min(axis=1), each.max(axis=1)) for each in (along, across)]
    best = int(np.argmin((spans[0][1] - spans[0][0]) * (spans[1][1] - spans[1][0])))
    (left, right), (top, bottom) = [(float(low[best]), float(high[best])) for low, high in spans]
    axis = axes[best]
    middle = (left + right) / 2 * axis + (top + bottom) / 2 * np.array([-axis[1], axis[0]])
    return Rectangle(middle, axis, (right - left, bottom - top))
