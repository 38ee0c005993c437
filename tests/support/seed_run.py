"""`seed-run` as a real process, and its results and refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from seed_runtime.cli import main

COMMAND = [sys.executable, "-m", "seed_runtime.cli"]


def seed_run(
    *arguments: str | Path, stdin: bytes | None = None, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run `seed-run` as a process of its own."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        input=stdin if stdin is not None else b"",
        capture_output=True,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        timeout=120,
    )


def result(*arguments: str | Path, **options: Any) -> dict[str, Any]:
    """Return the one JSON object of a run that must succeed."""
    done = seed_run(*arguments, "--json", **options)
    assert done.returncode == 0, done.stderr.decode()
    return one_object(done.stdout)


def one_object(stdout: bytes) -> dict[str, Any]:
    """Return the one object that stdout must be: standard JSON on one line."""
    assert stdout.count(b"\n") == 1
    assert stdout.endswith(b"\n")

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    value = json.loads(stdout, parse_constant=refuse)
    assert isinstance(value, dict)
    return value


def refused(code: int, *arguments: str | Path, **options: Any) -> str:
    """Return the one line on stderr of a run that must return `code` and print no result."""
    done = seed_run(*arguments, **options)
    assert (done.returncode, done.stdout) == (code, b""), done.stderr.decode()
    assert done.stderr.startswith(b"seed-run: ")
    assert done.stderr.count(b"\n") == 1, done.stderr.decode()
    return done.stderr.decode()


def refused_here(code: int, capfd: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Do the same within this process, for long lists of the same kind of refusal."""
    capfd.readouterr()
    assert main([*map(str, arguments)]) == code
    stdout, stderr = capfd.readouterr()
    assert stdout == ""
    assert stderr.startswith("seed-run: ")
    assert stderr.count("\n") == 1, stderr
    return stderr


def files_under(folder: Path) -> list[str]:
    """Return the names of all files but locks, which are never removed."""
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"
    )


def cache_folder(own_folders: Path) -> Path:
    """Return the folder in which the test's models are cached."""
    return own_folders / "cache" / "seed" / "models"
