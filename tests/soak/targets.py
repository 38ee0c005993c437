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
from tests.soak.seeds import MODEL, Version, answered, question_file
from tests.support.project import ROOT

ASK_LIMIT = 300  # [s], on a busy machine
SLOW_CARD = Path(__file__).parent / "slow_card"


class Target(Protocol):
    """A device that a push goes to."""

    config: Path
    alias: str

    def kill(self, rng: random.Random) -> None:
        """End what runs on the device for this push, or all of the device."""

    def revive(self) -> None:
        """Have the device answer again."""


def ask(target: Target, known: list[Version]) -> Version:
    """Which version the device answers with. AssertionError if it doesn't, or its bytes are none of theirs."""
    done = subprocess.run(
        [*_DEPLOY, "run", "-F", str(target.config), f"{target.alias}:{MODEL}", "--input", "-", "--output", "-"],
        input=question_file(),
        capture_output=True,
        timeout=ASK_LIMIT,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, f"no answer, {done.returncode}: {done.stderr.decode(errors='replace')[-2000:]}"
    version = answered(done.stdout, known)
    assert version is not None, "a wrong answer"
    return version


def start_push(target: Target, version: Version) -> subprocess.Popen[str]:
    """A push in a process of its own, in a group of its own; its stdout names the steps."""
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
        """SIGKILL to one of the device's processes, or to all of them."""
        found = list(self._processes())
        if found and rng.random() < 0.5:
            found = [rng.choice(found)]
        for process in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def revive(self) -> None:
        self.link.reset()

    def old_runtime(self) -> None:
        """Let the device have a runtime that is older than a seed may want, and no other."""
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

    def __init__(self, machine: Machine, seed: int) -> None:
        self.machine, self._seed = machine, seed
        self.alias, self.config = "device", machine.ssh_config

    def kill(self, rng: random.Random) -> None:
        self.machine.cut(torn=rng.random() < 0.5)

    def revive(self) -> None:
        self.machine.boot(torn=self._seed + self.machine.boots)
