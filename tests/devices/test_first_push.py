"""What a first push costs: the runtime's wheels are counted beside the seed, before and while they are sent."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Iterator

import pytest

from seed_devices import doctor, profiles
from seed_devices.cli import push_results, show
from seed_devices.cli.rates import Rates
from seed_devices.errors import RemoteError, WheelsError
from seed_devices.fleet.parallel import Outcome
from seed_devices.fleet.target import Target
from seed_devices.push import preflight, requirements, runtime, wheels
from seed_devices.push.job import Options, PushResult
from seed_devices.push.one_device import push
from seed_devices.push.wheels import Wheelhouse
from seed_devices.ssh.connection import Connection
from seed_runtime.errors import DiskSpaceError
from tests.devices.support import fake_wheels
from tests.devices.support.board import BOARD
from tests.devices.support.pushing import send
from tests.devices.support.seeds import EXAMPLE
from tests.devices.support.sshd import Device


@pytest.fixture
def house(new: Wheelhouse, monkeypatch: pytest.MonkeyPatch) -> Wheelhouse:
    """Return the wheels that this machine has for every device."""
    monkeypatch.setattr(wheels, "collect", lambda *given, **named: new)
    monkeypatch.setattr(requirements, "__version__", new.version)
    return new


def size_of(house: Wheelhouse) -> int:
    return sum(wheel.size for wheel in house.all)


def test_a_dry_run_counts_the_wheels_of_the_runtime(bare: Device, house: Wheelhouse) -> None:
    done = send(bare, EXAMPLE, dry_run=True)
    assert (done.runtime_installed, done.runtime_sent, done.sent) == (True, size_of(house), EXAMPLE.stat().st_size)
    assert not bare.store.exists()


def test_wheels_that_have_arrived_do_not_count(bare: Device, house: Wheelhouse) -> None:
    folder = bare.store / "runtime" / ".wheels"
    folder.mkdir(parents=True)
    whole, half = house.pip, house.needed[1]
    (folder / whole.path.name).write_bytes(whole.path.read_bytes())
    (folder / wheels.part_name(half)).write_bytes(bytes(1000))
    done = send(bare, EXAMPLE, dry_run=True)
    assert done.runtime_sent == size_of(house) - whole.size - 1000


def test_a_dry_run_refuses_a_disk_on_which_the_runtime_does_not_fit(
    bare: Device, house: Wheelhouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    huge = dataclasses.replace(house, own=dataclasses.replace(house.own, unpacked=1 << 50))
    monkeypatch.setattr(wheels, "collect", lambda *given, **named: huge)
    needed = size_of(huge) + huge.unpacked + requirements.DISK_MARGIN
    with pytest.raises(RemoteError, match=rf"^{bare.alias}: the push needs {needed:,} bytes in /") as refused:
        send(bare, EXAMPLE, dry_run=True)
    assert refused.value.exit_code == 13


def test_there_must_be_room_for_the_seed_behind_the_runtime(house: Wheelhouse) -> None:
    profile, seed_bytes = profiles.match(BOARD), 1 << 30
    needed = house.unpacked + seed_bytes + requirements.DISK_MARGIN
    facts = {**BOARD, "store": "/store", "disk_free": needed}
    assert runtime.bytes_to_send(facts, profile, seed_bytes=seed_bytes) == size_of(house)
    with pytest.raises(DiskSpaceError, match=f"the push needs {needed:,} bytes in /store and {needed - 1:,} are free"):
        runtime.bytes_to_send({**facts, "disk_free": needed - 1}, profile, seed_bytes=seed_bytes)


def test_a_dry_run_without_an_index_says_that_it_does_not_know_the_size(
    bare: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def collect(*given: object, **named: object) -> Wheelhouse:
        raise WheelsError("wheels for a Raspberry Pi", "the package index does not answer")

    monkeypatch.setattr(wheels, "collect", collect)
    done = send(bare, EXAMPLE, dry_run=True)
    assert done.runtime_sent is None
    assert "the package index does not answer" in done.notes[-1]


@pytest.mark.slow
def test_progress_counts_wheels_and_seed_as_one(bare: Device, house: Wheelhouse) -> None:
    seen: list[tuple[str, int, int]] = []
    bare.store.mkdir()
    with Connection(bare.alias, config=bare.config) as connection, pytest.raises(Exception, match="does not start"):
        # The fake runtime has no agent, so the push ends after the wheels.
        push(connection, preflight.load(EXAMPLE), None, Options(), lambda *step: seen.append(step))
    totals = {total for phase, _, total in seen if phase == "transfer"}
    assert totals == {size_of(house) + EXAMPLE.stat().st_size}


def outcome(host: str, **fields: object) -> Outcome[PushResult]:
    value = PushResult("bell", "a" * 64, "would push", sent=1000, **fields)  # type: ignore[arg-type]
    return Outcome(Target(host), value, None, 1.0)


def test_a_line_says_all_that_would_be_sent_and_the_time_at_the_rate() -> None:
    text = push_results.result_text(outcome("a", runtime_installed=True, runtime_sent=46_000_000), Rates(200_000))
    assert text.endswith(
        ": it would send the runtime (46 MB) and install it, send 1 KB and switch, 46 MB in all, "
        "which takes 3 min 50 s at 200 KB/s; nothing was written"
    )


def test_totals_count_all_devices() -> None:
    outcomes = [outcome("a", runtime_installed=True, runtime_sent=46_000_000), outcome("b"), outcome("c")]
    assert push_results.totals(outcomes, Rates(1_000_000)) == {
        "sent": 3000, "runtime_sent": 46_000_000, "all_sent": 46_003_000, "transfer_s": 46.003,
    }  # fmt: skip
    assert push_results.totals(outcomes, Rates())["transfer_s"] is None
    assert push_results.totals_text(outcomes, Rates(1_000_000)) == (
        "in all: 46 MB would be sent to 3 devices, 46 MB of them for the runtime, which takes 46 s at 1 MB/s"
    )


@pytest.mark.parametrize(
    ("rates", "seconds"),
    [
        (Rates(100), 6),
        (Rates(None, 100, 3), 3),  # the largest one
        (Rates(None, 100, 1), 6),
        (Rates(None, 300, 1), 2),  # one after the other
        (Rates(50, 300, 3), 12),
        (Rates(), None),
    ],
)
def test_the_time_is_bound_by_the_rate_of_all_and_of_each(rates: Rates, seconds: float | None) -> None:
    assert rates.seconds([100, 200, 300]) == seconds


def test_the_progress_of_a_transfer_is_in_bytes() -> None:
    assert show.phase_text("transfer", 12_300_000, 46_800_000) == "transfer 12.3 MB of 46.8 MB"
    assert show.phase_text("verify", 1, 2) == "verify  50 %"
    assert show.phase_text("connect", 0, 0) == "connect"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (59, "59 s"), (231, "3 min 51 s"), (300, "5 min"), (7200, "2 h"), (7500, "2 h 5 min")],
)
def test_a_time_is_written_for_people(seconds: float, text: str) -> None:
    assert show.duration_text(seconds) == text


@pytest.fixture
def noexec(bare: Device) -> Iterator[Device]:
    """Return a device whose store is on a disk that is mounted noexec."""
    bare.store.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "noexec,size=4m", "none", str(bare.store)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a disk needs root")
    yield bare
    subprocess.run(["umount", "-l", str(bare.store)], check=True)


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_store_that_is_mounted_noexec_is_refused_before_a_byte_is_sent(
    noexec: Device, house: Wheelhouse, dry_run: bool
) -> None:
    with pytest.raises(RemoteError, match=r"is on .*, which is mounted noexec: .*SEED_HOME=.*/seed") as caught:
        send(noexec, EXAMPLE, dry_run=dry_run)
    assert caught.value.exit_code == 12
    assert str(noexec.store) in str(caught.value)
    assert not list(noexec.store.iterdir())


@pytest.mark.slow
def test_the_doctor_names_a_store_that_is_mounted_noexec(noexec: Device) -> None:
    with Connection(noexec.alias, config=noexec.config) as connection:
        fault = doctor.examine(connection, fake_wheels.facts(connection))[0]
    assert (fault.severity, "is mounted noexec" in fault.what) == ("fault", True)
    assert f"remount,exec {noexec.store}" in fault.fix
