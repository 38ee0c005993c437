"""Facts about a device, with nothing of ours installed."""

from __future__ import annotations

import ast
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

import seed_runtime
from seed_runtime.agent import facts
from seed_runtime.system import paths

SOURCE = Path(facts.__file__).read_text()
KEYS = {
    *(
        "machine",
        "instructions",
        "bits",
        "os",
        "os_id",
        "libc",
        "python",
        "python_path",
        "numpy",
        "onnxruntime",
        "litert",
    ),
    *("pillow", "tokenizers"),
    *("seed_runtime", "venv", "ensurepip", "ram", "ram_available", "cores", "disk_free", "disk_cached", "store"),
    *(
        "store_writable",
        "home_writable",
        "clock",
        "systemd_user",
        "ssh_keygen",
        "signers",
        "model",
        "termux",
        "runtime",
        "wheels",
        "noexec",
        "exec_folder",
        "systemd",
    ),
}


def test_all_facts_of_this_machine_are_found() -> None:
    found = facts.collect()
    assert set(found) == KEYS
    assert (found["machine"], found["python"]) == (platform.machine(), platform.python_version())
    assert found["bits"] == 64 or sys.maxsize < 1 << 32
    assert found["seed_runtime"] == seed_runtime.__version__
    assert found["ram"] > found["ram_available"] > 0
    assert found["disk_free"] > 0
    assert found["cores"] >= 1
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    ("installed", "found"),
    [
        ({"ai-edge-litert": "2.3.0", "tflite-runtime": "2.14.0", "numpy": "2.4.6"}, "2.3.0"),
        ({"tflite-runtime": "2.14.0", "numpy": "1.26.4"}, "2.14.0"),
        ({"tflite-runtime": "2.14.0", "numpy": "2.4.6"}, None),
        ({"tflite-runtime": "2.14.0"}, None),
    ],
)
def test_tflite_runtime_counts_as_litert_only_beside_numpy_1(
    installed: dict[str, str], found: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "_version", installed.get)
    assert facts.collect()["litert"] == found


def test_it_runs_from_stdin_in_a_bare_interpreter_and_prints_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-"],
        input=SOURCE.encode(),
        capture_output=True,
        env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.count(b"\n") == 1
    found = json.loads(done.stdout)
    assert found["store"] == str(tmp_path / ".local/share/seed")
    assert found["runtime"] is None
    assert os.listdir(tmp_path) == []


def test_its_language_is_that_of_python_3_6() -> None:
    ast.parse(SOURCE, feature_version=(3, 6))
    assert "from __future__ import annotations" not in SOURCE


def test_it_imports_only_the_standard_library() -> None:
    script = "import sys\nfrom seed_runtime.agent import facts\nfacts.collect()\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"numpy", "onnxruntime", "pip"}


@pytest.mark.parametrize("own", ["", "relative", "absolute"])
@pytest.mark.parametrize("data", ["", "relative", "absolute"])
def test_the_store_is_the_one_that_the_runtime_uses(
    own: str, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in (("SEED_HOME", own), ("XDG_DATA_HOME", data)):
        monkeypatch.setenv(variable, str(tmp_path / variable) if value == "absolute" else value)
    assert facts.store_home() == str(paths.store_home())


def test_an_installed_runtime_is_reported_only_when_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEED_HOME", str(tmp_path))
    folder = tmp_path / "runtime" / "0.1.0-0123abcd"
    (folder / "bin").mkdir(parents=True)
    assert facts.collect()["runtime"] is None
    (tmp_path / "runtime" / "current").symlink_to(folder.name)
    assert facts.collect()["runtime"] is None
    (folder / "bin" / "python").symlink_to(sys.executable)
    assert facts.collect()["runtime"] == {"path": str(folder), "version": "0.1.0"}
    (tmp_path / "runtime" / "current").unlink()
    (tmp_path / "runtime" / "current").symlink_to(folder)
    assert facts.collect()["runtime"] is None


def test_a_disk_from_which_nothing_can_be_started_is_reported_with_its_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A stand-in for a mount: what statvfs says of the folder, and where the disk begins.
    class Status:
        f_bavail = f_frsize = 1
        f_flag = os.ST_NOEXEC

    real = os.statvfs
    monkeypatch.setattr(os, "statvfs", lambda path: Status if str(path).startswith(str(tmp_path)) else real(path))
    monkeypatch.setattr(os.path, "ismount", lambda path: path == str(tmp_path))
    monkeypatch.setenv("SEED_HOME", str(tmp_path / "user" / "seed"))
    (tmp_path / "user").mkdir()
    assert facts.collect()["noexec"] == str(tmp_path)
    monkeypatch.setenv("SEED_HOME", "/seed-that-is-not-there")
    assert facts.collect()["noexec"] is None


def test_wheels_that_arrived_for_a_runtime_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEED_HOME", str(tmp_path))
    assert facts.collect()["wheels"] == {}
    (tmp_path / "runtime" / ".wheels").mkdir(parents=True)
    (tmp_path / "runtime" / ".wheels" / "numpy.whl").write_bytes(bytes(7))
    assert facts.collect()["wheels"] == {"numpy.whl": 7}


def test_the_disk_of_a_missing_store_is_that_of_its_nearest_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEED_HOME", str(tmp_path / "a" / "b"))
    found = facts.collect()
    assert found["store_writable"]
    assert found["disk_free"] > 0
    assert not (tmp_path / "a").exists()


def test_cached_models_count_if_they_share_the_stores_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEED_HOME", str(tmp_path / "store"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert facts.collect()["disk_cached"] == 0
    model = paths.cache_home() / "models" / ("a" * 64)
    model.mkdir(parents=True)
    (model / "model.weights").write_bytes(bytes(1000))
    assert facts.collect()["disk_cached"] == 1000
    if Path("/dev/shm").stat().st_dev != tmp_path.stat().st_dev:
        monkeypatch.setenv("SEED_HOME", "/dev/shm/seed-that-is-not-there")
        assert facts.collect()["disk_cached"] == 0


def test_a_fact_that_cannot_be_read_is_none_and_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "_text", lambda path: "")
    monkeypatch.setattr(os, "statvfs", lambda path: (_ for _ in ()).throw(OSError()))
    found = facts.collect()
    assert (found["ram"], found["model"], found["disk_free"]) == (None, None, None)
    assert set(found) == KEYS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('NAME="Debian GNU/Linux"\nVERSION_ID="12"\nID=debian\n', ("Debian GNU/Linux 12", "debian")),
        ("NAME=Alpine\nID=alpine\n", ("Alpine", "alpine")),
        ("", ("Linux", "linux")),
        ("\0\0\n=\nNAME", ("Linux", "linux")),
    ],
)
def test_the_system_is_named_as_it_names_itself(
    text: str, expected: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "_text", lambda path: text if "os-release" in path else "")
    found = facts.collect()
    assert (found["os"], found["os_id"]) == expected
