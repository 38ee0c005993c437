"""Memory control groups, in which the kernel kills a process that takes more than a plan says."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

_VERSIONS = (
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
    (Path("/sys/fs/cgroup"), "memory.max"),
)
"""Where groups are made, and the file of their limit, by the version of cgroups."""


@dataclass(frozen=True)
class MemoryCgroup:
    """A control group without processes; a process that writes its id into `processes` enters it."""

    processes: Path
    _limit: Path

    def limit(self, size: int) -> None:
        """Set how much memory its processes may take together [B]; swap is left out where there is any."""
        with contextlib.suppress(OSError):
            self._limit.with_name("memory.swap.max").write_text("0")
        self._limit.write_text(str(size))


@contextlib.contextmanager
def memory_cgroup() -> Iterator[MemoryCgroup]:
    """Make a control group and remove it in the end. Skips the test where none can be made."""
    for root, limit in _VERSIONS:
        folder = root / f"seed-test-{os.getpid()}"
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            if (folder / limit).exists():
                yield MemoryCgroup(folder / "cgroup.procs", folder / limit)
                return
        finally:
            _remove(folder)
    pytest.skip("no memory cgroup can be made here (needs root and /sys/fs/cgroup writable)")


def _remove(folder: Path) -> None:
    """Remove a group, in which some kernels keep a process for a moment after it was waited for."""
    until = time.monotonic() + 10
    while True:
        try:
            return folder.rmdir()
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > until:
                raise
            time.sleep(0.01)
