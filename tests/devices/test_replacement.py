"""A push never replaces a model of another id that has the same name, unless the user says so."""

from __future__ import annotations

import os
import pty
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from seed_devices.errors import ReplacementError
from seed_devices.push import one_device, preflight
from seed_devices.push.deliver import Delivery
from seed_devices.push.job import Job, PushResult
from seed_devices.push.routes import Route
from seed_devices.remote.agent_client import AgentClient
from tests.devices.support.commands import COMMAND, environment, hosts
from tests.devices.support.pushing import running_seed, send
from tests.devices.support.seeds import make_seed
from tests.devices.support.sshd import Device, MakeDevice


@pytest.fixture
def seeds(tmp_path: Path) -> tuple[Path, Path]:
    """Return seeds of two models."""
    return make_seed(tmp_path / "dog.seed", model_id="dog"), make_seed(tmp_path / "cat.seed", model_id="cat", version=2)


@pytest.mark.slow
def test_another_model_of_the_same_name_is_replaced_only_when_asked_for(
    device: Device, seeds: tuple[Path, Path]
) -> None:
    dog, cat = seeds
    send(device, dog, "pet")
    for dry_run in (False, True):
        with pytest.raises(
            ReplacementError, match=rf"{device.alias}: pet is dog there, and this seed is cat"
        ) as caught:
            send(device, cat, "pet", dry_run=dry_run)
        assert caught.value.exit_code == 2
    assert running_seed(device, "pet") == dog.read_bytes()
    assert not list((device.store / "incoming").glob("*.part"))
    assert send(device, cat, "pet", replace=True).previous == preflight.load(dog).digest
    # A version that is kept there is no exception: it is another model than the one that runs.
    with pytest.raises(ReplacementError, match="pet is cat there, and this seed is dog"):
        send(device, dog, "pet")
    assert send(device, dog, "pet", replace=True).state == "switched"


@pytest.mark.slow
def test_of_two_first_pushes_at_the_same_moment_the_later_one_is_refused(
    device: Device, seeds: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Both have looked at the device before either has sent anything.
    both = threading.Barrier(2)
    deliver = one_device.deliver

    def deliver_together(job: Job, agent: AgentClient, routes: list[Route]) -> Delivery:
        if not job.options.replace:
            both.wait(timeout=60)
        return deliver(job, agent, routes)

    monkeypatch.setattr(one_device, "deliver", deliver_together)

    def attempt(seed: Path) -> PushResult | ReplacementError:
        try:
            return send(device, seed, "pet")
        except ReplacementError as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(attempt, seeds))
    (error,) = (result for result in results if isinstance(result, ReplacementError))
    (first,) = (result for result in results if isinstance(result, PushResult))
    names = [preflight.load(seed).model.model_id for seed in seeds]
    winner = results.index(first)
    assert (error.there, error.seed) == (names[winner], names[1 - winner])
    assert running_seed(device, "pet") == seeds[winner].read_bytes()
    assert send(device, seeds[1 - winner], "pet", replace=True).state == "switched"


@pytest.mark.slow
def test_another_version_and_another_name_need_no_question(device: Device, tmp_path: Path) -> None:
    first, second = (make_seed(tmp_path / f"{number}.seed", version=number) for number in (1, 2))
    send(device, first)
    assert send(device, second).state == "pushed"
    assert send(device, make_seed(tmp_path / "cat.seed", model_id="cat"), "other").state == "pushed"


@pytest.mark.slow
def test_of_a_fleet_only_the_devices_with_another_model_refuse(
    make_device: MakeDevice, seeds: tuple[Path, Path]
) -> None:
    (dog, cat), (first, second) = seeds, (make_device(), make_device())
    send(first, dog, "pet")
    names = [f"{device.alias}:pet" for device in (first, second)]
    found = hosts(first.config, "push", cat, *names)
    assert [host.get("kind") for host in found] == ["ReplacementError", None]
    assert (found[0]["exit"], "--replace" in found[0]["error"]) == (2, True)
    found = hosts(first.config, "push", cat, *names, "--replace")
    assert [host["state"] for host in found] == ["pushed", "unchanged"]


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"\n", 2)])
def test_on_a_terminal_the_user_is_asked(device: Device, seeds: tuple[Path, Path], answer: bytes, code: int) -> None:
    dog, cat = seeds
    send(device, dog, "pet")
    ours, theirs = pty.openpty()
    command = [*COMMAND, "push", str(cat), f"{device.alias}:pet"]
    process = subprocess.Popen(
        command, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, env=environment(device.config)
    )
    os.close(theirs)
    shown = b""
    while b"[y/N] " not in shown:
        shown += os.read(ours, 1 << 12)
    os.write(ours, answer)
    process.communicate(timeout=60)
    os.close(ours)
    assert b"pet is dog there, this seed is cat" in shown
    assert process.returncode == code
    assert running_seed(device, "pet") == (cat if code == 0 else dog).read_bytes()
