"""What the tests of the agent share: a store, an agent on it, and a stand-in for the user's systemd."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from seed_runtime.agent.service import systemd
from seed_runtime.agent.store.store import Store
from tests.runtime.agent.support.device_agent import LocalAgent

STAND_IN = Path(__file__).parent / "support" / "fake_systemctl.py"


@pytest.fixture
def store() -> Store:
    """Return this user's store, which is empty."""
    return Store()


@pytest.fixture
def home(store: Store) -> Path:
    """Return the folder of the store."""
    return store.home


@pytest.fixture
def local() -> LocalAgent:
    """Return an agent on the store, in this process."""
    return LocalAgent()


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the folder of a stand-in for the user's systemd; the servers that it starts end with the test."""
    folder = tmp_path / "manager"
    folder.mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "bin" / "systemctl").write_text(f'#!/bin/sh\nexec "{sys.executable}" "{STAND_IN}" "$@"\n')
    (tmp_path / "bin" / "loginctl").write_text(f'#!/bin/sh\necho "$@" >> "{folder}/loginctl"\n')
    (tmp_path / "bin" / "journalctl").write_text(f'#!/bin/sh\ncat "{folder}/$3.log"\n')
    for path in (tmp_path / "bin").iterdir():
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("STAND_IN_FOLDER", str(folder))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setattr(systemd, "_BUS_S", 0.1)
    yield folder
    for path in folder.glob("*.pid"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(path.read_text()), signal.SIGKILL)
