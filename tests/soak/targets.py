"""Devices that can be killed: one behind a loopback sshd, and the whole emulated machine."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from tests.devices.support.proxy import Proxy
from tests.devices.support.sshd import Sshd
from tests.interop.support.machine import Machine
from tests.soak.seeds import MODEL, Version, input_file, version_of
from tests.support.project import ROOT

ASK_LIMIT = 300  # [s], on a busy machine
SLOW_CARD = Path(__file__).parent / "slow_card"


class Target(Protocol):
    """A device that pushes go to."""

    config: Path
    alias: str

    def kill(self, rng: random.Random) -> None:
        """Kill processes of this push on the device, or cut the power of the whole device."""

    def revive(self) -> None:
        """Make the device answer again."""


def ask(target: Target, known: list[Version]) -> Version:
    """Return the version that the device answers with. AssertionError if it doesn't answer, or with none of `known`."""
    done = subprocess.run(
        [*_DEPLOY, "run", "-F", str(target.config), f"{target.alias}:{MODEL}", "--input", "-", "--output", "-"],
        input=input_file(),
        capture_output=True,
        timeout=ASK_LIMIT,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, f"no answer, {done.returncode}: {done.stderr.decode(errors='replace')[-2000:]}"
    version = version_of(done.stdout, known)
    assert version is not None, "the answer is none of the versions'"
    return version


def start_push(target: Target, version: Version) -> subprocess.Popen[str]:
    """Start a push as a process in a group of its own; its stdout names the phases."""
    return subprocess.Popen(
        [*(sys.executable, "-m", "tests.soak.client", str(target.config), target.alias), str(version.path), MODEL],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


_DEPLOY = (sys.executable, "-m", "seed_devices.cli")


class Loopback:
    """A device with a slow card, behind an sshd of this machine and a link that can be cut."""

    def __init__(self, sshd: Sshd, alias: str) -> None:
        self.link = Proxy(sshd.port)
        self.device = sshd.device(alias, port=self.link.port, environment={"PYTHONPATH": str(SLOW_CARD)})
        self.alias, self.config = alias, sshd.config

    def kill(self, rng: random.Random) -> None:
        """Send SIGKILL to one of the device's processes, or to all of them."""
        found = list(self._processes())
        if found and rng.random() < 0.5:
            found = [rng.choice(found)]
        for process in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def revive(self) -> None:
        self.link.reset()

    def old_runtime(self) -> None:
        """Replace the device's runtime by one that is older than some seeds need."""
        folder = self.device.store / "runtime"
        shutil.rmtree(folder, ignore_errors=True)
        self.device.install_runtime()
        (name,) = (each for each in folder.iterdir() if each.name != "current")
        shutil.copytree(
            ROOT / "runtime", name / "source", ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True
        )
        (name / "source" / "seed_runtime" / "version.py").write_text('__version__ = "0.0.9"\n')
        for start in ("python", "seed-run"):
            script = name / "bin" / start
            script.write_text(script.read_text().replace(str(ROOT / "runtime"), str(name / "source")))

    def _processes(self) -> Iterator[int]:
        mark = f"SEED_HOME={self.device.store}".encode()
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with contextlib.suppress(OSError):
                    if mark in (folder / "environ").read_bytes().split(b"\0"):
                        yield int(folder.name)


class Board:
    """The emulated machine. A kill cuts its power: unflushed writes are lost, or half of them."""

    def __init__(self, machine: Machine, rng_seed: int) -> None:
        self.machine, self._rng_seed = machine, rng_seed
        self.alias, self.config = "device", machine.ssh_config

    def kill(self, rng: random.Random) -> None:
        self.machine.cut(torn=rng.random() < 0.5)

    def revive(self) -> None:
        self.machine.boot(torn=self._rng_seed + self.machine.boots)
