"""What is found out about a seed and a device before anything is sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from seed_devices import profiles
from seed_devices.errors import RemoteError
from seed_devices.push import one_device, preflight
from seed_runtime.errors import NotASeedError, UsageError
from tests.devices.support.pushing import send
from tests.devices.support.seeds import EXAMPLE, make_seed
from tests.devices.support.sshd import Device
from tests.support.decoder_model import decoder_seed
from tests.support.described_models import color_seed
from tests.support.seed_builder import build_seed
from tests.support.wrong_files import POINTER

GOOD: dict[str, Any] = {
    "store": "/store", "store_writable": True, "disk_free": 1 << 30, "ram": 1 << 30, "ram_available": 1 << 29,
    "systemd_user": True, "ssh_keygen": True, "signers": False, "clock": 2_000_000_000,
}  # fmt: skip


def check(**changed: Any) -> list[str]:
    asked = {"max_memory": None, "bytes_to_send": 700, "service": False, "runtime_due": False}
    asked |= {key: changed.pop(key) for key in list(changed) if key in asked}
    profile = profiles.load()[changed.pop("profile", "raspberry-pi-4")]
    return preflight.check(preflight.load(EXAMPLE), "pi@h", GOOD | changed, profile, **asked)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "code", "text"),
    [
        ({"store_writable": False}, 12, "sudo mount -o remount,rw"),
        ({"disk_free": 1_000_000}, 13, "seed-deploy remove pi@h:NAME"),
        ({"ram": 20 << 20}, 14, "the device has 20 MiB"),
        ({"onnxruntime": "1.18.1"}, 12, "its ONNX Runtime is 1.18.1 and tiny 1 needs 1.19 or newer"),
        ({"systemd_user": False, "service": True}, 12, "loginctl enable-linger"),
        ({"systemd_user": False, "systemd": False, "service": True}, 12, "seed-run model.seed --serve"),
        ({"profile": "termux", "service": True}, 12, "no systemd runs there"),
        ({"signers": True}, 11, "seed-export --sign KEY"),
    ],
)
def test_what_the_device_cant_do_is_said_with_its_step(changed: dict[str, Any], code: int, text: str) -> None:
    with pytest.raises(RemoteError) as caught:
        check(**changed)
    assert caught.value.exit_code == code
    assert text in str(caught.value)
    assert str(caught.value).startswith("pi@h: ")


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"clock": 0}, "its clock was never set"),
        ({"ram_available": 1 << 20}, "1 MiB are free there now"),
        ({"profile": "armv7"}, "verified and assembled"),
    ],
)
def test_what_may_matter_is_noted(changed: dict[str, Any], text: str) -> None:
    (note,) = check(**changed)
    assert text in note


def test_a_device_that_does_not_tell_its_memory_has_that_of_its_kind(tmp_path: Path) -> None:
    seed = preflight.load(make_seed(tmp_path / "greedy.seed", working_bytes=600 << 20))
    asked: dict[str, Any] = {"max_memory": None, "bytes_to_send": 700, "service": False}
    facts = {**GOOD, "ram": None, "ram_available": None}
    assert preflight.check(seed, "h", facts, profiles.load()["raspberry-pi-5"], **asked) == []
    with pytest.raises(RemoteError, match="the device has 512 MiB"):
        preflight.check(seed, "h", facts, profiles.load()["raspberry-pi-zero-2w"], **asked)
    assert preflight.check(seed, "h", facts, profiles.load()["arm64"], **asked) == []


def test_a_device_that_cannot_check_the_signature_it_asks_for_is_sent_nothing() -> None:
    asked: dict[str, Any] = {"max_memory": None, "bytes_to_send": 700, "service": False}
    signed = replace(preflight.load(EXAMPLE), signer="a key")
    assert preflight.check(signed, "pi@h", GOOD | {"signers": True}, None, **asked) == []
    assert preflight.check(signed, "pi@h", GOOD | {"ssh_keygen": False}, None, **asked) == []
    with pytest.raises(RemoteError, match=r"pi@h: it has no ssh-keygen .* sudo apt install openssh-client") as caught:
        preflight.check(signed, "pi@h", GOOD | {"signers": True, "ssh_keygen": False}, None, **asked)
    assert caught.value.exit_code == 11


def test_an_old_onnx_runtime_does_not_matter_where_the_push_installs_one() -> None:
    assert check(onnxruntime="1.18.1", runtime_due=True) == []
    assert check(onnxruntime="1.19.0") == check(onnxruntime="unknown") == []


def test_a_good_device_needs_no_note() -> None:
    assert check() == []
    assert check(disk_free=1_000_000, disk_cached=64 << 20) == []  # which makes way there
    assert check(disk_free=None, ram=None, ram_available="?", clock=None) == []


def test_a_model_id_that_is_no_name_gives_way_to_the_files(tmp_path: Path) -> None:
    odd = make_seed(tmp_path / "fine.seed", model_id="acme/net")
    assert preflight.load(odd).default_name == "fine"
    with pytest.raises(UsageError, match="give another one, HOST:NAME"):
        _ = preflight.load(odd.rename(tmp_path / "not fine.seed")).default_name


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data[:-1] + bytes([data[-1] ^ 1]), lambda data: b""]
)
def test_a_damaged_seed_is_refused_here(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    (tmp_path / "bad.seed").write_bytes(damage(EXAMPLE.read_bytes()))
    with pytest.raises(RemoteError, match="this seed is damaged, export it again") as caught:
        preflight.load(tmp_path / "bad.seed")
    assert caught.value.exit_code == 10


@pytest.mark.parametrize("field", ["golden_input.kind", "footprint.modes"])
def test_a_seed_whose_sample_or_footprint_cannot_be_read_is_refused_here(tmp_path: Path, field: str) -> None:
    (tmp_path / "m.seed").write_bytes(build_seed({field: b"\x09"}))
    with pytest.raises(RemoteError, match=r"GOLDEN|FOOTPRINT") as caught:
        preflight.load(tmp_path / "m.seed")
    assert caught.value.exit_code == 10


def test_what_was_saved_in_place_of_a_seed_is_named_here(tmp_path: Path) -> None:
    (tmp_path / "m.seed").write_bytes(POINTER)
    with pytest.raises(NotASeedError, match=r"this is a Git LFS pointer .*; fetch the file: git lfs pull"):
        preflight.load(tmp_path / "m.seed")


def test_a_file_that_isnt_there_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give the path of a seed"):
        preflight.load(tmp_path / "none.seed")


@pytest.mark.slow
def test_a_service_is_refused_without_systemd_also_for_a_model_that_is_there(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(device, EXAMPLE)
    board = {**GOOD, "python": "3.11.2", "systemd_user": False, "systemd": False}
    monkeypatch.setattr(one_device, "read_facts", lambda connection, agent: board)
    with pytest.raises(RemoteError, match=r"no systemd runs there, which --service needs; push without --service"):
        send(device, EXAMPLE, service=True)


def test_a_seed_may_be_given_as_a_link(tmp_path: Path) -> None:
    (tmp_path / "link.seed").symlink_to(EXAMPLE)
    assert preflight.load(tmp_path / "link.seed").digest == preflight.load(EXAMPLE).digest


def test_a_seed_says_with_which_packages_its_model_is_asked(tmp_path: Path) -> None:
    found = []
    for data in (EXAMPLE.read_bytes(), color_seed(), decoder_seed()):
        (tmp_path / "model.seed").write_bytes(data)
        found.append(preflight.load(tmp_path / "model.seed").asked_with)
    assert found == [(), ("pictures",), ("text",)]
