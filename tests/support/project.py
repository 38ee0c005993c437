"""The checkout that is tested, and what a test does where this machine lacks something."""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).resolve().parents[2]
"""The root of the checkout."""


def run_checked(command: Sequence[str], cwd: Path | None = None) -> str:
    """Return what a command printed that must succeed. Fails the test with all its output if it doesn't."""
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"{' '.join(command)} returned {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def skip_or_fail(reason: str) -> NoReturn:
    """Skip a test for what this machine lacks. Fails it under TESTS_COMPLETE=1, which says that nothing is missing."""
    if os.environ.get("TESTS_COMPLETE"):
        pytest.fail(f"this must run here, and can't: {reason}")
    pytest.skip(reason)


def relative(path: Path) -> str:
    """Return a path of the checkout as documents write it."""
    return path.relative_to(ROOT).as_posix()


@functools.cache
def own_files() -> tuple[Path, ...]:
    """Return all files that are, or would be, under version control, as they were when this was first called."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    return tuple(ROOT / name for name in listed if name and (ROOT / name).is_file())
