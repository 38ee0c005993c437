"""Notes and regions beside readers that follow docs/processing.md sentence by sentence, cell by cell."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from seed_runtime.processing import notes, regions
from seed_runtime.processing.fields import Fields
from seed_runtime.processing.sources import Sources
from tests.runtime.processing.test_regions import flooded

STEP = 0.1
NOTES = {"onset_threshold": 0.5, "threshold": 0.3, "least": 0.25, "gap": 0.25, "infer": True, "follow": True}
Found = list[tuple[int, int, int, float]]


def reached(values: np.ndarray, frame: int, column: int, way: int, gap: int, threshold: float) -> int:
    """Return the last frame of what sounds from a frame on, forwards or backwards."""
    last, at, quiet = frame, frame + way, 0
    while 0 <= at < len(values) and quiet < gap:
        quiet = quiet + 1 if values[at, column] < threshold else 0
        last = at if quiet == 0 else last
        at += way
    return last


def notes_by_the_page(sounding: np.ndarray, onsets: np.ndarray, fields: dict[str, Any]) -> Found:
    frames, pitches = sounding.shape
    fields = fields | {name: float(np.float32(fields[name])) for name in ("threshold", "onset_threshold")}
    sounding, onsets = sounding.astype(np.float64), onsets.astype(np.float64)
    gap, least = (max(1, round(fields[name] / STEP)) for name in ("gap", "least"))
    onsets = onsets.copy()
    if fields["infer"] and frames > 2:
        rise = np.zeros_like(sounding)
        for frame in range(2, frames):
            for column in range(pitches):
                now = sounding[frame, column]
                rise[frame, column] = max(0, min(now - sounding[frame - 1, column], now - sounding[frame - 2, column]))
        if rise.max() > 0:
            onsets = np.maximum(onsets, rise * (onsets.max() / rise.max()))
    left, found = sounding.copy(), []

    def quiet(first: int, end: int, column: int) -> None:
        left[max(0, first) : end, max(0, column - 1) : column + 2] = -1

    for frame in reversed(range(1, frames - 1)):
        for column in reversed(range(pitches)):
            value = onsets[frame, column]
            if value >= fields["onset_threshold"] and value > max(onsets[frame - 1, column], onsets[frame + 1, column]):
                end = reached(left, frame, column, 1, gap, fields["threshold"]) + 1
                if end - frame > least:
                    quiet(frame, end, column)
                    found.append((frame, end, column))
    if fields["follow"]:
        cells = [(-left[frame, column], frame, column) for frame in range(frames) for column in range(pitches)]
        for _, frame, column in sorted(cells):
            if left[frame, column] > fields["threshold"]:
                end = reached(left, frame, column, 1, gap, fields["threshold"]) + 1
                first = reached(left, frame, column, -1, gap, fields["threshold"])
                quiet(first - gap, end + gap, column)
                if end - first > least:
                    found.append((first, end, column))
    return [(first, end, column, float(sounding[first:end, column].mean())) for first, end, column in found]


@pytest.mark.parametrize(
    "changed", [{}, {"infer": False, "threshold": 0.7}, {"follow": False}, {"gap": 0.05, "least": 0.0}]
)
def test_notes_are_those_of_the_page(changed: dict[str, Any]) -> None:
    rng = np.random.default_rng(7)
    fields = NOTES | changed
    step: Any = notes.read(
        Fields({"reads": {"notes": "n", "onsets": "o"}, "lowest": 0, **fields}, "here"), Sources({}, dict)
    )
    for density in (0.3, 0.6, 0.9):
        played = np.repeat(rng.random((20, 9)) < density, 4, axis=0)
        # Values of few digits, of which many are equal.
        sounding = (np.round(rng.random(played.shape), 1) * played).astype(np.float32)
        onsets = np.round(rng.random(played.shape), 1).astype(np.float32)
        found, expected = step.found(sounding, onsets, STEP), notes_by_the_page(sounding, onsets, fields)
        assert len(found) > 5
        assert [each[:3] for each in found] == [each[:3] for each in expected]
        assert [each[3] for each in found] == pytest.approx([each[3] for each in expected])


def area_at(points: np.ndarray, angle: float) -> float:
    axis = np.array([np.cos(angle), np.sin(angle)])
    along, across = points @ axis, points @ np.array([-axis[1], axis[0]])
    return float(np.ptp(along) * np.ptp(across))


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_regions_are_those_of_the_page(share: float) -> None:
    rng = np.random.default_rng(11)
    values = rng.random((24, 30)).astype(np.float32)
    values[rng.random(values.shape) > share] = 0
    read = {"reads": {"map": "y"}, "score": 0.0, "least": 0.0, "grow": 0.0, "most": 4096}
    step: Any = regions.read(Fields(read, "here"), Sources({}, dict))
    found = step.found(values)
    labels = flooded(values > 0.3)
    assert len(found) == labels.max() > 10
    y, x = np.mgrid[:24, :30]
    scores = []
    for score, rectangle in found:
        across, (width, height) = np.array([-rectangle.axis[1], rectangle.axis[0]]), rectangle.size
        assert abs(rectangle.axis[1]) <= rectangle.axis[0], "the first side is within 45 degrees of the rows"
        offsets = np.stack([x, y], axis=-1) - rectangle.center
        held = (np.abs(offsets @ rectangle.axis) <= width / 2 + 1e-6) & (np.abs(offsets @ across) <= height / 2 + 1e-6)
        scores.append((values[held].mean(), score))
    areas = [width * height for _, rectangle in found for width, height in [rectangle.size]]
    angles = np.linspace(0, np.pi / 2, 91)
    points = [np.argwhere(labels == label)[:, ::-1] for label in range(1, labels.max() + 1)]
    expected = sorted(min(area_at(each, angle) for angle in angles) for each in points)
    # Of angles a degree apart none may be better, and the best of them is near.
    assert np.all(np.array(sorted(areas)) <= np.array(expected) + 1e-6)
    assert sum(areas) == pytest.approx(sum(expected), rel=0.03)
    assert [each[0] for each in scores] == pytest.approx([each[1] for each in scores], abs=1e-5)
