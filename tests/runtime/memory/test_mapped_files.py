"""Pages of mapped files that are taken off the process."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import numpy as np
import pytest

from seed_runtime.memory.mapped_files import release_pages

SIZE = 1 << 20
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows what a process has mapped")


def resident(path: Path) -> list[int]:
    """Return the resident bytes of each mapping of a file."""
    found, is_ours = [], False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, *rest = line.split()
        if not first.endswith(":"):
            is_ours = rest[-1] == str(path)
        elif first == "Rss:" and is_ours:
            found.append(1024 * int(rest[0]))
    return found


@pytest.mark.parametrize("mode", ["r", "c"])
def test_pages_of_a_mapped_file_are_let_go_and_come_back_when_they_are_read(tmp_path: Path, mode: str) -> None:
    path = (tmp_path / "model.weights").resolve()
    np.arange(SIZE // 4, dtype=np.int32).tofile(path)
    held = np.memmap(path, np.int32, mode)  # type: ignore[call-overload]
    whole = int(held.sum(dtype=np.int64))
    assert resident(path) == [SIZE]
    assert release_pages(tmp_path) == SIZE
    assert resident(path) == [0]
    assert int(held.sum(dtype=np.int64)) == whole


def test_pages_that_the_process_wrote_are_not_let_go(tmp_path: Path) -> None:
    path = tmp_path / "model.weights"
    path.write_bytes(bytes(SIZE))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as held:
        held[5] = 7
        assert release_pages(tmp_path) == 0
        assert held[5] == 7


def test_files_of_other_folders_keep_their_pages(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    path = (tmp_path / "model.weights").resolve()
    path.write_bytes(bytes(SIZE))
    held = np.memmap(path, np.uint8, "r")
    assert not held.sum()
    assert release_pages(tmp_path / "model") == 0
    assert resident(path) == [SIZE]
