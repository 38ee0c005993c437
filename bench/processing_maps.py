"""How long maps of a model that were made to be slow keep the steps `regions` and `notes` busy, and their memory.

`python -m bench.processing_maps` needs nothing but the package. Maps are as large as SPEC.md's limits let them be.
"""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import numpy as np

from seed_runtime.limits import NOTE_CELLS_MAX
from seed_runtime.processing import notes, regions
from seed_runtime.processing.answers import Facts, Placement
from seed_runtime.processing.fields import Fields
from seed_runtime.processing.sources import Sources

PITCHES = 88
STEP = 0.0116
"""Time from one frame to the next [s]."""


def marked() -> dict[str, np.ndarray]:
    """Return maps of areas, by what is in them."""
    dots, stripes, lines = np.zeros((1024, 1024)), np.zeros((1024, 512)), np.zeros((8192, 2048))
    dots[::2, ::2] = stripes[:, ::2] = 1
    rows = np.arange(8192)
    for first in range(0, 2048, 64):
        lines[rows, (rows // 4 + first) % 2048] = 1
    y, x = np.mgrid[:8192, :2048]
    circles = (x - 1024) ** 2 + (y % 2048 - 1024) ** 2 < 1000**2
    noise = np.random.default_rng(0).random((1024, 1024)) < 0.31
    return {"dots": dots, "stripes": stripes, "steep lines": lines, "circles": circles, "noise": noise}


def sounding() -> dict[str, tuple[np.ndarray, np.ndarray, dict[str, Any]]]:
    """Return maps of what sounds and of what begins, with fields of the step."""
    frames = NOTE_CELLS_MAX // PITCHES
    rng = np.random.default_rng(0)
    noise = rng.random((frames, PITCHES))
    every, thin, rare = np.zeros((3, frames, PITCHES))
    every[1::2], thin[::24, ::2], rare[::4000] = 1, 0.9, 0.9
    slow = {"threshold": 0.3, "gap": 11, "least": 11, "infer": False}
    return {
        "noise": (noise, noise[::-1], {}),
        "a beginning in every other frame": (np.ones_like(every), every, {}),
        "what sounds in every other frame": (every * 0.9 + 0.05, every, {}),
        "single frames": (thin, every, {}),
        "long pauses": (noise * (rng.random(noise.shape) < 0.01), every, slow),
        "long pauses, little sound": (rare, every, slow),
    }


def main() -> None:
    """Print a line for each map."""
    for name, values in marked().items():
        found = {"reads": {"map": "y"}, "least": 0, "score": 0, "most": 4096}
        step: Any = regions.read(Fields(found, name), Sources({}, dict))
        say("regions", name, step.found, values.astype(np.float32))
    for name, (values, onsets, fields) in sounding().items():
        read = {"reads": {"notes": "y", "onsets": "z"}, "threshold": 0.0, "onset_threshold": 0.0, **fields}
        step = notes.read(Fields(read, name), Sources({}, dict))
        say("notes", name, step.found, values.astype(np.float32), onsets.astype(np.float32), STEP)
    held()


def held() -> None:
    """Print what answers take beside the maps, for each value of a map."""
    y, x = np.mgrid[:1024, :1024]
    areas = ((x % 64 < 40) & (y % 16 < 8)).astype(np.float32)[None, None]
    step: Any = regions.read(Fields({"reads": {"map": "y"}}, "held"), Sources({}, dict))
    facts = Facts("held", placement=Placement(1024, 1024, 1, 1, 0, 0, 1024, 1024))
    say_held("regions", areas.size, step, {"y": areas}, facts)
    frames = 8192
    played = np.repeat(np.random.default_rng(0).random((1, frames // 64, PITCHES)) < 0.1, 64, axis=1)
    sounding = played.astype(np.float32)
    onsets = np.diff(sounding, axis=1, prepend=np.float32(0)).clip(0, 1)
    step = notes.read(Fields({"reads": {"notes": "y", "onsets": "z"}}, "held"), Sources({}, dict))
    facts = Facts("held", frame_seconds=frames * STEP, seconds=frames * STEP)
    say_held("notes", sounding.size, step, {"y": sounding, "z": onsets}, facts)


def say_held(kind: str, count: int, step: Any, outputs: dict[str, Any], facts: Facts) -> None:
    """Print the peak of an answer for each of so many values."""
    tracemalloc.start()
    step.answer([outputs], facts)
    print(f"{kind:8} {tracemalloc.get_traced_memory()[1] / count:6.1f} bytes for each value of a map")
    tracemalloc.stop()


def say(kind: str, name: str, find: Any, *arguments: Any) -> None:
    """Print how long it takes and what is found."""
    start = time.perf_counter()
    count = len(find(*arguments))
    print(f"{kind:8} {name:34} {time.perf_counter() - start:6.1f} s  {count:,} found")


if __name__ == "__main__":
    main()
