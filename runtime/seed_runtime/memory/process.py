"""Memory of this process as the kernel counts it.

Figures are of the whole process: Python, NumPy, the library of the backend, mapped files, and all that was allocated.
"""

from __future__ import annotations

import ctypes
import re
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Usage:
    """Memory of this process, now and at its highest [B]."""

    resident: int
    peak: int


def baseline() -> Usage:
    """Return what the process has now, before anything that is being planned."""
    status = _status()
    if status is not None:
        return status
    peak = _rusage_peak()
    return Usage(peak, peak)


def peak_rss() -> int:
    """Return the highest resident size of this process so far [B]. Child processes are not in it."""
    return baseline().peak


def reset_peak() -> bool:
    """Make the kernel count the peak from now on. Return False where it can't: only Linux can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def release_heap() -> bool:
    """Return freed memory of the heap to the system. Return False where the C library can't: only glibc can.

    What a tokenizer of 49,152 tokens leaves of its JSON is 26 MB of the process's memory otherwise.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return False
    trim(0)
    return True


def _status() -> Usage | None:
    """Read VmRSS and VmHWM. Not ru_maxrss, which a child inherits from the process that started it."""
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
