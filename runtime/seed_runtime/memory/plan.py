"""Memory plans: what the process will need, decided before anything is allocated for it.

All figures are peaks of the whole process as the kernel counts them (VmHWM): Python, NumPy, the backend's
library, weights mapped from a file, and everything allocated. Mapped weights could be taken back by the
kernel, but they count while they are resident, and what was taken back is read again at the card's speed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from seed_runtime.backends import Backend, usable_cores
from seed_runtime.errors import MemoryBudgetError, UnsupportedError, UsageError
from seed_runtime.memory.footprint import Footprint

SLACK = 1 << 20
"""How much more a plan asks for than it insists on: between two runs of the same command the size of
Python itself differs by some 0.2 MB, and a limit set to the plan's own figure must pass the second time."""

THREADS_MEASURED = 2
"""Threads that footprints are measured with."""
THREAD_BYTES = 1 << 19
"""For each thread beyond: its stack and its heap. From 2 to 8 threads, sessions grew by 0.05 to 0.2 MB each."""

_UNITS = {"": 1, "B": 1} | {
    unit: size
    for power, letter in enumerate("KMG", start=1)
    for unit, size in ((f"{letter}B", 1000**power), (f"{letter}IB", 1024**power))
}


@dataclass(frozen=True)
class Usage:
    """Memory of this process, now and at its highest [B]."""

    resident: int
    peak: int


@dataclass(frozen=True)
class Plan:
    """What was planned under `limit` [B].

    `needed_bytes` is the peak that the process will stay below: as --max-memory it passes the same plan.
    None where it is not known, which only a plan without a limit may say.
    """

    needed_bytes: int | None
    limit: int | None


@dataclass(frozen=True)
class SessionPlan(Plan):
    """How a session is to be opened, and which inputs it may then be given."""

    mode: str
    threads: int
    footprint: Footprint | None
    base: int
    """What the process will have with the library imported and no session open [B]."""

    def admit(self, dims: Mapping[str, int]) -> None:
        """Check an input of other sizes than the plan's, before it runs in the open session.

        MemoryBudgetError where it doesn't fit into the limit, InputError where it is beyond what was
        measured.
        """
        if self.limit is None or self.footprint is None:
            return
        needed = self.base + self.footprint.predict(self.mode, dims)
        if needed > self.limit:
            raise MemoryBudgetError("this input", needed + SLACK, self.limit)


def parse_size(text: str | int) -> int:
    """Bytes of "64MB", "64 MiB", "1.5GiB" or "65536". UsageError for anything else."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)\s*([A-Za-z]*)", str(text).strip())
    unit = _UNITS.get(match[2].upper()) if match else None
    size = int(float(match[1]) * unit) if match and unit else 0
    if size < 1:
        raise UsageError(f"{text!r} is not a size; write it like 64MB (millions of bytes) or 64MiB")
    return size


def baseline() -> Usage:
    """What the process has now, before anything that is being planned."""
    status = _status()
    if status is not None:
        return status
    peak = _rusage_peak()
    return Usage(peak, peak)


def peak_rss() -> int:
    """Highest resident size of this process so far [B]. Worker processes are not in it."""
    return baseline().peak


def reset_peak() -> bool:
    """Let the kernel count the peak from now on; False where it can't (only Linux can)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def plan_session(
    footprint: Footprint | None,
    dims: Mapping[str, int],
    limit: int | None,
    *,
    backend: Backend,
    weights_size: int,
    threads: int | None = None,
    held: int = 0,
    usage: Usage | None = None,
) -> SessionPlan:
    """Choose the fastest of the backend's modes that fits into `limit`. Nothing is imported or allocated.

    Args:
        footprint: what the seed holds, None for nothing.
        dims: sizes of the free dimensions (`footprint.dims(feeds)`), the largest that will be run.
        limit: --max-memory, None for none [B].
        backend: what will run the model.
        weights_size: of the assembled weights file [B].
        threads: None for as many as there are cores.
        held: what the process will hold beyond today by the time the session opens [B].
        usage: `baseline()`, taken by the caller or here.

    Raises MemoryBudgetError with the least that would do, InputError for an input beyond what was measured,
    UnsupportedError where the seed holds no measurement: a limit could then not be kept.
    """
    usage = usage or baseline()
    count = threads if threads is not None else usable_cores()
    base = usage.resident + held + backend.import_bytes() + max(0, count - THREADS_MEASURED) * THREAD_BYTES
    measured = {entry.name for entry in footprint.modes} if footprint else set()
    modes = [mode for mode in backend.modes if mode in measured]
    if footprint is None or not modes:
        return _unmeasured_plan(base, limit, backend, weights_size, count)
    if limit is None and not footprint.covers(dims):
        return SessionPlan(None, None, backend.modes[0], count, footprint, base)
    needs = {mode: max(usage.peak, base + footprint.predict(mode, dims)) for mode in modes}
    for mode, needed in needs.items():
        if limit is None or needed <= limit:
            return SessionPlan(needed + SLACK, limit, mode, count, footprint, base)
    raise MemoryBudgetError("the session", min(needs.values()) + SLACK, limit or 0)


def _unmeasured_plan(base: int, limit: int | None, backend: Backend, weights_size: int, threads: int) -> SessionPlan:
    if limit is None:
        return SessionPlan(None, None, backend.modes[0], threads, None, base)
    # Whatever the activations are, the weights are resident once.
    if base + weights_size > limit:
        raise MemoryBudgetError("the session", base + weights_size + SLACK, limit)
    raise UnsupportedError(
        "this seed holds no memory measurements, so --max-memory can't be kept for its session; "
        "run it without --max-memory, or make it again with seed-export on Linux"
    )


def _status() -> Usage | None:
    """VmRSS and VmHWM. Not ru_maxrss, which a child inherits from the process that started it."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return None
    rows = re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB$", text, re.MULTILINE)
    found = {key: int(size) << 10 for key, size in rows}
    if len(found) < 2:
        return None
    return Usage(found["VmRSS"], max(found["VmHWM"], found["VmRSS"]))


def _rusage_peak() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10
