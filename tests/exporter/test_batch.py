"""`seed-export batch`: what a file of jobs may say, what is made again, what one failure or Ctrl-C leaves."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from seed_exporter import cli
from seed_exporter.batch import jobs_file as files
from seed_exporter.batch import worker
from seed_exporter.batch.fingerprint import digest
from seed_exporter.batch.state import State
from seed_exporter.cli.export import command
from seed_runtime.errors import UsageError
from seed_runtime.system.locks import FileLock
from tests.exporter.support.batches import QUICK, STAND_IN, jobs_file, models
from tests.exporter.support.exporting import layers, quick_export


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_COMMAND", STAND_IN)


class Ran:
    """A batch within this process: its exit code, its rows by the seed's stem, its counts, its last line on stderr."""

    def __init__(self, capfd: pytest.CaptureFixture[str], path: Path, *arguments: str) -> None:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main(["batch", str(path), "--json", *arguments])
        self.code = stopped.value.code
        out, err = capfd.readouterr()
        self.error = err.splitlines()[-1] if err else ""
        found = json.loads(out) if out else {"jobs": []}
        self.rows: dict[str, Any] = {Path(row["seed"]).stem: row for row in found["jobs"]}
        self.words = {name: row["outcome"] for name, row in self.rows.items()}


def test_keys_are_options_and_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    path = jobs_file(
        tmp_path,
        'model = "in/a.onnx"\noutput = "../a.seed"\nmodel_id = "a b"\nmodel_version = 7\ntarget = 12.5',
        'model = "b.onnx"\nmethod = "lossless"',
        defaults='calib = "calib.npz"',
    )
    first, second = files.read(path, command)
    parsed = command.make_context("seed-export", first.arguments).params
    assert parsed["model"] == str(tmp_path / "in" / "a.onnx")
    assert parsed["output"] == tmp_path.parent / "a.seed"
    assert parsed["calib"] == tmp_path / "calib.npz"
    assert (parsed["model_id"], parsed["model_version"], parsed["target"]) == ("a b", 7, 12.5)
    assert second.output == tmp_path / "b.seed"
    assert second.inputs == {"calib": tmp_path / "calib.npz"}


def test_the_goal_of_a_job_takes_the_place_of_the_defaults(tmp_path: Path) -> None:
    path = jobs_file(tmp_path, *models(tmp_path, "a"), 'model = "b.onnx"\nsize = "9KB"', defaults='target = "8x"')
    first, second = files.read(path, command)
    assert first.values.keys() == {"target", "output"}
    assert second.values.keys() == {"size", "output"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[[jobs]]\nmodel = "a.onnx"', "no table is called 'jobs'; the nearest one is job"),
        ('[default]\n[[job]]\nmodel = "a.onnx"', "no table is called 'default'; the nearest one is defaults"),
        (
            '[defaults]\ntargt = 3\n[[job]]\nmodel = "a.onnx"',
            "[defaults]: no option is called 'targt'; the nearest one is target",
        ),
        ('[[job]]\nmodel = "a.onnx"\nout = "b"', "job 1: no option is called 'out'; the nearest one is output"),
        ('[[job]]\nmodel = "a.onnx"\njobs = 3', "job 1: jobs is decided for all jobs at once"),
        ('[[job]]\nmodel = "a.onnx"\njson = true', "job 1: json is decided for all jobs at once"),
        ('[[job]]\nmodel = "a.onnx"\n[[job]]\noutput = "b.seed"', "job 2 names no model"),
        ('[[job]]\nmodel = "a.onnx"\n[[job]]\nmodel = "x/a.onnx"', "jobs 1 and 2 both write"),
        ('[[job]]\nmodel = "a.onnx"\noutput = "b.onnx"\n[[job]]\nmodel = "b.onnx"', "is read by a job"),
        ('[[job]]\nmodel = "a.onnx"\nreport = "a.seed"', "jobs 1 and 1 both write"),
        ('[[job]]\nmodel = "a.onnx"\ntarget = "much"', "job 1: Invalid value for '--target'"),
        ('[[job]]\nmodel = "a.onnx"\ntarget = [1]', "target: [1] is neither a text nor a number"),
        ('[[job]]\nmodel = "a.onnx"\ntarget = true', "target: True is neither a text nor a number"),
        ('[[job]]\nmodel = "a.onnx"\nmetric = "os:system"', "job 1: a file of jobs can't name Python code"),
        ('[defaults]\nmetric = "os:system"\n[[job]]\nmodel = "a.onnx"', "job 1: a file of jobs can't name Python code"),
        ('[[job]]\nmodel = "a.onnx"\neffort = 10', "job 1: Invalid value for '--effort'"),
        ('[[job]]\nmodel = ""', "model: '' is neither a text nor a number"),
        ('[[job]]\nmodel = "a.onnx"\nmodel_id = 2020-01-01', "is neither a text nor a number"),
        ('job = "a.onnx"', "[[job]] begins each job"),
        ("[defaults]", "has no job"),
        ("[[job]", "is no TOML"),
    ],
)
def test_a_file_of_jobs_that_is_wrong_is_refused_with_its_place(text: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "jobs.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as refused:
        files.read(path, command)
    assert problem in str(refused.value)
    assert str(path) in str(refused.value)


def test_two_names_of_one_output_are_one(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    path = jobs_file(tmp_path, 'model = "a.onnx"\noutput = "b.seed"', 'model = "b.onnx"\noutput = "link/b.seed"')
    with pytest.raises(UsageError, match="jobs 1 and 2 both write"):
        files.read(path, command)


def test_one_job_that_fails_stops_no_other(tmp_path: Path, stand_in: None, capfd: Any) -> None:
    path = jobs_file(tmp_path, *models(tmp_path, "bad", "a", "crash", "missed", "b"))
    ran = Ran(capfd, path, "--jobs", "1")
    assert ran.code == 16
    assert ran.words == {"bad": "failed", "a": "made", "crash": "failed", "missed": "goal not met", "b": "made"}
    assert ran.rows["bad"]["error"] == "the model is bad; give a good one"
    assert ran.rows["crash"]["error"].startswith("SIGKILL ended it")
    assert ran.rows["missed"]["exit_code"] == 15
    assert "3 of 5 jobs failed" in ran.error


def test_the_table_has_a_row_for_each_job(tmp_path: Path, stand_in: None, capfd: Any) -> None:
    path = jobs_file(tmp_path, *models(tmp_path, "a", "bad"))
    with pytest.raises(SystemExit):
        cli.main(["batch", str(path)])
    head, first, second = capfd.readouterr().out.splitlines()
    assert head.split() == ["seed", "size", "ratio", "time"]
    assert first.split()[:5] == [str(tmp_path / "a.seed"), "made", "40", "bytes", "5.00x"]
    assert second.endswith("exit code 1: the model is bad; give a good one")


def test_what_is_made_of_the_same_is_made_once(tmp_path: Path, stand_in: None, capfd: Any) -> None:
    path = jobs_file(tmp_path, *models(tmp_path, "a", "missed"), defaults='model_id = "m"')
    assert Ran(capfd, path).words == {"a": "made", "missed": "goal not met"}
    again = Ran(capfd, path)
    assert again.words == {"a": "unchanged", "missed": "goal not met"}
    assert again.code == 16  # what wasn't reached isn't reached by asking twice
    assert again.rows["a"]["seconds"] == 0 == again.rows["missed"]["seconds"]
    assert again.rows["a"]["result"]["bytes"] == 40
    assert Ran(capfd, path, "--force").words["a"] == "made"


def test_an_interrupted_export_begins_again(tmp_path: Path, stand_in: None, capfd: Any) -> None:
    path = jobs_file(tmp_path, *models(tmp_path, "interrupted"))
    for _ in range(2):
        ran = Ran(capfd, path)
        assert (ran.words["interrupted"], ran.rows["interrupted"]["exit_code"]) == ("failed", 130)
        assert ran.rows["interrupted"]["seconds"] > 0


def change_model(folder: Path) -> None:
    (folder / "a.onnx").write_bytes(b"another")


def change_external_data(folder: Path) -> None:
    (folder / "a.data").write_bytes(b"other bytes")


def change_calib(folder: Path) -> None:
    (folder / "calib.npz").write_bytes(b"other inputs")


def change_options(folder: Path) -> None:
    path = folder / "jobs.toml"
    path.write_text(path.read_text() + "model_version = 2\n")


def change_seed(folder: Path) -> None:
    (folder / "a.seed").write_bytes(b"\x89SEED\r\n\x1a something else")


def remove_seed(folder: Path) -> None:
    (folder / "a.seed").unlink()


def remove_report(folder: Path) -> None:
    (folder / "a.html").unlink()


def damage_state(folder: Path) -> None:
    (folder / "jobs.toml.state").write_bytes(b"{")


def nothing(folder: Path) -> None:
    pass


@pytest.mark.parametrize(
    "change",
    [change_model, change_external_data, change_calib, change_options, change_seed, remove_seed, remove_report,
     damage_state, nothing],
)  # fmt: skip
def test_a_seed_is_made_again_after_any_change(change: Any, tmp_path: Path, stand_in: None, capfd: Any) -> None:
    external = onnx.TensorProto(name="w", data_type=1, dims=[2], data_location=onnx.TensorProto.EXTERNAL)
    external.external_data.add(key="location", value="a.data")
    held = onnx.helper.make_node("Constant", [], ["w"], value=external)
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([held], "g", [], [])), tmp_path / "a.onnx")
    (tmp_path / "a.data").write_bytes(b"8 bytes.")
    (tmp_path / "calib.npz").write_bytes(b"inputs")
    path = jobs_file(tmp_path, 'model = "a.onnx"\nreport = "a.html"\ncalib = "calib.npz"')
    assert Ran(capfd, path).words == {"a": "made"}
    change(tmp_path)
    assert Ran(capfd, path).words == {"a": "unchanged" if change is nothing else "made"}
    assert Ran(capfd, path).words == {"a": "unchanged"}


def test_the_digest_of_a_folder_changes_with_any_file_or_name_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "calib"
    (folder / "deep").mkdir(parents=True)
    seen = {digest(tmp_path / "missing"), digest(folder)}
    (folder / "deep" / "a").write_bytes(b"1")
    seen.add(digest(folder))
    (folder / "deep" / "a").write_bytes(b"2")
    seen.add(digest(folder))
    (folder / "deep" / "a").rename(folder / "deep" / "b")
    assert digest(folder) not in seen
    assert len(seen) == 4


def test_another_version_makes_all_again(tmp_path: Path, stand_in: None, capfd: Any, monkeypatch: Any) -> None:
    path = jobs_file(tmp_path, *models(tmp_path, "a"))
    assert Ran(capfd, path).words == {"a": "made"}
    monkeypatch.setattr("seed_exporter.batch.fingerprint.__version__", "0.0.0")
    assert Ran(capfd, path).words == {"a": "made"}


@pytest.mark.parametrize(("count", "at_once"), [(2, 2), (5, 2), (8, 3), (4, 8), (1, 1)])
def test_shares_of_the_cores_do_not_overlap(count: int, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(10, 10 + count)), raising=False)
    shares = [worker.cores_of(share, at_once) for share in range(min(count, at_once))]
    used = [core for share in shares for core in share]
    assert len(set(used)) == len(used) <= count
    assert len({len(share) for share in shares}) == 1
    assert set(worker.cores_of(at_once, at_once)) <= set(range(10, 10 + count))


def test_jobs_side_by_side_run_on_cores_of_their_own(tmp_path: Path, stand_in: None, capfd: Any) -> None:
    path = jobs_file(tmp_path, *models(tmp_path, *"abcdef"))
    ran = Ran(capfd, path, "--jobs", "2")
    assert ran.code == 0
    at_once = min(2, len(os.sched_getaffinity(0)))
    for row in ran.rows.values():
        result = row["result"]
        assert len(result["cores"]) == result["jobs"] == len(os.sched_getaffinity(0)) // at_once


def test_one_batch_at_a_time_works_on_a_file(tmp_path: Path, stand_in: None, capfd: Any) -> None:
    path = jobs_file(tmp_path, *models(tmp_path, "a"))
    with FileLock(path, create=False) as lock:
        assert lock.try_acquire()
        ran = Ran(capfd, path)
    assert ran.code == 2
    assert "another batch works on" in ran.error
    assert not (tmp_path / "a.seed").exists()


WITH_STAND_IN = """
import sys
from seed_exporter.batch import worker
worker._COMMAND = sys.argv.pop(1).split()
from seed_exporter import cli
cli.main()
"""


def test_a_state_that_cant_be_written_ends_the_batch_with_one_line(
    tmp_path: Path, stand_in: None, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(State, "record", full)
    path = jobs_file(tmp_path, *models(tmp_path, *"abcd"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        with pytest.raises(SystemExit) as stopped:
            cli.main(["batch", str(path), "--jobs", "2"])
    assert stopped.value.code == 13
    assert len(capfd.readouterr().err.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("at_once", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_leaves_whole_seeds_and_no_process(number: int, at_once: str, tmp_path: Path) -> None:
    path = jobs_file(tmp_path, *models(tmp_path, "a", "endless", *"cdef"))
    process = subprocess.Popen(
        [sys.executable, "-c", WITH_STAND_IN, " ".join(STAND_IN), "batch", str(path), "--jobs", at_once],
        stderr=subprocess.PIPE,
        text=True,
    )
    part = tmp_path / ".seed-00000000.part"
    state = tmp_path / "jobs.toml.state"
    while not part.exists() or not state.exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 128 + number, error
    assert not part.exists()
    assert all(Path(seed).stat().st_size == 40 for seed in json.loads(state.read_bytes()))
    assert not (tmp_path / "endless.seed").exists()
    if number == signal.SIGINT:
        assert "the seeds that are made are whole" in error


@pytest.mark.slow
def test_seeds_are_those_of_exports_alone(tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_COMMAND", QUICK)
    for number in range(3):
        onnx.save(layers(np.random.default_rng(number), 48, 96, 64), tmp_path / f"{number}.onnx")
    path = jobs_file(
        tmp_path,
        *(f'model = "{number}.onnx"\nmodel_version = {number}' for number in range(3)),
        'model = "0.onnx"\noutput = "lossless.seed"\nmethod = "lossless"\nmodel_version = 3',
        defaults='model_id = "m"',
    )
    ran = Ran(capfd, path)
    assert ran.code == 0, ran.rows
    for version, (name, method) in enumerate([("0", "grid"), ("1", "grid"), ("2", "grid"), ("lossless", "lossless")]):
        alone = tmp_path / "alone.seed"
        quick_export(tmp_path / f"{version % 3}.onnx", alone, method=method, model_id="m", model_version=version)
        assert (tmp_path / f"{name}.seed").read_bytes() == alone.read_bytes(), name
