"""Run `seed-deploy` as a process, as users do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-m", "seed_devices.cli"]


def environment(config: Path) -> dict[str, str]:
    return {**os.environ, "SEED_SSH_CONFIG": str(config)}


def deploy(config: Path, *words: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end."""
    command = [*COMMAND, *map(str, words)]
    return subprocess.run(command, input=stdin, capture_output=True, env=environment(config), check=False)


def stderr_of(done: subprocess.CompletedProcess[bytes]) -> str:
    """Return what a command wrote to stderr."""
    return done.stderr.decode()


def hosts(config: Path, *words: str | Path) -> Sequence[dict[str, Any]]:
    """Run a command with `--json`, and return the object of each host."""
    done = deploy(config, *words, "--json")
    assert done.stdout, stderr_of(done)
    found: Sequence[dict[str, Any]] = json.loads(done.stdout)["hosts"]
    return found
