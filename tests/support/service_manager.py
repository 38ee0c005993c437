"""A stand-in for the user's systemd, for an agent in this process or on a device: fake_systemctl.py and its like."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path

_SYSTEMCTL = Path(__file__).with_name("fake_systemctl.py")


def make_manager(folder: Path) -> tuple[Path, dict[str, str]]:
    """Make a folder for a manager's notes, and return it with the environment in which it is found."""
    manager, programs, run = (folder / name for name in ("manager", "bin", "run"))
    for each in (manager, programs, run):
        each.mkdir(exist_ok=True)
    (programs / "systemctl").write_text(f'#!/bin/sh\nexec "{sys.executable}" "{_SYSTEMCTL}" "$@"\n')
    (programs / "loginctl").write_text(f'#!/bin/sh\necho "$@" >> "{manager}/loginctl"\n')
    (programs / "journalctl").write_text(f'#!/bin/sh\ncat "{manager}/$3.log"\n')
    for path in programs.iterdir():
        path.chmod(0o755)
    path_variable = f"{programs}:{os.environ['PATH']}"
    return manager, {"PATH": path_variable, "STAND_IN_FOLDER": str(manager), "XDG_RUNTIME_DIR": str(run)}


def server_pid(manager: Path, name: str) -> int:
    """Return the process that serves a model."""
    return int((manager / f"seed-{name}.service.pid").read_text())


def kill_servers(manager: Path) -> None:
    """End all servers that the manager started."""
    for path in manager.glob("*.pid"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(path.read_text()), signal.SIGKILL)
