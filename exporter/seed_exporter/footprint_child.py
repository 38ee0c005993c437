"""Measures one mode of one backend, as the main file of a process that imports the runtime alone.

Arguments: backend, mode, threads, folder, then one .npz of feeds per point, the smallest point first.
Prints one JSON object: `opening`, `mapped` and a `peak` or an `error` per point [B].
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from seed_runtime import backends, budget
from seed_runtime.backends import Feeds, Runner
from seed_runtime.errors import SeedError

# No further point is begun after so long, except the first three: a large model's range is smaller then.
TIME_S = 10
POINTS_LEAST = 3


def main(arguments: list[str]) -> int:
    name, mode, threads, folder, *files = arguments
    backend = backends.get(name)
    # NumPy reads .npz with modules that a plan's process has as well; they must not count as the session's.
    _load(files[0])
    backend.load()
    if not budget.reset_peak():
        print(json.dumps({"error": "this kernel can't restart the count of the peak"}))
        return 0
    base = budget.baseline().resident
    runner = backend.open(Path(folder), mode, int(threads))
    opening = budget.peak_rss() - base
    mapped = _mapped(Path(folder))
    points: list[dict[str, Any]] = []
    end = time.monotonic() + TIME_S
    for file in files:
        late = len(points) >= POINTS_LEAST and time.monotonic() > end
        points.append({"error": "late"} if late else _measure_point(runner, file, base, Path(folder)))
    good = [number for number, point in enumerate(points) if "peak" in point]
    if len(good) > 1 and time.monotonic() < end:
        # Back to the smallest and up again: what a session grows by when sizes change is the largest's.
        runner.run(_load(files[good[0]]))
        again = _measure_point(runner, files[good[-1]], base, Path(folder))
        points[good[-1]] = max(points[good[-1]], again, key=lambda point: point.get("peak", 0))
    print(json.dumps({"opening": opening, "mapped": mapped["size"], "points": points}))
    return 0


def _measure_point(runner: Runner, file: str, base: int, folder: Path) -> dict[str, Any]:
    """Peak of runs on these feeds above `base`, without the weights that are mapped from the folder."""
    feeds = _load(file)
    try:
        # The first run touches the mapped pages, so that they are the same all through the counted one.
        runner.run(feeds)
        budget.reset_peak()
        runner.run(feeds)
    except SeedError as error:
        return {"error": str(error)}
    return {"peak": max(0, budget.peak_rss() - base - _mapped(folder)["resident"])}


def _load(file: str) -> Feeds:
    with np.load(file) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _mapped(folder: Path) -> dict[str, int]:
    """Bytes mapped from files in the folder, and how many of them are resident."""
    found = {"size": 0, "resident": 0}
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if head := re.match(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+ *(.*)", line):
            inside = head[1].startswith(f"{folder.resolve()}/")
        elif inside and (field := re.match(r"(Size|Rss): +(\d+) kB", line)):
            found["size" if field[1] == "Size" else "resident"] += int(field[2]) << 10
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
