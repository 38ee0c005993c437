"""Folders for transfers: what fits, what doesn't, and digests that tell whether it arrived."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from bench.claims import pack


def test_files_fill_as_few_folders_as_fit() -> None:
    assert pack.fill({"a": 50, "b": 30, "c": 20, "d": 60}, 100) == [["b", "d"], ["a", "c"]]
    assert pack.fill({"a": 100, "b": 100}, 100) == [["a"], ["b"]]


def test_a_file_larger_than_a_folder_and_a_folder_without_data_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a has 101 bytes, a folder 100 at most; allow more with --most"):
        pack.fill({"a": 101}, 100)
    with pytest.raises(ValueError, match="holds no data; make it with"):
        pack.fill({}, 100)


def test_packed_files_are_copies_with_their_digests(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    for name, size in (
        ("glyphs-train.npz.xz", 900),
        ("english-train-0.txt.xz", 700),
        ("sections-held.json.xz", 90),
        ("notes", 5),
    ):
        (data / name).write_bytes(bytes(size))
    assert pack.main(["--data", str(data), "--out", str(out), "--most", "1000"]) == 0
    assert sorted(path.name for path in out.rglob("*.xz")) == [
        "english-train-0.txt.xz",
        "glyphs-train.npz.xz",
        "sections-held.json.xz",
    ]
    lines = "".join((out / str(number) / f"SHA256SUMS.{number}").read_text() for number in (1, 2))
    for path in out.rglob("*.xz"):
        assert f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" in lines
    assert pack.main(["--data", str(tmp_path / "none"), "--out", str(out)]) == 3
