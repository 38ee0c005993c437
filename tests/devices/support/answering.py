"""A device whose agent answers as a test says."""

from __future__ import annotations

import json
import shlex
from typing import Any

from tests.devices.support.sshd import RUNTIME, Device


def answering(device: Device, *told: dict[str, Any]) -> None:
    """Let the device's agent answer so, whatever it is asked."""
    path = device.store / "runtime" / RUNTIME / "bin" / "python"
    lines = device.home / "answers"
    lines.write_text("".join(json.dumps({"ok": True, **one}) + "\n" for one in told))
    greeting = shlex.quote(json.dumps({"agent": 1, "runtime": "0.1.0", "python": "3.11.2"}))
    path.write_text(
        f"#!/bin/sh\necho {greeting}\nexec 3< {lines}\nwhile read x && read -r y <&3; do printf '%s\\n' \"$y\"; done\n"
    )
