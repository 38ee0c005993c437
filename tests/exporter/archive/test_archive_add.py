"""`seed-export archive DIR add` and `list`: nothing is left out, cut down or mixed up without a word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.exporter.support.archives import Run, filled, seed_of
from tests.exporter.support.command import Ran, refused

pytestmark = pytest.mark.usefixtures("without_measured_memory")


def test_a_training_checkpoint_is_not_cut_down_to_its_model(folder: Path, tmp_path: Path, capfd: Any) -> None:
    torch = pytest.importorskip("torch", exc_type=ImportError)
    path, alone = tmp_path / "ck.pt", tmp_path / "alone.pt"
    weights = {"w": torch.ones(20, 20)}
    torch.save({"model": weights, "optimizer": {"state": {}}, "epoch": 3}, path)
    torch.save({"state_dict": weights}, alone)
    text = refused(capfd, 12, "archive", folder, "add", path)
    assert "optimizer, epoch beside model" in text
    assert "--tensors-of model" in text
    # An addition that fails makes no folder.
    assert not folder.exists()
    assert "under net" in refused(capfd, 12, "archive", folder, "add", path, "--tensors-of", "net")
    assert Ran(capfd, "archive", folder, "add", path, "--tensors-of", "model").code == 0
    assert Ran(capfd, "archive", folder, "add", alone).code == 0
    for name in ("ck", "alone"):
        Ran(capfd, "archive", folder, "restore", name, "-o", tmp_path / "again.pt")
        assert torch.equal(torch.load(tmp_path / "again.pt")["w"], weights["w"])


def test_files_of_one_name_are_told_apart(folder: Path, run: Run, tmp_path: Path, capfd: Any) -> None:
    first, second = run.checkpoints(2)
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / first.name
    other.write_bytes(second.read_bytes())
    assert "both be named step-0" in refused(capfd, 2, "archive", folder, "add", first, other, "--missing")
    assert not folder.exists()
    assert Ran(capfd, "archive", folder, "add", first, "--jobs", "1").code == 0
    ran = Ran(capfd, "archive", folder, "add", first, "--missing")
    assert (ran.code, ran.out) == (0, "step-0  skipped, it is in the archive\n")
    assert json.loads(Ran(capfd, "archive", folder, "add", first, "--missing", "--json").out)["skipped"] == ["step-0"]
    assert "with other tensors" in refused(capfd, 2, "archive", folder, "add", other, "--missing")
    assert Ran(capfd, "archive", folder, "add", other, "--missing", "--no-compare").code == 0


def test_an_addition_that_fails_later_says_what_was_added(folder: Path, run: Run, tmp_path: Path, capfd: Any) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_text("nothing")
    ran = Ran(capfd, "archive", folder, "add", run.checkpoints(1)[0], bad, "--json", "--jobs", "1")
    assert ran.code == 12
    found = json.loads(ran.out)
    assert [row["name"] for row in found["added"]] == ["step-0"]
    assert "is no ONNX model" in found["error"]
    assert "is no ONNX model" in ran.err


def test_tensors_alone_are_not_quantized(folder: Path, tmp_path: Path, capfd: Any) -> None:
    path = tmp_path / "s0.safetensors"
    path.write_bytes(b"")
    assert "kept bit for bit" in refused(capfd, 2, "archive", folder, "add", path, "--target", "6x")
    assert not folder.exists()


def test_a_list_names_damaged_files(folder: Path, run: Run, capfd: Any) -> None:
    filled(folder, run, 2)
    path = seed_of(folder, "step-1")
    path.write_bytes(path.read_bytes()[:100])
    assert f"{path.name} is damaged" in Ran(capfd, "archive", folder, "list").out
    assert json.loads(Ran(capfd, "archive", folder, "list", "--json").out)["damaged"] == [path.name]
