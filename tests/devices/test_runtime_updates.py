"""How a newer or a mended runtime reaches a device, and the services that run there."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from seed_devices import doctor
from seed_devices.errors import RemoteError
from seed_devices.push import one_device, preflight, requirements, runtime
from seed_devices.push.job import Options, PushResult
from seed_devices.push.one_device import push
from seed_devices.remote import installer_environment
from seed_devices.remote.agent_client import AgentClient
from seed_devices.remote.facts import read_facts
from seed_devices.ssh.connection import Connection
from seed_runtime.agent import status
from tests.devices.support.board import judged, model
from tests.devices.support.pushing import send
from tests.devices.support.seeds import EXAMPLE, EXAMPLE_NAME
from tests.devices.support.sshd import Device, put_runtime
from tests.support.decoder_model import decoder_seed

BROKEN = "raise ImportError('libopenblas.so.0: cannot open shared object file')\n"


@pytest.fixture
def installs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let an installation put the runtime under test onto the device; the stores that got one."""
    done: list[str] = []

    def install(connection: Connection, facts: dict[str, Any], **options: Any) -> runtime.Installed:
        done.append(facts["store"])
        shutil.rmtree(Path(facts["store"]) / "runtime")
        put_runtime(Path(facts["store"]))
        return runtime.Installed("0.1.0", "", True)

    monkeypatch.setattr(runtime, "install", install)
    return done


def break_numpy(device: Device) -> None:
    """As after an upgrade of the system: the agent starts, and NumPy doesn't."""
    (device.home / "broken").mkdir()
    (device.home / "broken" / "numpy.py").write_text(BROKEN)
    start = device.store / "runtime" / "current" / "bin" / "python"
    start.write_text(start.read_text().replace("PYTHONPATH=", f"PYTHONPATH={device.home}/broken:", 1))


def test_a_runtime_whose_agent_answers_but_whose_libraries_dont_load_is_installed_again(
    device: Device, installs: list[str]
) -> None:
    break_numpy(device)
    done = send(device)
    assert (done.state, done.runtime_installed, installs) == ("pushed", True, [str(device.store)])
    assert "libopenblas.so.0" in done.notes[0]


@pytest.mark.slow
def test_a_broken_runtime_is_mended_by_the_command_that_the_doctor_names(device: Device, installs: list[str]) -> None:
    send(device)
    break_numpy(device)
    with Connection(device.alias, config=device.config) as connection:
        (fault,) = doctor.examine(connection, read_facts(connection, AgentClient(connection)))
    assert "does not start" in fault.what
    assert f"push MODEL.seed {device.alias} --update-runtime" in fault.fix
    done = send(device, update_runtime=True)
    assert (done.state, done.runtime_installed, len(installs)) == ("unchanged", True, 1)


@pytest.mark.slow
def test_a_runtime_without_the_packages_that_a_model_is_asked_with_is_made_anew_when_asked_for(
    device: Device, installs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "decoder.seed").write_bytes(decoder_seed())
    facts: dict[str, Any] = {"tokenizers": None}
    monkeypatch.setattr(one_device, "read_facts", lambda *given: read_facts(*given) | facts)
    done = send(device, tmp_path / "decoder.seed")
    assert (done.state, done.runtime_installed, installs) == ("pushed", False, [])
    (note,) = (each for each in done.notes if "tokenizers" in each)
    assert "lacks tokenizers, so that this model takes tensors alone there; --update-runtime makes it anew" in note
    extras: list[tuple[str, ...]] = []
    install = runtime.install

    def record(*given: Any, **options: Any) -> runtime.Installed:
        extras.append(options["extras"])
        return install(*given, **options)

    monkeypatch.setattr(runtime, "install", record)
    done = send(device, tmp_path / "decoder.seed", update_runtime=True)
    assert (done.state, done.runtime_installed, len(installs)) == ("unchanged", True, 1)
    assert "text" in extras[0]
    facts["tokenizers"] = "0.22.1"
    assert not send(device, tmp_path / "decoder.seed", update_runtime=True).runtime_installed


@pytest.mark.slow
def test_an_older_runtime_is_updated_when_asked_for_though_the_seed_is_unchanged(
    device: Device, installs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    send(device)
    monkeypatch.setattr(requirements, "__version__", "9.0.0")
    assert not send(device).runtime_installed
    assert send(device, update_runtime=True, dry_run=True).state == "would update"
    assert not installs
    assert send(device, update_runtime=True).runtime_installed
    monkeypatch.setattr(requirements, "__version__", "0.1.0")
    assert not send(device, update_runtime=True).runtime_installed


# Services


class Answering:
    """An agent that has these models, and whose services start or don't."""

    def __init__(self, models: list[dict[str, Any]], broken: str | None = None) -> None:
        self.models, self.broken_service = models, broken
        self.runtime, self.start_error = "0.1.0", ""
        self.started: list[dict[str, Any]] = []

    def call(self, op: str, progress: object = None, **fields: Any) -> dict[str, Any]:
        if op == "status":
            return {"models": [each for each in self.models if fields.get("name") in (None, each["name"])]}
        if op == "facts":
            return {"facts": {"python": "3.11.2", "store": "/s"}}
        if op == "begin":
            return {"state": "current", "have": 0, "path": "/p"}
        if op == "service":
            self.started.append(fields)
            if fields["name"] == self.broken_service:
                raise RemoteError(14, "h: it needs more memory; allow more", "MemoryBudgetError")
        return {}

    def close(self) -> None:
        pass


def served(name: str, **service: Any) -> dict[str, Any]:
    digest = preflight.load(EXAMPLE).digest
    told = {"asked": "unix", "memory_asked": 7, "active": "active", "stale": False, **service}
    return {"name": name, "current": digest, "versions": [{"digest": digest}], "service": told}


def update(agent: Answering, monkeypatch: pytest.MonkeyPatch) -> PushResult:
    monkeypatch.setattr(one_device, "AgentClient", lambda connection: agent)
    return push(Connection("h"), preflight.load(EXAMPLE), EXAMPLE_NAME, Options(update_runtime=True))


def test_services_that_run_from_an_older_runtime_are_started_anew_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    models = [served(EXAMPLE_NAME, stale=True), served("new"), served("old", stale=True), served("d", active="failed")]
    agent = Answering([*models, served("stopped", active="inactive"), {**served("bare"), "service": None}])
    update(agent, monkeypatch)
    assert [call["name"] for call in agent.started] == [EXAMPLE_NAME, "old", "d"]
    assert agent.started[0] == {"name": EXAMPLE_NAME, "action": "install", "address": "unix", "memory_max": 7}


def test_a_service_that_does_not_start_with_the_new_runtime_is_told_once_all_else_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agent = Answering([served("a", stale=True), served("b", stale=True)], broken="a")
    with pytest.raises(RemoteError, match=r"the service of a did not restart .* see: seed-deploy logs h:a") as caught:
        update(agent, monkeypatch)
    assert caught.value.exit_code == 14
    assert [call["name"] for call in agent.started] == ["a", "b"]


@contextlib.contextmanager
def running(program: Path) -> Iterator[int]:
    program.parent.mkdir(parents=True)
    program.symlink_to("/bin/sleep")
    process = subprocess.Popen([str(program), "60"])
    try:
        # Popen returns within exec, a moment before the kernel tells the new command.
        while not Path(f"/proc/{process.pid}/cmdline").read_bytes():
            time.sleep(0.01)
        yield process.pid
    finally:
        process.kill()
        process.wait()


def test_a_process_of_another_runtime_is_told_from_one_of_this(tmp_path: Path) -> None:
    with running(tmp_path / "8.0-00000000" / "bin" / "python") as pid:
        assert status.is_stale(pid)
    assert not status.is_stale(os.getpid())
    assert not status.is_stale(None)
    assert not status.is_stale(pid)


def test_a_runtime_that_something_runs_from_is_in_use(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    root = tmp_path / "link"
    with running(root / "8.0-00000000" / "bin" / "python"):
        assert installer_environment.in_use(str(root)) == {"8.0-00000000"}
    assert installer_environment.in_use(str(root)) == set()


def test_the_doctor_advises_to_restart_a_service_of_an_older_runtime() -> None:
    (advice,) = judged(status=model(service={"active": "active", "stale": True}), services={"magika": {}})
    assert advice.severity == "advice"
    assert advice.fix.startswith("seed-deploy push MODEL.seed pi@porch --update-runtime")
