"""seed-deploy, copies of a machine's disk, and the peak memory of a command on a machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.interop.support.arm64 import CACHE, call
from tests.interop.support.machine import Machine
from tests.support.project import ROOT

STORE = "$HOME/.local/share/seed"
SEED_RUN = f"{STORE}/runtime/current/bin/seed-run"
# Prints what a command printed, and then the most memory that it had resident at once [KiB]: its VmHWM.
_WATCH = """\
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(code)
"""


def deploy(config: Path, *words: str, code: int = 0, stdin: bytes | None = None) -> bytes:
    """Run seed-deploy, which must return `code`. Returns what it printed. Wheels come from the cache of these tests."""
    command = [sys.executable, "-m", "seed_devices.cli", words[0], "-F", str(config), *words[1:]]
    done = subprocess.run(
        command,
        input=stdin if stdin is not None else b"",
        capture_output=True,
        timeout=900,
        check=False,
        cwd=ROOT,
        env={**os.environ, "XDG_CACHE_HOME": str(CACHE / "host")},
    )
    said = done.stderr.decode(errors="replace")
    assert done.returncode == code, f"{' '.join(words)} returned {done.returncode}\n{done.stdout!r}\n{said}"
    return done.stdout


def deploy_json(config: Path, *words: str) -> Any:
    """Return the object that seed-deploy prints with --json."""
    return json.loads(deploy(config, *words, "--json"))


def copied(state: Path, to: Path) -> Path:
    """Copy a machine's disk. Returns the state folder of the copy."""
    to.mkdir(parents=True)
    call(["cp", "-r", "--sparse=always", "--reflink=auto", str(state / "disk"), str(to)])
    return to


def peak(machine: Machine, words: Sequence[str]) -> tuple[str, float]:
    """Run seed-run on the machine. Returns what it printed, and its VmHWM [MiB] as the machine's kernel counted it."""
    machine.run("cat > watch.py", stdin=_WATCH.encode())
    done = machine.run(f"python3 watch.py {SEED_RUN} {' '.join(words)}", timeout=900)
    return done.stdout, int(done.stderr.strip().splitlines()[-1]) / 1024
