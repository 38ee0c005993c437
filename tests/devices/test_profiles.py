"""Profiles of devices: recognised from what real boards tell, refused where a file is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from seed_devices import profiles
from seed_devices.profiles.profile import FILE_MAX
from seed_runtime.errors import UnsupportedError, UsageError
from tests.support.project import ROOT

FOLDER = ROOT / "devices" / "seed_devices" / "profiles"


def facts(**changed: Any) -> dict[str, Any]:
    """What an arm64 board with Debian tells."""
    return {"machine": "aarch64", "bits": 64, "libc": ["glibc", "2.36"], "model": None, "termux": False, **changed}


# What /proc/device-tree/model says on these boards, as their owners published it.
@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("Raspberry Pi Zero 2 W Rev 1.0", "raspberry-pi-zero-2w"),
        ("Raspberry Pi 2 Model B Rev 1.2", "raspberry-pi-3"),
        ("Raspberry Pi 3 Model B Rev 1.2", "raspberry-pi-3"),
        ("Raspberry Pi 3 Model B Plus Rev 1.3", "raspberry-pi-3"),
        ("Raspberry Pi 3 Model A Plus Rev 1.0", "raspberry-pi-3"),
        ("Raspberry Pi Compute Module 3 Plus Rev 1.0", "raspberry-pi-3"),
        ("Raspberry Pi 4 Model B Rev 1.4", "raspberry-pi-4"),
        ("Raspberry Pi 400 Rev 1.0", "raspberry-pi-4"),
        ("Raspberry Pi Compute Module 4 Rev 1.1", "raspberry-pi-4"),
        ("Raspberry Pi 5 Model B Rev 1.0", "raspberry-pi-5"),
        ("Raspberry Pi 500 Rev 1.0", "raspberry-pi-5"),
        ("Raspberry Pi Compute Module 5 Rev 1.0", "raspberry-pi-5"),
        ("OrangePi Zero2 W", "arm64"),
        ("NVIDIA Jetson Orin NX Engineering Reference Developer Kit", "arm64"),
        (None, "arm64"),
    ],
)
def test_a_board_is_recognised_by_the_model_that_its_device_tree_tells(model: str | None, name: str) -> None:
    assert profiles.match(facts(model=model)).name == name


def test_a_32_bit_system_on_a_64_bit_kernel_is_a_32_bit_board() -> None:
    board = facts(model="Raspberry Pi 4 Model B Rev 1.4", bits=32)
    assert profiles.match(board).name == "armv7"
    assert not profiles.match(board).inference


@pytest.mark.parametrize("machine", ["armv7l", "armv8l"])
def test_a_32_bit_kernel_is_a_32_bit_board_whatever_it_runs_on(machine: str) -> None:
    board = facts(machine=machine, bits=32, model="Raspberry Pi 3 Model B Rev 1.2")
    assert profiles.match(board).name == "armv7"
    assert "--verify" in profiles.match(board).note


def test_other_names_for_the_same_machines_are_understood() -> None:
    assert profiles.match(facts(machine="arm64")).name == "arm64"
    assert profiles.match(facts(machine="amd64")).name == "x86-64"


def test_termux_is_recognised_by_its_own_c_library() -> None:
    phone = profiles.match(facts(termux=True, libc=["bionic", ""]))
    assert (phone.name, phone.supported, phone.port, phone.service) == ("termux", False, 8022, False)
    assert "proot-distro" in phone.note


def test_debian_beside_termux_is_an_arm64_board() -> None:
    assert profiles.match(facts(termux=True, libc=["glibc", "2.41"])).name == "arm64"


@pytest.mark.parametrize(("machine", "bits"), [("armv6l", 32), ("riscv64", 64), ("x86_64", 32), ("", 64)])
def test_an_unknown_machine_is_refused_with_those_that_are_known(machine: str, bits: int) -> None:
    with pytest.raises(UnsupportedError, match=r"knows aarch64, armv7l, x86_64; use a 64-bit"):
        profiles.match(facts(machine=machine, bits=bits))


def test_the_wheel_tags_go_from_the_newest_that_the_c_library_admits_to_the_oldest() -> None:
    wheels = profiles.match(facts()).wheels
    assert wheels is not None
    tags = wheels.tags((2, 28))
    assert tags[:2] == ["manylinux_2_28_aarch64", "manylinux_2_27_aarch64"]
    assert tags[-2:] == ["manylinux_2_17_aarch64", "manylinux2014_aarch64"]
    assert wheels.tags((2, 12)) == []


def test_every_name_of_a_manylinux_tag_is_there_on_x86_64() -> None:
    wheels = profiles.match(facts(machine="x86_64")).wheels
    assert wheels is not None
    assert {"manylinux1_x86_64", "manylinux2010_x86_64", "manylinux2014_x86_64"} < set(wheels.tags((2, 36)))


@pytest.mark.parametrize(
    ("reported", "processor"),
    [
        ({"model": "Raspberry Pi 4 Model B Rev 1.4", "instructions": []}, "arm64"),
        ({"model": "Raspberry Pi 5 Model B Rev 1.0", "instructions": ["asimddp"]}, "arm64+asimddp"),
        # As the agent of an older runtime reports it.
        ({"model": "Raspberry Pi 5 Model B Rev 1.0"}, "arm64+asimddp"),
        ({"model": "Raspberry Pi Zero 2 W Rev 1.0", "instructions": None}, "arm64"),
        ({"model": "OrangePi Zero2 W"}, "arm64"),
        ({"machine": "x86_64", "instructions": ["avx2", "avx512_vnni", "; reboot"]}, "x86-64+avx2+avx512_vnni"),
        ({"bits": 32, "instructions": ["asimddp"]}, None),
        ({"machine": "riscv64"}, None),
        ({"termux": True, "libc": ["bionic", ""], "instructions": ["asimddp"]}, None),
    ],
)
def test_a_processor_is_what_the_device_reports_or_that_of_its_board(
    reported: dict[str, Any], processor: str | None
) -> None:
    found = profiles.processor(facts(**reported))
    assert (None if found is None else str(found)) == processor


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_every_file_is_a_profile_that_some_device_matches(path: Path) -> None:
    profile = profiles.parse(path.stem, path.read_bytes())
    libc = ["bionic", ""] if profile.termux else ["glibc", "2.36"]
    bits = 32 if profile.machines[0] == "armv7l" else 64
    model = profile.models[0] if profile.models else None
    told = facts(machine=profile.machines[0], bits=bits, model=model, termux=profile.termux, libc=libc)
    assert profiles.match(told) == profile
    assert profile.inference == (profile.wheels is not None)


@pytest.mark.parametrize("profile", profiles.load().values(), ids=lambda profile: profile.name)
def test_the_documents_tell_what_the_profiles_hold(profile: profiles.Profile) -> None:
    rows = [line.split("|")[1:-1] for line in (ROOT / "docs" / "devices.md").read_text().splitlines()]
    (row,) = (row for row in rows if row and row[0].strip() == profile.title)
    sizes = sorted({min(profile.ram), max(profile.ram)} - {0})
    ram = " to ".join(f"{size >> 20:,}" for size in sizes) + " MiB"
    installed = ", ".join(profile.installed) or "none of these"
    assert [cell.strip() for cell in row[1:6]] == [ram, str(profile.cores), profile.cpu, profile.system, installed]


GOOD = """\
title = "T"
ram_mib = [512]
cores = 4
cpu = "C"
system = "S"
installed = []
[recognise]
machines = ["aarch64"]
[wheels]
machine = "aarch64"
oldest_glibc = "2.17"
"""


def test_a_new_profile_is_one_file() -> None:
    board = profiles.parse("board", GOOD.encode())
    assert (board.name, board.ram, board.port, board.wheels is not None) == ("board", (512 << 20,), 22, True)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('title = "T"', "", "title must be given as str"),
        ("cores = 4", "cores = true", "cores must be given as int"),
        ("cores = 4", "cores = 0", "must be above 0"),
        ("[512]", '["512"]', "ram_mib must be a list of int"),
        ("[512]", "[]", "need at least one entry each"),
        ("cores = 4", "cores = 4\nram = 1", "ram is no key"),
        ("cores = 4", 'cores = 4\nboard = "pi9"', "no board is called 'pi9'; use one of pi3"),
        ('["aarch64"]', '["aarch64"]\nos = "x"', r"\[recognise\]: os is no key"),
        ('"2.17"', '"9"', "no version of glibc"),
        ('"2.17"', '"2.99999999"', "no version of glibc"),
        ('"S"', '"S"\ninference = false', "needs a note"),
        ('"S"', '"S"\nport = 70000', "port"),
        ("[512]", "[", "correct the file"),
    ],
)
def test_a_wrong_profile_is_refused_with_the_key_that_is_wrong(old: str, new: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        profiles.parse("board", GOOD.replace(old, new).encode())
    assert "profile board" in str(caught.value) or "glibc" in said


def test_a_profile_without_wheels_must_say_that_it_runs_nothing() -> None:
    with pytest.raises(UsageError, match="inference = false"):
        profiles.parse("board", GOOD.partition("[wheels]")[0].encode())


def test_a_profile_of_an_absurd_size_is_refused() -> None:
    with pytest.raises(UsageError, match="limit"):
        profiles.parse("board", b"#" * (FILE_MAX + 1))


def test_two_profiles_for_the_same_devices_are_refused() -> None:
    with pytest.raises(UsageError, match="both recognise every aarch64"):
        profiles.check_disjoint([profiles.parse("one", GOOD.encode()), profiles.parse("two", GOOD.encode())])
