"""Many devices at once: each for itself, one line each, one exit code for all."""

from __future__ import annotations

import getpass
import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from seed_devices.errors import FleetError, UnreachableError
from seed_devices.fleet import parallel
from seed_devices.fleet.parallel import Access, Outcome, combined_error, open_connection, run_on_each
from seed_devices.fleet.target import Target
from tests.devices.support.commands import deploy, environment, hosts, stderr_of
from tests.devices.support.proxy import Proxy
from tests.devices.support.seeds import EXAMPLE, EXAMPLE_NAME, make_seed
from tests.devices.support.sshd import Device, MakeDevice, Sshd, make_key
from tests.support.ports import free_port

MANY = 50
PEAK_MAX = 100_000_000


def outcome(host: str, error: Exception | None) -> Outcome[str]:
    return Outcome(Target(host), None if error else "fine", error, 0.1)


def test_one_device_has_its_own_code_and_several_that_of_a_fleet() -> None:
    error = UnreachableError("a", "gone", "look")
    assert combined_error([outcome("a", None)]) is None
    assert combined_error([outcome("a", error)]) is error
    several = combined_error([outcome("a", error), outcome("b", None), outcome("c", error)])
    assert isinstance(several, FleetError)
    assert (several.failed, several.total, several.exit_code) == (2, 3, 30)


@pytest.mark.slow
def test_a_fleet_gets_what_it_can_and_a_second_call_does_the_rest(sshd: Sshd, tmp_path: Path) -> None:
    devices = [sshd.device(f"fleet{number}") for number in range(3)]
    late = make_key(sshd.folder / "key-fleet-late")
    sshd.alias("fleet-late", late, port=free_port())
    inventory = tmp_path / "hosts.toml"
    names = [*(device.alias for device in devices), "fleet-late"]
    inventory.write_text("".join(f'[[host]]\ntarget = "{name}"\nname = "bell"\n' for name in names))
    done = deploy(sshd.config, "push", EXAMPLE, "--inventory", inventory)
    assert done.returncode == 30
    assert stderr_of(done).endswith(
        "1 of 4 hosts failed, see their lines; run the same command again: it does only what is missing\n"
    )
    assert sum(line.startswith("[") for line in stderr_of(done).splitlines()) == 4
    table = [line.split()[:3] for line in done.stdout.decode().splitlines()[1:]]
    assert table == [*([device.alias, "bell", "pushed"] for device in devices), ["fleet-late", "bell", "failed"]]
    found = hosts(sshd.config, "push", EXAMPLE, "--inventory", inventory)
    assert [host.get("state") for host in found] == ["unchanged"] * 3 + [None]
    assert (found[3]["ok"], found[3]["exit"], found[3]["kind"]) == (False, 20, "UnreachableError")


def test_what_fails_on_one_device_leaves_the_others_alone(sshd: Sshd, device: Device) -> None:
    found = hosts(sshd.config, "status", "no.such.host.invalid", device.alias)
    assert [host["ok"] for host in found] == [False, True]


@pytest.mark.slow
def test_two_boards_behind_one_address_are_two_rows_with_names_to_paste(sshd: Sshd) -> None:
    # Both ports lead to the same board here; what tells them apart is what is tested.
    board = sshd.device("behind")
    user = getpass.getuser()
    sshd.alias("127.0.0.1", sshd.key_of(board))
    with Proxy(sshd.port) as other:
        names = [f"ssh://{user}@127.0.0.1:{port}" for port in (sshd.port, other.port)]
        found = hosts(sshd.config, "push", EXAMPLE, *(f"{name}/{EXAMPLE_NAME}" for name in names))
        assert [host["host"] for host in found] == names
        assert sorted(host["state"] for host in found) in (["pushed", "unchanged"], ["unchanged", "unchanged"])
        rows = deploy(sshd.config, "status", *names).stdout.decode().splitlines()[1:]
        assert [row.split()[:2] for row in rows] == [[name, EXAMPLE_NAME] for name in names]
        done = deploy(sshd.config, "rollback", names[1])
        assert stderr_of(done).startswith(f"seed-deploy: {names[1]}: {EXAMPLE_NAME}: no other version ran before")
        done = deploy(sshd.config, "push", EXAMPLE, f"{names[1]}/other")
        assert f"run it: seed-deploy run {names[1]}/other --input" in done.stdout.decode()


class Crowded(Proxy):
    """A host that closes the first `refused` connections before the login, as MaxStartups lets an sshd do."""

    def __init__(self, target: int, refused: int) -> None:
        self.refused, self.asked = refused, 0
        super().__init__(target)

    def _serve(self, near: socket.socket) -> None:
        self.asked += 1
        if self.asked <= self.refused:
            near.sendall(b"Exceeded MaxStartups\r\n")
            near.close()
        else:
            super()._serve(near)


@pytest.mark.slow
def test_logins_that_are_too_many_at_a_time_are_tried_again(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    # More tries than refusals, since the first device may meet all of these before the others have begun.
    monkeypatch.setattr(parallel, "RETRY_S", (0.01, 0.02, 0.04, 0.08, 0.16))
    with Crowded(sshd.port, refused=5) as host:
        targets = [Target(sshd.device(f"crowded{number}", port=host.port).alias) for number in range(4)]
        outcomes = run_on_each(
            targets, lambda _, connection: connection.run("echo in").text, access=Access(sshd.config)
        )
    assert [outcome.value for outcome in outcomes] == ["in\n"] * 4
    assert host.asked == 9


@pytest.mark.slow
def test_a_command_for_one_device_tries_again_as_well(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "RETRY_S", (0.01, 0.02))
    with Crowded(sshd.port, refused=2) as host:
        target = Target(sshd.device("crowded-run", port=host.port).alias)
        with open_connection(target, Access(sshd.config)) as connection:
            assert connection.run("echo in").text == "in\n"


@pytest.mark.slow
def test_logins_that_stay_too_many_are_an_error_with_what_to_change(
    sshd: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "RETRY_S", (0.01, 0.02))
    with Crowded(sshd.port, refused=100) as host:
        target = Target(sshd.device("full", port=host.port).alias)
        (found,) = run_on_each([target], lambda _, connection: connection.run("true"), access=Access(sshd.config))
    assert host.asked == 3
    assert isinstance(found.error, UnreachableError)
    assert "3 times; a host on the way may allow too few logins" in str(found.error)


def test_a_connection_that_was_lost_is_not_begun_again() -> None:
    assert not parallel._CROWDED.match("the connection was lost (Connection closed by 10.0.0.7 port 22)")
    assert not parallel._CROWDED.match("Connection refused")


@pytest.mark.slow
def test_max_rate_is_shared_by_all_devices_of_a_call(make_device: MakeDevice, tmp_path: Path) -> None:
    devices = [make_device() for _ in range(6)]
    config = devices[0].config
    seed = make_seed(tmp_path / "s.seed", width=256)
    size, rate = seed.stat().st_size, 300_000
    names = [device.alias for device in devices]
    begin = time.monotonic()
    found = hosts(config, "push", seed, *names, "--max-rate", f"{rate}")
    assert {host["state"] for host in found} == {"pushed"}
    assert time.monotonic() - begin > 5 * size / rate
    found = hosts(config, "push", seed, *(f"{name}:other" for name in names), "--max-rate-per-device", f"{rate}")
    assert max(host["seconds"]["transfer"] for host in found) < 4 * size / rate


MEASURED = """
import sys
from seed_devices.cli import main
from seed_runtime.memory.process import peak_rss
code = main(sys.argv[1:])
print(peak_rss(), file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.slow
def test_fifty_devices_in_parallel_take_less_than_100_megabytes_here(sshd: Sshd) -> None:
    devices = sshd.fleet(MANY)
    words = ["push", str(EXAMPLE), *(device.alias for device in devices), "--parallel", str(MANY), "--json", "-q"]
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *words], capture_output=True, env=environment(sshd.config), check=False
    )
    peak = int(stderr_of(done).splitlines()[-1])
    print(f"{MANY} devices in parallel: {peak / 1e6:.1f} MB at most in the own process")
    assert done.returncode == 0, stderr_of(done)
    assert {host["state"] for host in json.loads(done.stdout)["hosts"]} == {"pushed"}
    assert all((device.model(EXAMPLE_NAME) / "current" / "model.seed").exists() for device in devices)
    assert peak < PEAK_MAX
