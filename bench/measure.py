"""Share between benchmarks: goals, the machine's class, one core, paired rounds, progress."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

Figures = dict[str, Any]


@dataclass(frozen=True)
class Goal:
    """A figure beside what it must reach (issue 2, "What it must reach").

    `text` names the figure, `value` is what was measured, `limit` the goal: at most it, or at least it with `least`.
    """

    text: str
    value: float
    limit: float
    unit: str
    least: bool = False

    @property
    def met(self) -> bool:
        return self.value >= self.limit if self.least else self.value <= self.limit

    def as_json(self) -> Figures:
        sign = ">=" if self.least else "<="
        return {
            "text": self.text,
            "value": rounded(self.value),
            "goal": f"{sign} {self.limit:g}",
            "unit": self.unit,
            "met": self.met,
        }


@dataclass(frozen=True)
class Spent:
    """Seconds of one call: of the processor, kernel work included, and on the clock."""

    cpu: float
    wall: float


def spent(call: Callable[[], object]) -> Spent:
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    return Spent(time.process_time() - cpu, time.perf_counter() - wall)


def rounds(contestants: Mapping[str, Callable[[], Spent]], count: int) -> dict[str, list[Spent]]:
    """Call each contestant `count` times, in turn, so that a disturbance of the machine affects all of them."""
    times: dict[str, list[Spent]] = {name: [] for name in contestants}
    for number in range(count):
        for name, call in contestants.items():
            note(f"round {number + 1} of {count}: {name}")
            times[name].append(call())
    return times


def median(values: list[float]) -> float:
    return float(statistics.median(values))


def median_ratio(slower: list[Spent], faster: list[Spent], clock: str = "cpu") -> float:
    """Compute the median ratio of seconds, pair by pair: both contestants of a round run under the same conditions."""
    return median([getattr(a, clock) / getattr(b, clock) for a, b in zip(slower, faster, strict=True)])


def one_core() -> None:
    """Keep this process on one core from now on, and the libraries loaded from now on to one thread."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def machine() -> Figures:
    """Return the class of this machine and the relevant versions, without anything that identifies the machine."""
    versions = {}
    for package in ("numpy", "onnxruntime", "onnx", "nncodec", "zipnn", "zstandard", "MNN", "torch"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **versions,
    }


def load() -> float:
    """Return the average number of running or waiting processes over the last minute; up to 1 is quiet for one core."""
    return round(os.getloadavg()[0], 2)


def note(text: str) -> None:
    """Print progress on one line of the terminal, which the next call overwrites."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def say(text: str) -> None:
    """Print a line that isn't overwritten."""
    note("")
    print(text, file=sys.stderr, flush=True)


def rounded(value: Any) -> Any:
    """Round to four digits, which is more than the precision of a timing."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


@contextlib.contextmanager
def scratch(memory: bool = False) -> Iterator[Path]:
    """Make a folder that is removed at the end; with `memory` in RAM where possible, so that no disk is measured."""
    import tempfile

    place = "/dev/shm" if memory and os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="seed-bench-", dir=place) as folder:
        yield Path(folder)


def _processor() -> str:
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()
