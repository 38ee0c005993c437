"""`seed-run` as a real process or within this one, and its results and refusals."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from seed_runtime.cli import main

STREAMS = (("stdin", "r", "strict"), ("stdout", "w", "strict"), ("stderr", "w", "backslashreplace"))
"""Attribute of `sys`, mode and handling of errors of the standard streams, in the order of their descriptors."""
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


def seed_run_here(
    *arguments: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run `seed-run` within this process, with standard streams of its own and an empty stdin.

    A process takes a quarter of a second of a core until it has imported what it needs.
    """
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(3)]
        stack.enter_context(mock.patch.dict(os.environ, env or {}))
        stack.enter_context(contextlib.chdir(cwd or Path.cwd()))
        for number, (name, mode, errors) in enumerate(STREAMS):
            saved = os.dup(number)
            stack.callback(os.close, saved)
            stack.callback(os.dup2, saved, number)
            os.dup2(files[number].fileno(), number)
            stream = stack.enter_context(open(number, mode, encoding="utf-8", errors=errors, closefd=False))
            stack.enter_context(mock.patch.object(sys, name, stream))
        try:
            code = main([*map(str, arguments)])
        except SystemExit as ended:
            code = int(ended.code or 0)
        sys.stdout.flush()
        sys.stderr.flush()
        outputs = [os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0) for file in files[1:]]
    return subprocess.CompletedProcess([*COMMAND, *map(str, arguments)], code, *outputs)


def result(*arguments: str | Path, process: bool = False, **options: Any) -> dict[str, Any]:
    """Return the one JSON object of a run that must succeed.

    Args:
        arguments: of the command.
        process: run it as a process of its own, as it is done anyway where stdin is given.
        options: of `seed_run`.
    """
    done = _run(process, *arguments, "--json", **options)
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


def _run(process: bool, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return (seed_run if process or "stdin" in options else seed_run_here)(*arguments, **options)


def refused(code: int, *arguments: str | Path, process: bool = False, **options: Any) -> str:
    """Return the one line on stderr of a run that must return `code` and print no result; see `result`."""
    done = _run(process, *arguments, **options)
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
