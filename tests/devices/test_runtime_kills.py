"""An installation of the runtime that is killed, at either end: what was there stays, and the next one completes it."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from seed_devices.errors import RemoteError, UnreachableError
from seed_devices.push import wheels
from seed_devices.remote.agent_client import Progress
from tests.conftest import ROOT
from tests.devices.support import fake_wheels
from tests.devices.support.sshd import Device, Sshd


def _kill_at(count: int, delay_s: float, kill: Callable[[], None]) -> Progress:
    """Kills a moment after the step number `count` was reported."""
    seen = itertools.count()

    def progress(step: str, done: int, total: int) -> None:
        if next(seen) == count:
            threading.Timer(delay_s, kill).start()

    return progress


def _kill_sessions(sshd: Sshd) -> None:
    """As when the device's side goes: every process behind the server, pip included."""
    for pid in sshd.processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _count_steps(device: Device, house: wheels.Wheelhouse, monkeypatch: pytest.MonkeyPatch) -> int:
    steps: list[str] = []
    fake_wheels.install(device, monkeypatch, house, progress=lambda step, done, total: steps.append(step))
    return len(steps)


@pytest.mark.slow
def test_a_kill_of_the_devices_side_at_any_step_leaves_the_runtime_that_was_there(
    bare: Device, sshd: Sshd, old: wheels.Wheelhouse, new: wheels.Wheelhouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = _count_steps(bare, old, monkeypatch)
    random_ = random.Random(3)
    killed = finished = 0
    for count in range(steps):
        before = os.readlink(bare.store / "runtime" / "current")
        kill = _kill_at(count, random_.uniform(0, 0.3), lambda: _kill_sessions(sshd))
        try:
            fake_wheels.install(bare, monkeypatch, new, progress=kill)
            finished += 1
        except (UnreachableError, RemoteError):
            killed += 1
            # Killed after the switch, the new one is there; otherwise the old one is, and either starts.
            current = os.readlink(bare.store / "runtime" / "current")
            assert current == before or current.startswith("9.0.0-")
        assert fake_wheels.runtime_output(bare) in ("8.1.2", "9.0.0")
    assert killed >= steps // 2
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):  # the last kill, if the installation was quicker
            thread.join()
    assert fake_wheels.install(bare, monkeypatch, new).fresh
    assert fake_wheels.runtime_output(bare) == "9.0.0"
    assert len(fake_wheels.runtimes(bare)) == 3, "the current one, the one before, and the link"
    print(f"{killed} of {steps} installations killed on the device's side, {finished} had ended before")


KILLED_HOST = """
import os, signal, sys, threading
from pathlib import Path
from seed_devices.push import requirements, runtime, wheels
from seed_devices.ssh.connection import Connection
from tests.devices.support import fake_wheels

alias, config, folder, count, delay = sys.argv[1:]
new = fake_wheels.house(Path(folder), "9.0.0")
wheels.collect = lambda *given, **named: new
requirements.__version__ = new.version
seen = iter(range(1000))
def progress(step, done, total):
    if next(seen) == int(count):
        threading.Timer(float(delay), lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
with Connection(alias, config=Path(config)) as connection:
    runtime.install(connection, fake_wheels.facts(connection), progress=progress)
"""


@pytest.mark.slow
def test_a_kill_of_the_host_at_any_step_leaves_the_runtime_that_was_there(
    bare: Device, old: wheels.Wheelhouse, new: wheels.Wheelhouse, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    steps = _count_steps(bare, old, monkeypatch)
    random_ = random.Random(4)
    killed = 0
    for count in range(0, steps, 2):
        arguments = [bare.alias, str(bare.config), str(tmp_path / "wheels"), str(count), str(random_.uniform(0, 0.2))]
        done = subprocess.run(
            [sys.executable, "-c", KILLED_HOST, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        killed += done.returncode != 0
        assert fake_wheels.runtime_output(bare) in ("8.1.2", "9.0.0")
    assert killed
    # What the killed host had begun on the device may still be at work there: it holds the lock.
    assert fake_wheels.install(bare, monkeypatch, new).fresh
    assert fake_wheels.runtime_output(bare) == "9.0.0"
    assert len(fake_wheels.runtimes(bare)) == 3, "the current one, the one before, and the link"
    print(f"{killed} installations killed on the host's side")
