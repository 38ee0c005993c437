"""Every Python of a device is a candidate; the best suitable one makes the runtime, and the others say why not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seed_devices.push import requirements, wheels
from seed_devices.push.wheels import NoWheelsError, Wheelhouse
from seed_devices.remote import pythons
from seed_devices.remote.facts import find_pythons
from seed_devices.remote.pythons import Python, Pythons
from seed_devices.ssh.connection import Connection
from seed_runtime.errors import UnsupportedError, UsageError
from tests.devices.support import fake_wheels
from tests.devices.support.board import BOARD
from tests.devices.support.commands import deploy, hosts
from tests.devices.support.pushing import send
from tests.devices.support.seeds import EXAMPLE
from tests.devices.support.sshd import Device, MakeDevice

REAL = Path(sys.executable).resolve()
TOOLS = "/usr/bin:/bin"


@pytest.fixture(autouse=True)
def no_other_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pythons, "FOLDERS", "")


class Shell:
    """A device whose sh is that of this machine, with folders of its own in PATH."""

    target = "pi@porch"

    def __init__(self, *folders: Path, home: Path | None = None) -> None:
        self._environment = {"PATH": ":".join(map(str, folders)), "HOME": str(home or "/nowhere")}

    def run(self, script: str, *arguments: str, **_: Any) -> Any:
        command = ["/bin/sh", "-c", script, "sh", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=self._environment, check=True)
        assert done.stderr == ""
        return type("Done", (), {"text": done.stdout})


def fake(file: Path, version: tuple[int, ...] = (3, 12, 1), **changed: Any) -> Path:
    """Write a program that answers as a Python of this version."""
    file.parent.mkdir(parents=True, exist_ok=True)
    answer = {"path": str(file), "real": str(file), "version": version, "bits": 64, "missing": [], "numpy": None}
    file.write_text(f"#!/bin/sh\necho a warning\necho '{json.dumps({**answer, **changed})}'\n")
    file.chmod(0o755)
    return file


def found(device: Shell, named: str | None = None) -> Pythons:
    return pythons.find(device, named)  # type: ignore[arg-type]


def test_every_python_in_the_folders_of_path_is_asked(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    old = fake(first / "python3", (3, 9, 2))
    good = fake(second / "python3.11", (3, 11, 4))
    newest = fake(second / "python3.14", (3, 14, 0))
    bare = fake(second / "python3.12", (3, 12, 0), missing=["venv"])
    broken = second / "python3.13"
    broken.write_text("#!/bin/sh\necho pyenv: python3.13: command not found >&2\necho more\nexit 127\n")
    broken.chmod(0o755)
    (second / "python3.15").mkdir()
    (second / "python3-config").symlink_to(good)
    known = found(Shell(first, second, tmp_path / "missing"))
    assert [python.path for python in known.suitable] == [str(newest), str(good)]
    assert {python.path: python.fault for python in known.others} == {
        str(old): "it is older than 3.11",
        str(bare): "it has no module venv",
        str(broken): "it does not start (pyenv: python3.13: command not found)",
    }
    assert known.rows()[0] == {"path": str(newest), "version": "3.14.0", "taken": True, "in_use": False, "reason": ""}
    assert known.rows()[1]["reason"] == "another one is taken"


def test_the_python_that_is_in_use_comes_first_then_python3_then_the_newest(tmp_path: Path) -> None:
    plain, newest = fake(tmp_path / "a" / "python3", (3, 11, 2)), fake(tmp_path / "b" / "python3.14", (3, 14, 0))
    used = fake(tmp_path / "opt" / "python3.12", (3, 12, 5))
    folders = (tmp_path / "a", tmp_path / "b")
    assert [python.path for python in found(Shell(*folders)).suitable] == [str(plain), str(newest)]
    runtime = tmp_path / "home" / ".local/share/seed/runtime/current"
    runtime.mkdir(parents=True)
    (runtime / "pyvenv.cfg").write_text(f"home = /x\nversion = 3.12.5\nexecutable = {used}\n")
    known = found(Shell(*folders, home=tmp_path / "home"))
    assert known.made_with == str(used)
    assert [row["path"] for row in known.rows() if row["in_use"]] == [str(used)]
    assert [python.path for python in known.suitable] == [str(used), str(plain), str(newest)]
    used.unlink()
    assert found(Shell(*folders, home=tmp_path / "home")).suitable[0].path == str(plain)


def test_one_file_under_several_names_is_one_python(tmp_path: Path) -> None:
    real = fake(tmp_path / "a" / "python3.12")
    (tmp_path / "a" / "python3").symlink_to("python3.12")
    (tmp_path / "b").symlink_to("a")
    assert [python.real for python in found(Shell(tmp_path / "a", tmp_path / "b")).suitable] == [str(real)]


def test_the_python_that_runs_these_tests_is_suitable(tmp_path: Path) -> None:
    (tmp_path / "python3").symlink_to(REAL)
    (python,) = found(Shell(tmp_path)).suitable
    assert (python.version, python.real) == (sys.version_info[:3], str(REAL))
    assert Path(python.path).resolve() == REAL


def test_a_named_python_is_the_only_candidate(tmp_path: Path) -> None:
    fake(tmp_path / "a" / "python3")
    named = fake(tmp_path / "opt" / "my-python", (3, 13, 0))
    command = fake(tmp_path / "a" / "python3.11", (3, 11, 0))
    assert [python.path for python in found(Shell(tmp_path / "a"), str(named)).suitable] == [str(named)]
    assert [python.path for python in found(Shell(tmp_path / "a"), "python3.11").suitable] == [str(command)]
    for missing in ("python3.99", str(tmp_path / "none")):
        with pytest.raises(UsageError, match=r"there is no Python .* that can be started; give another --python"):
            found(Shell(tmp_path / "a"), missing)
    old = fake(tmp_path / "opt" / "old", (3, 9, 2))
    with pytest.raises(
        UsageError, match=rf"no runtime can be made with {old} 3\.9\.2: .*older.*; give another --python"
    ):
        found(Shell(tmp_path / "a"), str(old))


def test_an_answer_that_is_none_is_a_python_that_does_not_start(tmp_path: Path) -> None:
    for number, changed in enumerate(({"version": [3]}, {"bits": "64"}, {"path": 7}, {"missing": None})):
        fake(tmp_path / str(number) / "python3", **{"version": (3, 12, 0), **changed})  # type: ignore[arg-type]
        known = found(Shell(tmp_path / str(number)))
        assert known.best is None
        assert known.others[0].fault.startswith("it does not start")


def test_of_32_bit_pythons_one_with_numpy_is_better(tmp_path: Path) -> None:
    fake(tmp_path / "a" / "python3", bits=32)
    other = fake(tmp_path / "b" / "python3.11", (3, 11, 0), bits=32, numpy="1.24.2")
    assert found(Shell(tmp_path / "a", tmp_path / "b")).suitable[0].path == str(other)


def test_a_refusal_lists_all_with_their_reasons() -> None:
    old = Python("/usr/bin/python3", "/usr/bin/python3.9", (3, 9, 2), "it is older than 3.11")
    bare = Python("/usr/local/bin/python3.12", "/p", (3, 12, 0), "it has no module venv", has_venv=False)
    listed = r"/usr/bin/python3 3\.9\.2: it is older than 3\.11, /usr/local/bin/python3\.12 3\.12\.0: it has no module"
    with pytest.raises(UnsupportedError, match=rf"its Python is 3\.9\.2 and 3\.11 is needed \({listed}"):
        requirements.check({**BOARD, **pythons.choose([old, bare]).as_facts()})
    broken = Python("/usr/bin/python3", "/p", (3, 12, 0), "it has no module zlib")
    with pytest.raises(UnsupportedError, match=r"none of its Pythons can run it .*no module zlib.*--python PATH"):
        requirements.check({**BOARD, "os_id": "alpine", **pythons.choose([broken]).as_facts()})


# On a device behind a real sshd

Make = Callable[..., Device]


@pytest.fixture
def mixed(make_device: MakeDevice, tmp_path: Path) -> Device:
    """Return a device whose python3 is too old, with a good Python of another name beside it."""
    fake(tmp_path / "bin" / "python3", (3, 9, 2))
    (tmp_path / "bin" / f"python3.{sys.version_info.minor}").symlink_to(REAL)
    # No /usr/bin: the python3 of this machine is none of the device's.
    for tool in ("sh", "cat", "dd", "ls", "sleep", "stat", "true"):
        (tmp_path / "bin" / tool).symlink_to(f"/bin/{tool}")
    return make_device(runtime=False, environment={"PATH": str(tmp_path / "bin")})


@pytest.mark.slow
def test_a_device_whose_python3_is_too_old_gets_its_runtime_from_another_one(
    mixed: Device, new: Wheelhouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheels, "collect", lambda *given, **named: new)
    monkeypatch.setattr(requirements, "__version__", new.version)
    done = send(mixed, EXAMPLE, dry_run=True)
    assert done.facts is not None
    assert done.facts["python"].startswith(f"3.{sys.version_info.minor}.")
    assert any(f"its runtime is made with {mixed.home.parent}" in note or "made with" in note for note in done.notes)
    with Connection(mixed.alias, config=mixed.config) as connection:
        known = find_pythons(connection)
        assert (known.best or Python("")).real == str(REAL)
    with pytest.raises(Exception, match="does not start"):
        send(mixed, EXAMPLE)  # the fake runtime has no agent
    assert fake_wheels.runtime_output(mixed) == new.version
    with Connection(mixed.alias, config=mixed.config) as connection:
        assert find_pythons(connection).made_with == str(REAL)


@pytest.mark.slow
def test_a_named_python_is_not_ignored_where_the_model_runs_already(device: Device) -> None:
    send(device, EXAMPLE)
    with pytest.raises(UsageError, match=r"there is no Python python3\.99"):
        send(device, EXAMPLE, python="python3.99")
    done = send(device, EXAMPLE, python=str(REAL))
    assert done.state == "unchanged"
    assert any("--update-runtime makes it anew with" in note for note in done.notes)


@pytest.mark.slow
def test_a_python_without_wheels_gives_way_to_the_next(
    mixed: Device, new: Wheelhouse, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    newest = fake(tmp_path / "bin" / "python3.99", (3, 99, 0))
    # Whatever else it is asked, it runs as a real one.
    newest.write_text(newest.read_text().replace("echo a", f'[ "$1" = -B ] || exec {REAL} "$@"\necho a', 1))
    asked: list[object] = []

    def collect(profile: object, python: tuple[int, int], *given: object, **named: object) -> Wheelhouse:
        asked.append(python)
        if python == (3, 99):
            raise NoWheelsError("the package index has no wheels for Python 3.99; use another Python")
        return new

    monkeypatch.setattr(wheels, "collect", collect)
    assert send(mixed, EXAMPLE, dry_run=True).runtime_sent
    assert asked == [(3, 99), sys.version_info[:2]]


@pytest.mark.slow
def test_the_doctor_lists_the_pythons(mixed: Device) -> None:
    (host,) = hosts(mixed.config, "doctor", mixed.alias)
    reasons = {os.path.basename(row["path"]): row["reason"] for row in host["pythons"]}
    assert reasons["python3"] == "it is older than 3.11"
    assert [row["taken"] for row in host["pythons"]].count(True) == 1
    text = deploy(mixed.config, "doctor", mixed.alias).stdout.decode()
    assert "python3 3.9.2: it is older than 3.11" in text
    assert f"python3.{sys.version_info.minor} " in text
    assert "the next runtime is made with it" in text
