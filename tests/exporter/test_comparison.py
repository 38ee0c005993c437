"""`seed-export compare`: rows of seeds and peers, and what is said where a peer can't go on or is missing."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seed_exporter import cli, loaders
from seed_exporter.comparison import run as comparing
from seed_exporter.comparison.own import own_seeds
from seed_exporter.evaluate import footprint
from seed_exporter.evaluate.patched import PatchedModel
from seed_exporter.graph.model import Graph
from seed_exporter.peers import PEERS, Deliverable, Peer, PeerError, xz
from seed_exporter.pipeline import export
from seed_exporter.quantize.effort import Effort
from seed_exporter.quantize.trail import Trail
from seed_exporter.report import comparison as reports
from seed_exporter.report.comparison import Comparison, Row, lines
from seed_exporter.results import Options
from seed_runtime.memory.footprint import Footprint, ModeFootprint

MISSING = Peer("the missing", "no_such_package", "pip install no-such-package", xz.make)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One seed, xz and a peer that isn't installed, and no other processes that measure memory."""
    monkeypatch.setattr(footprint, "measure", lambda *_, **__: None)
    monkeypatch.setattr(comparing, "TARGETS", (4.0,))
    monkeypatch.setattr(comparing, "PEERS", {"xz": xz.PEER, MISSING.name: MISSING})


@pytest.fixture
def model(model_file: Path) -> Path:
    return model_file


@pytest.fixture
def calib(tmp_path: Path, rng: np.random.Generator) -> Path:
    path = tmp_path / "calib.npz"
    np.savez(path, x=rng.standard_normal((32, 48)).astype(np.float32))
    return path


@pytest.fixture
def compared(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[Any, str, str]]:
    def call(*arguments: str | Path) -> tuple[Any, str, str]:
        with pytest.raises(SystemExit) as stopped:
            cli.main(["compare", *map(str, arguments)])
        out, err = capfd.readouterr()
        return stopped.value.code, out, err

    return call


def with_peer(monkeypatch: pytest.MonkeyPatch, make: Any) -> None:
    monkeypatch.setattr(comparing, "PEERS", {"xz": xz.PEER, "odd": replace(xz.PEER, name="odd", make=make)})


def test_seeds_of_several_sizes_stand_beside_peers_with_their_damage(
    model: Path, calib: Path, compared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "TARGETS", (4.0, 8.0))
    code, out, _ = compared(model, "--calib", calib, "--json")
    found = json.loads(out)
    first, second, exact = found["rows"]
    assert code == 0
    assert [row["method"] for row in found["rows"]] == ["seed", "seed", "xz"]
    assert [row["setting"] for row in found["rows"]] == ["4x", "8x", ""]
    for row, ratio in ((first, 4), (second, 8)):
        assert row["ratio"] == pytest.approx(found["weight_bytes"] / row["size"], abs=1e-3)
        assert ratio <= row["ratio"] < 1.05 * ratio
    assert 0 < first["damage"] < second["damage"]
    assert second["agreement"] <= first["agreement"] <= 1
    assert exact["damage"] == 0
    assert exact["agreement"] == 1
    assert found["inputs"].startswith("real inputs: of 32 given inputs")


@pytest.mark.slow
def test_a_seed_beside_others_is_what_an_export_writes_for_the_same_options(
    model: Path, calib: Path, tmp_path: Path
) -> None:
    with own_seeds(model, Options(calib=calib)) as seeds:
        for size in (9_000, 8_800):
            made = seeds.make(size, new(tmp_path / str(size)))
        assert seeds.work.options == Options(calib=calib)
    result = export(model, output=tmp_path / "x.seed", options=Options(calib=calib, size=8_800))
    result.seed.assemble(new(tmp_path / "exported"))
    assert made.size == result.bytes
    assert contents(tmp_path / "8800") == contents(tmp_path / "exported") != contents(tmp_path / "9000")


@pytest.mark.slow
def test_neighbouring_sizes_are_probed_once_and_memory_is_measured_once(
    model: Path, calib: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probed, measured = list[None](), list[None]()
    run_patched, memory = PatchedModel.run, Footprint((), ((),), (ModeFootprint("fast", 1, 1, (1,)),))

    def run(*arguments: Any) -> Any:
        probed.append(None)
        return run_patched(*arguments)

    monkeypatch.setattr(PatchedModel, "run", run)
    monkeypatch.setattr(footprint, "measure", lambda *_, **__: measured.append(None) or memory)
    counts = []
    with own_seeds(model, Options(calib=calib)) as seeds:
        for size in (9_000, 8_900, 5_000):
            seeds.make(size, new(tmp_path / str(size)))
            counts.append(len(probed))
    assert 0 < counts[0] == counts[1] < counts[2]
    assert len(measured) == 1


@pytest.mark.slow
def test_a_calibration_serves_lesser_efforts_as_if_made_for_them(model: Path, calib: Path, tmp_path: Path) -> None:
    parts = Effort(probes=True, feedback=True)
    with own_seeds(model, Options(calib=calib)) as seeds:
        seeds.make(6_000, new(tmp_path / "whole"))
        seeds.with_parts(parts).make(6_000, new(tmp_path / "shared"))
    with own_seeds(model, Options(calib=calib, parts=parts)) as seeds:
        seeds.make(6_000, new(tmp_path / "alone"))
    assert contents(tmp_path / "shared") == contents(tmp_path / "alone") != contents(tmp_path / "whole")


def new(folder: Path) -> Path:
    folder.mkdir()
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_peer_that_is_missing_is_named_with_the_command_that_installs_it(model: Path, compared: Any) -> None:
    code, out, _ = compared(model)
    assert code == 0
    assert "the missing: not installed; pip install no-such-package" in out


def test_without_data_the_table_says_that_inputs_are_generated(model: Path, compared: Any) -> None:
    assert "on generated inputs" in compared(model)[1]


def test_a_peer_that_can_t_take_the_model_is_a_line_with_its_reason(
    model: Path, compared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Deliverable:
        raise PeerError("it knows no such operator")

    with_peer(monkeypatch, refuse)
    code, out, _ = compared(model)
    assert code == 0
    assert "odd: it knows no such operator" in out


def test_a_peer_whose_model_doesn_t_run_is_a_line_with_its_reason(
    model: Path, compared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(graph: Any, feeds: Sequence[Any], folder: Path, setting: int) -> Deliverable:
        (folder / "model.onnx").write_bytes(b"\x08\x07damaged")
        return Deliverable(9, folder / "model.onnx")

    with_peer(monkeypatch, damaged)
    code, out, _ = compared(model)
    assert code == 0
    assert "odd: what it makes of this model doesn't run" in out


def test_an_interruption_shows_what_was_measured_so_far(
    model: Path, tmp_path: Path, compared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> Deliverable:
        raise KeyboardInterrupt

    with_peer(monkeypatch, interrupt)
    code, out, err = compared(model, "--report", tmp_path / "r.html")
    assert code == 130
    assert "what was measured so far" in err
    assert re.search(r"^xz +[\d,]+ ", out, re.MULTILINE)
    assert "<svg" in (tmp_path / "r.html").read_text()


def test_a_page_that_can_t_be_written_leaves_the_table(
    model: Path, tmp_path: Path, compared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(reports, "write_page", full)
    code, out, err = compared(model, "--effort", "1", "--report", tmp_path / "r.html")
    assert code == 13
    assert re.search(r"^xz +[\d,]+ ", out, re.MULTILINE)
    assert "No space left" in err


def test_an_interruption_within_a_seed_ends_the_comparison_and_is_no_row(
    model: Path, compared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    offers: list[int] = []
    offer = Trail.offer

    def interrupted(self: Trail, *arguments: Any) -> None:
        offer(self, *arguments)
        offers.append(1)
        if len(offers) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Trail, "offer", interrupted)
    code, out, _ = compared(model, "--effort", "1")
    assert (code, out) == (130, "")


def test_the_page_has_the_frontier_and_all_rows_and_names_no_address(
    model: Path, tmp_path: Path, compared: Any
) -> None:
    compared(model, "--report", tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert page.count("<circle") == 2
    assert "<td>seed, 4x" in page
    assert "<td>the missing" in page
    assert "http" not in page


def test_the_report_of_an_export_shows_peers_beside_the_seed_where_they_are_asked_for(
    model: Path, calib: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "r.html"

    def ended(*more: str) -> int:
        arguments = [
            str(model),
            "-o",
            str(tmp_path / "x.seed"),
            "--calib",
            str(calib),
            "--size",
            "9KB",
            "--effort",
            "1",
        ]
        with pytest.raises(SystemExit) as stopped:
            cli.main([*arguments, *more])
        return int(stopped.value.code or 0)

    assert ended("--report", str(report), "--peers") == 0
    page = report.read_text()
    assert ">xz</text>" in page
    assert ">seeds of this export</text>" in page
    assert "the missing: not installed; pip install no-such-package" in page
    assert ended("--report", str(report)) == 0
    assert ">xz</text>" not in report.read_text()
    assert ended("--peers") == 2
    assert "add --report" in capfd.readouterr().err


def test_peers_are_judged_on_what_the_export_loaded(
    model: Path, calib: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads, received = list[Any](), list[Any]()
    read = loaders.load

    def load(*arguments: Any, **options: Any) -> Any:
        loads.append(arguments)
        return read(*arguments, **options)

    def make(graph: Graph, feeds: Any, folder: Path, setting: int) -> Deliverable:
        received.append(feeds)
        return xz.make(graph, feeds, folder, setting)

    monkeypatch.setattr(loaders, "load", load)
    monkeypatch.setattr(comparing, "PEERS", {"one": Peer("one", "lzma", "", make, needs_data=True)})
    arguments = ["-o", tmp_path / "x.seed", "--calib", calib, "--size", "9KB", "--effort", "1"]
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(each) for each in (model, *arguments, "--report", tmp_path / "r.html", "--peers")])
    assert not stopped.value.code
    assert len(loads) == 1
    # Those that statistics are measured on, which are read from the disk.
    assert [len(feeds) for feeds in received] == [24]
    assert ">one</text>" in (tmp_path / "r.html").read_text()


def test_an_unknown_metric_and_data_that_don_t_fit_are_refused(model: Path, tmp_path: Path, compared: Any) -> None:
    assert compared(model, "--metric", "beauty")[0] == 2
    np.savez(tmp_path / "odd.npz", x=np.zeros((4, 7), np.float32))
    assert compared(model, "--calib", tmp_path / "odd.npz")[0] == 3


def test_a_row_without_a_number_says_so() -> None:
    row = Row("odd", size=10, ratio=2.0, damage=float("inf"))
    assert row.as_json()["damage"] is None
    assert "other shapes, or NaN" in "\n".join(lines(Comparison("m", "auto", "real inputs", 20, [row])))


def test_peers_are_those_of_the_room() -> None:
    assert {"xz", "NNCodec", "ORT 4 bits", "NNCF int8"} <= set(PEERS)
