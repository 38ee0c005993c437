"""How devices are written on the command line and in an inventory."""

from __future__ import annotations

from pathlib import Path

import pytest

from seed_devices import names
from seed_devices.fleet import inventory
from seed_devices.fleet.target import Target, parse
from seed_runtime.errors import InputError, UsageError


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("porch", Target("porch")),
        ("pi@porch.local", Target("pi@porch.local")),
        ("pi@porch:doorbell", Target("pi@porch", "doorbell")),
        ("10.0.0.7:a.b-c_2", Target("10.0.0.7", "a.b-c_2")),
        ("pi@[fe80::1]:doorbell", Target("pi@fe80::1", "doorbell")),
        ("[::1]", Target("::1")),
        ("ssh://pi@porch:8022/doorbell", Target("pi@porch", "doorbell", 8022)),
        ("ssh://[::1]:22", Target("::1", None, 22)),
        ("ssh://porch", Target("porch")),
        ("pi@porch:8022", Target("pi@porch", None, 8022)),
        ("[::1]:8022", Target("::1", None, 8022)),
        ("pi@[fe80::1%eth0]:22", Target("pi@fe80::1%eth0", None, 22)),
        ("ssh://porch/8022", Target("porch", "8022")),
    ],
)
def test_a_device_is_a_host_and_perhaps_a_model(text: str, target: Target) -> None:
    assert parse(text) == target


@pytest.mark.parametrize(
    "text",
    [
        "", "-oProxyCommand=x", "pi@", "@porch", "a b", "fe80::1", "porch:", "porch:../x", "porch:a/b", "porch:.hidden",
        "ssh://porch:99999", "ssh://porch:0", "ssh://", "porch:" + "n" * 65, "a" * 600, "po\nrch", "ssh://-oX", "h:n:m",
        "porch:0", "porch:65536", "porch:" + "9" * 300, "porch:²",
    ],
)  # fmt: skip
def test_what_is_no_device_is_refused(text: str) -> None:
    if text == "ssh://-oX":
        assert parse(text).host == "-oX"  # refused by the connection
        return
    with pytest.raises(UsageError):
        parse(text)


@pytest.mark.parametrize(
    ("text", "device", "model", "ssh", "known"),
    [
        ("pi@porch", "pi@porch", "pi@porch:bell", "pi@porch", "porch"),
        ("[::1]", "[::1]", "[::1]:bell", "::1", "::1"),
        ("pi@[fe80::1%eth0]", "pi@[fe80::1%eth0]", "pi@[fe80::1%eth0]:bell", "pi@fe80::1%eth0", "fe80::1%eth0"),
        (
            "ssh://pi@porch:8022",
            *("ssh://pi@porch:8022", "ssh://pi@porch:8022/bell"),
            "-p 8022 pi@porch",
            "[porch]:8022",
        ),
        ("ssh://[::1]:8022", "ssh://[::1]:8022", "ssh://[::1]:8022/bell", "-p 8022 ::1", "[::1]:8022"),
        ("ssh://porch:22", "ssh://porch:22", "ssh://porch:22/bell", "-p 22 porch", "porch"),
        ("ssh://porch", "porch", "porch:bell", "porch", "porch"),
    ],
)
def test_a_device_has_a_name_that_can_be_pasted_to_seed_deploy_and_to_ssh(
    text: str, device: str, model: str, ssh: str, known: str
) -> None:
    target = parse(text)
    assert (target.device, str(target), target.of("bell")) == (device, device, model)
    assert (names.ssh_words(device), names.known_name(device)) == (ssh, known)
    assert parse(target.device) == target
    assert parse(target.of("bell")) == parse(text, "bell")


def test_two_boards_behind_one_address_are_two_devices() -> None:
    first, second = parse("ssh://pi@gate:2201/bell"), parse("ssh://pi@gate:2202/bell")
    assert len({str(first), str(second)}) == len({first.device, second.device}) == 2


@pytest.mark.parametrize(
    ("text", "better"),
    [("pi@porch:8022:bell", "ssh://pi@porch:8022/bell"), ("[::1]:22/bell", r"ssh://\[::1\]:22/bell")],
)
def test_a_port_and_a_name_are_written_as_an_address(text: str, better: str) -> None:
    with pytest.raises(UsageError, match=f"write {better}$"):
        parse(text)
    assert parse(better.replace("\\", "")).name == "bell"


def test_a_port_of_an_inventory_leaves_the_name_to_its_key() -> None:
    assert parse("gate:2201", "bell") == parse("ssh://gate:2201/bell")


def write(folder: Path, text: str) -> Path:
    path = folder / "hosts.toml"
    path.write_text(text)
    return path


FLEET = """
[[host]]
target = "pi@porch"
name = "doorbell"
groups = ["outside", "camera"]

[[host]]
target = "gate"
groups = ["outside"]

[[host]]
target = "ssh://cellar:8022/heating"
name = "ignored"
"""


def test_an_inventory_lists_devices_and_groups_choose_from_it(tmp_path: Path) -> None:
    path = write(tmp_path, FLEET)
    porch, gate, cellar = Target("pi@porch", "doorbell"), Target("gate"), Target("cellar", "heating", 8022)
    assert inventory.load(path) == [porch, gate, cellar]
    assert inventory.load(path, ["outside"]) == [porch, gate]
    assert inventory.load(path, ["camera"]) == [porch]
    with pytest.raises(UsageError, match="it has: camera, outside"):
        inventory.load(path, ["inside"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "lists no"),
        ("host = 3", "lists no"),
        ("[[hosts]]\ntarget = 'a'", "'hosts' is no key"),
        ("[[host]]\nname = 'a'", "host 1: it has no target"),
        ("[[host]]\ntarget = 3", "target must be a text"),
        ("[[host]]\ntarget = 'a'\ngroups = [1]", "groups must be a list of texts"),
        ("[[host]]\ntarget = 'a'\ngroups = 'x'", "groups must be a list of texts"),
        ("[[host]]\ntarget = 'a'\nport = 22", "'port' is no key of a host"),
        ("[[host]]\ntarget = 'a'\n[[host]]\ntarget = 'a'", "a stands twice"),
        ("[[host]]\ntarget = 'a'\n[[host]]\ntarget = '-b'", "host 2: '-b' is no device"),
        ("[[host]", "correct it"),
        ("#" * (1 << 20) + "\n", "more than 1,048,576 bytes"),
    ],
)
def test_what_is_wrong_in_an_inventory_is_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        inventory.load(write(tmp_path, text))


def test_an_inventory_that_isnt_there_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--inventory"):
        inventory.load(tmp_path / "none.toml")
