"""The disk of the emulated machine loses what wasn't flushed, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop.support.disk import BLOCK, Disk


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base"
    path.write_bytes(bytes(range(256)) * (8 * BLOCK // 256))
    return path


def test_what_was_written_is_read_across_blocks(base: Path, tmp_path: Path) -> None:
    disk, expected = Disk(base, tmp_path / "state"), bytearray(base.read_bytes())
    for offset, size in ((0, BLOCK), (BLOCK - 3, 7), (2 * BLOCK + 512, 3 * BLOCK), (8 * BLOCK - 1, 1)):
        expected[offset : offset + size] = b"w" * size
        disk.write(offset, b"w" * size)
        assert disk.read(0, disk.size) == expected
        disk.flush()
        assert disk.read(0, disk.size) == expected


def test_after_a_cut_what_was_flushed_is_there_and_nothing_else(base: Path, tmp_path: Path) -> None:
    disk = Disk(base, tmp_path / "state")
    disk.write(0, b"kept")
    disk.flush()
    disk.write(BLOCK, b"lost")
    disk.write(2, b"lost")
    after = Disk(base, tmp_path / "state")
    assert after.read(0, 6) == b"kept" + base.read_bytes()[4:6]
    assert after.read(BLOCK, 4) == base.read_bytes()[:4]


def test_a_torn_disk_has_some_of_the_blocks_that_were_not_flushed(base: Path, tmp_path: Path) -> None:
    disk = Disk(base, tmp_path / "state")
    for block in range(8):
        disk.write(block * BLOCK, b"torn")
    disk.tear(rng_seed=1)
    after = Disk(base, tmp_path / "state")
    assert 0 < sum(after.read(block * BLOCK, 4) == b"torn" for block in range(8)) < 8


def test_the_base_is_never_written_to(base: Path, tmp_path: Path) -> None:
    before = base.read_bytes()
    disk = Disk(base, tmp_path / "state")
    disk.write(0, b"w" * disk.size)
    disk.flush()
    assert base.read_bytes() == before
