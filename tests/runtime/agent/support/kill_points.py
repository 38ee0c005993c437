"""Interrupt a push at every moment at which it touches the disk, and check what is left. A program for tests.

    python kill_points.py kill|full whole|delta FOLDER

`kill` ends the agent by SIGKILL, `full` lets the disk be full from that moment on. The version that is pushed is a
whole seed or one on top of the version that runs. Prints how many moments there were.
A moment is an audit event of Python: opening, renaming, linking, removing, locking and so on, just before it happens.
The agent is a fork of this process, which has a single thread; what it has begun to write is on the disk, as no
machine dies here.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from seed_runtime.agent import activation, install
from seed_runtime.agent.operations import Agent
from seed_runtime.agent.protocol.transport import Transport
from seed_runtime.agent.store.store import Store
from tests.runtime.agent.support.device_agent import NAME, digest_of, running, seed
from tests.support.deltas import delta_on

EVENTS = ("open", "os.", "shutil.", "fcntl.", "tempfile.")
WRITES = ("open", "os.mkdir", "os.rename", "os.symlink", "os.truncate")
LOADED = (np, onnxruntime, install, activation)
"""Imported before the fork: what they open isn't the device's."""
OLD, OTHER = seed(1), seed(2)
NEW = delta_on(OTHER, version=3) if sys.argv[2] == "delta" else seed(3)
FULL = 13


def main() -> None:
    kind, root = sys.argv[1], Path(sys.argv[3])
    moment = 0
    while True:
        moment += 1
        move_to(root / str(moment))
        assert push(OLD) == push(OTHER) == 0
        code = broken_push(kind, moment)
        after_it(kind, moment, code)
        shutil.rmtree(root / str(moment))
        if code == 0:
            break
    print(moment - 1)


def move_to(folder: Path) -> None:
    folder.mkdir(parents=True)
    os.environ["SEED_HOME"] = str(folder / "home")
    for name in ("CACHE", "CONFIG", "STATE"):
        os.environ[f"XDG_{name}_HOME"] = str(folder / name.lower())


def push(data: bytes) -> int:
    """Push this seed, with a rollback target beside it and one version to prune. Return the exit code."""
    with open(os.devnull, "r+b") as nobody:
        agent = Agent(Transport(nobody.fileno(), nobody))
        fields: dict[str, Any] = {"name": NAME, "digest": digest_of(data)}
        begun = agent.answer({"op": "begin", "file_size": len(data), **fields})
        try:
            if begun.get("state") == "partial":
                with open(begun["path"], "r+b") as file:
                    file.seek(begun["have"])
                    file.write(data[begun["have"] :])
            for op in ("install", "switch") if begun.get("state") == "partial" else ("switch",):
                if begun["ok"]:
                    begun = agent.answer({"op": op, **fields, **({"keep": 1} if op == "switch" else {})})
        except OSError as error:  # of the transfer, which another program makes
            begun = {"ok": False, "exit": FULL if error.errno == errno.ENOSPC else 1}
        agent.release()
        if not begun["ok"] and begun["exit"] != FULL:
            print(begun, file=sys.stderr)
        return 0 if begun["ok"] else int(begun["exit"])


def broken_push(kind: str, moment: int) -> int:
    """Interrupt a push at this moment. Return its exit code, -9 if it was killed."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = moment

    def count(event: str, arguments: Any) -> None:
        nonlocal left
        if kind == "full":
            if not event.startswith(WRITES) or (event == "open" and not (arguments[2] or 0) & os.O_CREAT):
                return
            left -= 1
            # Renaming over what is there takes no room, so going back works.
            if left == 0 or (left < 0 and event != "os.rename"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        elif event.startswith(EVENTS):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    try:
        os._exit(push(NEW))
    finally:
        os._exit(1)  # what no answer was made of


def after_it(kind: str, moment: int, code: int) -> None:
    """Check that the old or the new version is whole and runs, and that a second push completes the first."""
    assert code in (0, -9 if kind == "kill" else FULL), (moment, code)
    found = running()
    allowed = [digest_of(OTHER)] if kind == "full" and code else [digest_of(OTHER), digest_of(NEW)]
    assert found in allowed, (moment, found)
    assert push(NEW) == 0, moment
    assert running() == digest_of(NEW), moment
    model = Store().model(NAME)
    assert model.digests() == sorted([digest_of(OTHER), digest_of(NEW)]), (moment, model.digests())
    assert model.previous() == digest_of(OTHER), moment
    assert os.listdir(model.store.incoming) == [], moment
    left = set(os.listdir(model.folder)) - {"lock", "versions", "current", "history.jsonl"}
    assert not left, (moment, left)
    assert set(os.listdir(model.versions)) == set(model.digests()), moment


if __name__ == "__main__":
    main()
