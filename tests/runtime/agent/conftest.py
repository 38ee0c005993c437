"""What the tests of the agent share: a store, an agent on it, and a stand-in for the user's systemd."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from seed_runtime.agent.service import systemd
from seed_runtime.agent.store.store import Store
from tests.runtime.agent.support.device_agent import LocalAgent
from tests.support.service_manager import kill_servers, make_manager


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
    folder, variables = make_manager(tmp_path)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(systemd, "_BUS_S", 0.1)
    yield folder
    kill_servers(folder)
