"""Find a connection to a device that the user has opened: a live ControlMaster, by password or second factor or key."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from seed_devices.ssh import processes
from seed_devices.ssh.command_line import BY_HAND, Route

_ASK_S: Final = 10
"""Seconds that ssh may take to read its configuration, or to ask a ControlMaster of this machine."""


def find(route: Route) -> str | None:
    """Return the socket of the user's live connection; None if there is none.

    It is where the user's configuration has it (ControlPath), or where `Route.by_hand` puts it.
    """
    by_hand = Path(BY_HAND).expanduser()
    for control_path in (None, str(by_hand)):
        if control_path and not any(by_hand.parent.glob(by_hand.name.replace("%C", "*"))):
            continue
        code, text = processes.output(route.resolved(control_path), _ASK_S)
        paths = [line.partition(" ")[2] for line in text.splitlines() if line.startswith("controlpath ")]
        if code or not paths or not _is_socket(paths[0]):
            continue
        if processes.output(route.check(paths[0]), _ASK_S)[0] == 0:
            return paths[0]
    return None


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False
