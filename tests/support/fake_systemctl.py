#!/usr/bin/env python3
"""Stands in for `systemctl --user` where no systemd runs: starts and stops what a unit's ExecStart names.

It keeps what it needs in $STAND_IN_FOLDER: the calls, and the process of each unit. Of a unit it understands
ExecStart, Environment and Type=notify. tests/devices tests the real one in the whole machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(os.environ["STAND_IN_FOLDER"])
UNITS = Path(os.environ["XDG_CONFIG_HOME"]) / "systemd" / "user"


def stop(unit: str) -> None:
    path = FOLDER / f"{unit}.pid"
    if path.exists():
        pid = int(path.read_text())
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGTERM)
            # Whoever inherits it may not reap it.
            while ") Z " not in Path(f"/proc/{pid}/stat").read_text():
                time.sleep(0.02)
        path.unlink()


def start(unit: str) -> int:
    lines = (UNITS / unit).read_text().splitlines()
    values = [line.split("=", 1) for line in lines if "=" in line]
    (command,) = [value for key, value in values if key == "ExecStart"]
    settings = dict(
        shlex.split(value)[0].replace("%%", "%").split("=", 1) for key, value in values if key == "Environment"
    )
    words = [word.replace("%%", "%") for word in shlex.split(command)]
    words[1:] = [word.replace("$$", "$") for word in words[1:]]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(f"\0stand-in-{os.getpid()}")
        notify.settimeout(0.1)
        environment = {**os.environ, **settings, "NOTIFY_SOCKET": f"@stand-in-{os.getpid()}"}
        with (FOLDER / f"{unit}.log").open("ab") as log:
            process = subprocess.Popen(
                words, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        while process.poll() is None:
            try:
                if notify.recv(100) == b"READY=1":
                    (FOLDER / f"{unit}.pid").write_text(str(process.pid))
                    (FOLDER / f"{unit}.code").write_text("0")
                    return 0
            except TimeoutError:
                pass
    (FOLDER / f"{unit}.code").write_text(str(process.returncode))
    print(f"Job for {unit} failed because the control process exited with error code.", file=sys.stderr)
    return 1


def main(arguments: list[str]) -> int:
    with (FOLDER / "calls").open("a") as file:
        print(json.dumps(arguments), file=file)
    words = [word for word in arguments if not word.startswith("--")]
    if (FOLDER / "no-manager").exists():
        print("Failed to connect to bus: No medium found", file=sys.stderr)
        return 1
    match words:
        case ["restart", unit]:
            stop(unit)
            return start(unit)
        case ["disable", unit]:
            stop(unit)
        case ["show", unit]:
            pid, code = FOLDER / f"{unit}.pid", FOLDER / f"{unit}.code"
            print(f"ActiveState={'active' if pid.exists() else 'failed'}")
            print(f"MainPID={pid.read_text() if pid.exists() else 0}\nNRestarts=0\nMemoryCurrent=[not set]")
            print(f"ExecMainStatus={code.read_text() if code.exists() else 0}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
