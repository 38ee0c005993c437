"""Memory of this process, as the kernel counts it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from seed_runtime.memory import process

MIB = 1 << 20
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak in /proc")


@linux
def test_the_peak_is_this_process_own() -> None:
    usage = process.baseline()
    assert 5 * MIB < usage.resident <= usage.peak
    assert process.peak_rss() >= usage.peak


@linux
def test_the_peak_can_be_reset() -> None:
    # In a process of its own: the test runner's heap may take 64 MiB without growing.
    program = (
        "from seed_runtime.memory import process\n"
        "block = bytearray(b'x') * (64 << 20); high = process.peak_rss(); del block\n"
        "assert process.reset_peak() and process.peak_rss() < high - (60 << 20)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_another_c_library_keeps_its_freed_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: object) -> object:
        raise OSError("no such library")

    assert process.release_heap() in (True, False)
    monkeypatch.setattr("ctypes.CDLL", none)
    assert not process.release_heap()
