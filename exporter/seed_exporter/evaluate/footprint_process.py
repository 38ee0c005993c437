"""Measure one session on one input, as the main file of a process that imports the runtime alone.

Arguments: backend, mode, threads, folder, .npz file with the feeds.
Prints one JSON object: `opening`, `mapped` and `peak` [B], or `error`.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import sys
import time
from pathlib import Path
from typing import Final

import numpy as np

from seed_runtime import backends
from seed_runtime.errors import SeedError
from seed_runtime.memory import process

LONG_S: Final = 2.0
"""Time that a run may take for a second one to follow [s]."""
SECOND_DIVISOR: Final = 8
"""Part of the peak that stands in for a second run that doesn't follow.

It is what the second run took more of EfficientNet-Lite0 at 8 pictures, in mode fast; PP-OCR's two networks and Basic
Pitch took a sixteenth more at most, in any mode.
"""


def main(arguments: list[str]) -> int:
    """Measure as the arguments say, print the JSON object, and return the exit status."""
    name, mode, threads, folder, file = arguments
    try:
        print(json.dumps(_measure(name, mode, int(threads), Path(folder), file)))
    except SeedError as error:
        print(json.dumps({"error": str(error)}))
    return 0


def _measure(name: str, mode: str, threads: int, folder: Path, file: str) -> dict[str, int | str]:
    """Open the model, run it twice, and return the peaks [B]."""
    backend = backends.get(name)
    backend.load()
    # Read once now: the modules that read .npz then count for the process, and only the arrays for the session.
    with np.load(file):
        pass
    if not process.reset_peak():
        return {"error": "this kernel can't reset the peak of the resident set"}
    base = process.baseline().resident
    runner = backend.open(folder, mode, threads)
    opening = process.peak_rss() - base
    # All pages of the mapped weights are touched first: they then add the same to every peak, and can be told
    # from the rest, whatever rows of an embedding this input happens to need.
    mapped = sum(_touch(start, end) for start, end in _mappings(folder))
    with np.load(file) as arrays:
        feeds = {key: arrays[key] for key in arrays.files}
    process.reset_peak()
    begun = time.monotonic()
    runner.run(feeds)
    # The second run may need more than the first, or less: the allocator starts from what the first one left.
    is_long = time.monotonic() - begun > LONG_S
    if not is_long:
        runner.run(feeds)
    peak = max(0, process.peak_rss() - base - mapped)
    return {"opening": opening, "mapped": mapped, "peak": peak + (peak // SECOND_DIVISOR if is_long else 0)}


def _mappings(folder: Path) -> list[tuple[int, int]]:
    """Return the address ranges that are mapped from files in the folder."""
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, *rest = line.split(maxsplit=5)
        if len(rest) == 5 and rest[-1].startswith(f"{folder.resolve()}/"):
            start, end = (int(address, 16) for address in span.split("-"))
            found.append((start, end))
    return found


def _touch(start: int, end: int) -> int:
    """Read one byte of each page of an address range, and return its length [B]."""
    for address in range(start, end, mmap.PAGESIZE):
        ctypes.c_ubyte.from_address(address).value  # noqa: B018  reading is what touches
    return end - start


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
