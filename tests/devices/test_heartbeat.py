"""A device that works is heard of all along; one that hangs on a link that stands is given up."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest

from seed_devices.errors import UnreachableError
from seed_devices.push import runtime, wheels
from seed_devices.push.wheel_cache import Wheel
from seed_devices.remote import installer_client
from seed_devices.remote.agent_client import AgentClient
from seed_devices.ssh.connection import Connection
from tests.devices.support import fake_wheels
from tests.devices.support.board import BOARD
from tests.devices.support.sshd import RUNTIME, Device, MakeDevice, Sshd


def agent_of(sshd: Sshd, device: Device) -> int:
    """The process of the agent that runs on this device."""
    for pid in sshd.processes():
        with contextlib.suppress(OSError):
            its = Path(f"/proc/{pid}/environ").read_bytes()
            if b"seed_runtime.agent\0agent" in Path(f"/proc/{pid}/cmdline").read_bytes() and bytes(device.store) in its:
                return pid
    raise AssertionError("no agent runs")


def test_an_agent_that_is_stopped_is_given_up_with_the_next_step(
    sshd: Sshd, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Connection(device.alias, config=device.config) as connection, AgentClient(connection) as agent:
        assert agent.call("status")["ok"]
        monkeypatch.setattr("seed_devices.ssh.connection.SILENCE_S", 0.5)
        pid = agent_of(sshd, device)
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(
                UnreachableError, match=r"nothing was heard .* for 0\.5 s, .*; see what keeps it"
            ) as caught:
                agent.call("status")
        finally:
            os.kill(pid, signal.SIGKILL)
    assert caught.value.exit_code == 20


@pytest.mark.slow
def test_an_agent_that_is_heard_of_may_take_longer_than_the_limit(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = device.store / "runtime" / RUNTIME / "bin" / "python"
    python.write_text(
        '#!/bin/sh\necho \'{"agent": 1, "runtime": "0.1.0", "python": "3.11.2"}\'; read request\n'
        'for beat in 1 2 3 4 5 6 7 8 9 10 11 12 13 14; do echo \'{"progress": ["status", 0, 0]}\'; sleep 0.5; done\n'
        "echo '{\"ok\": true}'; exec cat >/dev/null\n"
    )
    monkeypatch.setattr("seed_devices.ssh.connection.SILENCE_S", 6)
    with Connection(device.alias, config=device.config) as connection, AgentClient(connection) as agent:
        assert agent.call("status") == {"ok": True}


def test_an_installer_that_hangs_is_given_up(
    make_device: MakeDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python3"
    python.write_text('#!/bin/sh\necho \'{"installer": 1, "python": "3.11.2"}\'\nexec cat >/dev/null\n')
    python.chmod(0o755)
    device = make_device(runtime=False, environment={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    monkeypatch.setattr("seed_devices.ssh.connection.SILENCE_S", 0.5)
    house = wheels.Wheelhouse("0.1.0", *(2 * [Wheel(Path("w.whl"), "0" * 64, 1, 1)]), ())
    monkeypatch.setattr(wheels, "collect", lambda *given, **named: house)
    with (
        Connection(device.alias, config=device.config) as connection,
        pytest.raises(UnreachableError, match=r"nothing was heard .* for 0\.5 s"),
    ):
        runtime.install(connection, BOARD)


@pytest.mark.slow
def test_an_installation_is_heard_of_while_pip_works(
    bare: Device, new: wheels.Wheelhouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = installer_client.installer().replace(b"BEAT_S, BEATS = 10, 360", b"BEAT_S, BEATS = 0.05, 9999")
    monkeypatch.setattr(installer_client, "installer", lambda: source)
    steps: list[str] = []
    fake_wheels.install(bare, monkeypatch, new, progress=lambda step, done, total: steps.append(step))
    assert steps.count("install") > 3
