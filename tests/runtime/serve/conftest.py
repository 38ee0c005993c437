"""The environment of the clients that the server is asked with."""

from __future__ import annotations

import fcntl
import hashlib
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.project import ROOT, run_checked


@pytest.fixture(scope="session")
def clients_python() -> Iterator[Path]:
    """Return the interpreter of an environment with the extra `clients`, which outlives the session.

    It is one of its own, as kserve needs an older protobuf than the one beside onnx, and half a gigabyte in all.
    """
    venv = ROOT / ".venv-clients"
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["clients"]
    made_for, key = venv / "made-for", hashlib.sha256("\n".join([sys.version, *packages]).encode()).hexdigest()
    with (ROOT / ".venv-clients.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made_for.exists() or made_for.read_text() != key:
            run_checked([sys.executable, "-m", "venv", "--clear", str(venv)])
            run_checked([str(venv / "bin" / "python"), "-m", "pip", "install", "-q", *packages])
            made_for.write_text(key)
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield venv / "bin" / "python"
