"""The doctor names what is wrong with a device, and the command that mends it; with a device that is well, nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from seed_devices import doctor
from seed_devices.cli import doctor as doctor_command
from seed_devices.doctor import Fault
from seed_devices.fleet.parallel import Outcome
from seed_devices.fleet.target import Target
from seed_devices.ssh.connection import Connection
from seed_runtime.version import __version__
from tests.devices.support import fake_wheels
from tests.devices.support.board import BOARD, DIGESTS, NOW, judged, model
from tests.devices.support.sshd import Device, MakeDevice


def test_nothing_is_found_where_all_is_well() -> None:
    assert judged() == []


@pytest.mark.parametrize(
    ("facts", "what", "fix"),
    [
        ({"python": "3.9.2"}, "Python 3.9.2 is too old", "update its system to Debian 12"),
        ({"venv": False}, "venv module is missing", "sudo apt install python3-venv"),
        ({"disk_free": 9 << 20}, "9 MB of disk are free", "sudo apt clean"),
        ({"disk_free": 99 << 20, "runtime": None}, "268 MB should be", "sudo apt clean"),
        ({"store_writable": False}, "/srv/seed can't be written to", "mount -o remount,rw"),
        ({"store_writable": False, "home_writable": False}, "home folder can't be written to", "SEED_HOME"),
        ({"noexec": "/home"}, "/srv/seed is on /home, which is mounted noexec", "sudo install -d -o $USER"),
        ({"noexec": "/home", "exec_folder": "/srv"}, "mounted noexec", "echo SEED_HOME=/srv/seed | sudo tee -a"),
        ({"libc": ["musl", ""]}, "C library is musl", "use a system with glibc"),
        ({"libc": ["bionic", ""], "termux": True}, "Termux", "proot-distro install debian"),
        ({"machine": "armv6l", "bits": 32}, "armv6l", "use a 64-bit system"),
        ({"bits": 32}, "NumPy is missing", "sudo apt install python3-numpy"),
        ({"bits": 32, "numpy": "1.19.5"}, "NumPy 1.19.5 is older", "update its system"),
    ],
)
def test_a_fault_of_the_system_is_named_with_its_fix(facts: dict[str, Any], what: str, fix: str) -> None:
    fault = judged(facts)[0]
    assert fault.severity == "fault"
    assert what in fault.what
    assert fix in fault.fix
    assert fault.why


@pytest.mark.parametrize(
    ("facts", "found", "what"),
    [
        ({"runtime": None}, {"linked": False, "starts": None, "status": None}, "there is no runtime yet"),
        ({"runtime": {"path": "/p", "version": "0.0.1"}}, {}, "the runtime is 0.0.1, this host has"),
        ({"ram_available": 50 << 20}, {}, "52 MB of memory are available"),
        ({"clock": 12}, {}, "its clock was never set: it says 1970-01-01"),
        ({"clock": int(NOW) - 864000}, {}, "its clock is 10 days behind"),
        ({"bits": 32, "numpy": "2.2.4"}, {}, "32-bit"),
    ],
)
def test_what_keeps_nothing_from_working_is_advice(facts: dict[str, Any], found: dict[str, Any], what: str) -> None:
    (advice,) = judged(facts, **found)
    assert advice.severity == "advice"
    assert what in advice.what
    assert advice.fix


def test_a_clock_that_was_never_set_is_a_fault_where_signatures_count() -> None:
    (fault,) = judged({"clock": 12}, signers=True)
    assert fault.severity == "fault"
    assert "signatures" in fault.why


@pytest.mark.parametrize(
    ("facts", "found", "what", "fix"),
    [
        ({"runtime": None}, {"status": None}, "the runtime is incomplete", "seed-deploy push MODEL.seed pi@porch"),
        ({}, {"starts": "No module named 'numpy'", "status": None}, "does not start", "seed-deploy push MODEL.seed"),
        ({}, {"status": None, "status_error": "Permission denied"}, "can't be read: Permission denied", "who owns"),
        ({"ssh_keygen": False}, {"signers": True}, "ssh-keygen is missing", "sudo apt install openssh-client"),
        ({}, {"error": "Input/output error"}, "can't be examined: Input/output error", "dmesg"),
    ],
)
def test_a_fault_of_the_runtime_is_named_with_its_fix(
    facts: dict[str, Any], found: dict[str, Any], what: str, fix: str
) -> None:
    (fault,) = judged(facts, **found)
    assert (fault.severity, what in fault.what, fix in fault.fix) == ("fault", True, True)


def test_a_damaged_version_that_runs_can_be_pushed_again_or_rolled_back() -> None:
    versions = [{"digest": DIGESTS[0], "intact": False}, {"digest": DIGESTS[1], "intact": True}]
    (fault,) = judged(status=model(versions=versions))
    assert "the running version aaaaaaaaaaaa is damaged" in fault.what
    assert "seed-deploy rollback pi@porch:magika" in fault.fix
    (alone,) = judged(status=model(versions=versions[:1]))
    assert alone.fix == "seed-deploy push magika.seed pi@porch:magika"


def test_a_damaged_version_that_is_kept_can_be_removed() -> None:
    versions = [{"digest": DIGESTS[0], "intact": True}, {"digest": DIGESTS[1], "intact": False}]
    (fault,) = judged(status=model(versions=versions))
    assert "the kept version bbbbbbbbbbbb" in fault.what
    assert "seed-deploy remove pi@porch:magika" in fault.fix


def test_a_model_without_a_current_version_is_a_fault() -> None:
    (fault,) = judged(status=model(current=None))
    assert "no version is current" in fault.what


@pytest.mark.parametrize(
    ("service", "facts", "linger", "what", "fix"),
    [
        ({"active": "failed"}, {}, True, "its service is failed", "seed-deploy logs pi@porch:magika"),
        ({"active": "active"}, {}, False, "linger is not enabled", "sudo loginctl enable-linger pi"),
        ({"active": "unknown"}, {"systemd_user": False}, True, "no systemd runs", "enable-linger pi"),
        ({}, {"systemd_user": False, "systemd": False}, None, "no systemd runs there", "push without --service"),
    ],
)
def test_a_fault_of_a_service_is_named_with_its_fix(
    service: dict[str, Any], facts: dict[str, Any], linger: bool, what: str, fix: str
) -> None:
    (fault,) = judged(facts, status=model(service=service), services={"magika": {}}, linger=linger)
    assert what in fault.what
    assert fix in fault.fix


def test_a_service_that_runs_is_well() -> None:
    assert judged(status=model(service={"active": "active"}), services={"magika": {}}) == []


def test_what_interrupted_pushes_left_is_advice_that_names_it() -> None:
    left = [
        {"kind": "seed", "path": "/srv/seed/incoming/aa.part", "bytes": 2_000_000},
        {"kind": "seed", "path": "/srv/seed/incoming/bb.part", "bytes": 500_000},
        {"kind": "runtime", "path": "/srv/seed/runtime/0.1.0-00000000.new", "bytes": 1},
        {"kind": "wheel", "path": "/srv/seed/runtime/.wheels/numpy-2.0-cp311.whl", "bytes": 9_000_000},
        {"kind": "wheel", "path": f"/srv/seed/runtime/.wheels/onnx-1-cp311.whl.{'a' * 16}.part", "bytes": 3_000_000},
    ]
    seeds, runtime, wheels = judged(leftovers=left)
    assert "2 unfinished seeds of 2.5 MB" in seeds.what
    assert "/srv/seed/incoming/aa.part" in seeds.fix
    assert "1 unfinished runtime" in runtime.what
    assert "2 unfinished wheels of 12.0 MB: numpy-2.0-cp311.whl, onnx-1-cp311.whl" in wheels.what
    assert "continues with what has arrived" in wheels.fix
    assert "rm -r /srv/seed/runtime/.wheels/numpy-2.0-cp311.whl" in wheels.fix
    assert {seeds.severity, runtime.severity, wheels.severity} == {"advice"}


def test_faults_come_before_advice() -> None:
    found = judged({"ram_available": 1, "venv": False}, leftovers=[{"kind": "seed", "path": "/p", "bytes": 1}])
    assert [fault.severity for fault in found] == ["fault", "advice", "advice"]


def test_it_says_how_to_export_for_the_device(capsys: pytest.CaptureFixture[str]) -> None:
    answer = doctor_command._processor_answer({**BOARD, "instructions": ["asimddp", "i8mm"]})
    assert answer is not None
    assert (answer["machine"], answer["instructions"], answer["dtype"]) == ("arm64", ["asimddp", "i8mm"], "int8")
    value = {"faults": [], "pythons": [], "processor": answer}
    doctor_command._print_faults([Outcome(Target("pi"), value, None, 0.0)])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(
        "pi: models for it: seed-export MODEL --dtype auto --for arm64+asimddp+i8mm: int8, as it has"
    )


def test_it_says_nothing_of_exports_for_a_device_that_runs_no_model() -> None:
    assert doctor_command._processor_answer({**BOARD, "bits": 32}) is None
    assert doctor_command._processor_answer(None) is None


# On a device behind a real sshd


def examined(device: Device) -> list[Fault]:
    with Connection(device.alias, config=device.config) as connection:
        return doctor.examine(connection, fake_wheels.facts(connection))


def started(device: Device) -> Path:
    return device.store / "runtime" / "current" / "bin" / "python"


@pytest.mark.slow
def test_a_device_that_is_well_has_no_faults(device: Device) -> None:
    before = sorted(path for path in device.store.rglob("*") if "__pycache__" not in path.parts)
    assert examined(device) == []
    assert sorted(path for path in device.store.rglob("*") if "__pycache__" not in path.parts) == before


@pytest.mark.slow
def test_several_faults_of_one_device_are_found_at_once(device: Device) -> None:
    (device.store / "incoming").mkdir()
    (device.store / "incoming" / f"{'c' * 64}.part").write_bytes(bytes(1000))
    (device.store / "runtime" / f"{__version__}-11111111.new").mkdir()
    started(device).write_text("#!/bin/sh\necho Illegal instruction >&2\nexit 132\n")
    broken, seeds, runtime = examined(device)
    assert (broken.severity, broken.why) == ("fault", "no model runs: Illegal instruction")
    assert f"push MODEL.seed {device.alias}" in broken.fix
    assert (seeds.severity, runtime.severity) == ("advice", "advice")


@pytest.mark.slow
def test_a_runtime_whose_python_is_gone_is_incomplete(device: Device) -> None:
    started(device).unlink()
    (fault,) = examined(device)
    assert fault.what == "the runtime is incomplete"


@pytest.mark.slow
def test_a_damaged_model_is_found(device: Device) -> None:
    version = device.model("magika") / "versions" / DIGESTS[0]
    version.mkdir(parents=True)
    (version / "model.seed").write_bytes(b"no seed at all")
    (version / "record.json").write_text(json.dumps({"digest": DIGESTS[0], "bytes": 14, "weights_bytes": 1}))
    (device.model("magika") / "current").symlink_to(f"versions/{DIGESTS[0]}")
    (fault,) = examined(device)
    assert "magika: the running version aaaaaaaaaaaa is damaged" in fault.what


@pytest.mark.slow
def test_a_device_without_a_runtime_is_advised_to_take_a_push(make_device: MakeDevice) -> None:
    device = make_device(runtime=False)
    (advice,) = examined(device)
    assert (advice.severity, advice.what) == ("advice", "there is no runtime yet")


@pytest.mark.slow
def test_a_device_without_python_is_told_the_package(make_device: MakeDevice, tmp_path: Path) -> None:
    for name in ("sh", "cat"):
        (tmp_path / name).symlink_to(f"/bin/{name}")
    device = make_device(runtime=False, environment={"PATH": str(tmp_path)})
    with Connection(device.alias, config=device.config) as connection:
        (fault,) = doctor.examine(connection, None)
    assert fault.what == "python3 is missing"
    assert "sudo apt install python3" in fault.fix


def test_a_device_that_files_cant_be_sent_to_is_found(make_device: MakeDevice, tmp_path: Path) -> None:
    programs = fake_wheels.python_folder(tmp_path / "bin")
    for name in ("sh", "cat", "ls", "sleep"):
        (programs / name).symlink_to(shutil.which(name) or "")
    device = make_device(runtime=False, environment={"PATH": str(programs)})
    with Connection(device.alias, config=device.config) as connection:
        faults = doctor.examine(connection, fake_wheels.facts(connection))
    (fault,) = [fault for fault in faults if "file" in fault.what]
    assert fault.severity == "fault"
    assert fault.what.startswith("no file can be sent to it: the file can't be written there: sh: ")
    assert fault.what.endswith("dd: not found")
    assert fault.fix == "sudo apt install coreutils"
