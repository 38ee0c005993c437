"""What all tests share: folders of their own, fixed seeds, no network, a lean install.

A test that asks for `lean_python` is slow by that alone: the fixture installs packages.
"""

from __future__ import annotations

import fcntl
import hashlib
import ipaddress
import os
import random
import socket
import subprocess
import sys
import tomllib
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import hypothesis
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent

# Deterministic: the same examples on every run, nothing remembered, no deadline that a busy machine misses.
hypothesis.settings.register_profile("house", derandomize=True, database=None, deadline=None)
hypothesis.settings.load_profile("house")


@pytest.hookimpl(tryfirst=True)  # before pytest deselects by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "lean_python" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test empty XDG folders and no `SEED_*` settings of the user's. Returns their parent."""
    folder = tmp_path_factory.mktemp("xdg")
    for kind in ("CACHE", "CONFIG", "DATA", "STATE"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(folder / kind.lower()))
    for name in [name for name in os.environ if name.startswith("SEED_") and name != "SEED_BENCH_CACHE"]:
        monkeypatch.delenv(name)
    return folder


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - for libraries that draw from the global generator


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Return a generator that depends on the test's name only."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture(autouse=True)
def offline(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no socket of this process leave the machine, unless the test is marked `network`."""
    if request.node.get_closest_marker("network"):
        return

    def guard(call: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(sock: socket.socket, *arguments: Any) -> Any:
            if sock.family in (socket.AF_INET, socket.AF_INET6):
                _require_local(arguments[-1][0])  # the address stands last: connect(a), sendto(data, flags, a)
            return call(sock, *arguments)

        return guarded

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, guard(getattr(socket.socket, name)))
    look_up = socket.getaddrinfo

    def guarded_look_up(host: str | bytes | None, *arguments: Any, **options: Any) -> Any:
        _require_local(host)
        return look_up(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", guarded_look_up)


def lacking(reason: str) -> NoReturn:
    """Skip a test for what this machine lacks; fail it under TESTS_COMPLETE=1, which says that nothing is."""
    if os.environ.get("TESTS_COMPLETE"):
        pytest.fail(f"this must run here, and can't: {reason}")
    pytest.skip(reason)


def _require_local(name: str | bytes | None) -> None:
    if not name:  # all of this machine's own addresses
        return
    host = (name.decode() if isinstance(name, bytes) else name).partition("%")[0]
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if not local:
        pytest.fail(f"the test wanted to reach {host}; tests are offline unless marked `network`")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel of this tree."""
    folder = tmp_path_factory.mktemp("wheel")
    call([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def lean_python(wheel: Path) -> Iterator[Path]:
    """Return the interpreter of an environment that holds the base install of this tree's wheel and no more.

    The environment outlives the session in `.venv-lean`, as its packages take long; the wheel is
    installed anew by each session. Two sessions at once take turns.
    """
    venv = ROOT / ".venv-lean"
    python = venv / "bin" / "python"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [sys.version, *project["dependencies"]]
    key = hashlib.sha256("\n".join(wanted).encode()).hexdigest()
    with (ROOT / ".venv-lean.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made_for = venv / "made-for"
        if not made_for.exists() or made_for.read_text() != key:
            call([sys.executable, "-m", "venv", "--clear", str(venv)])
            call([str(python), "-m", "pip", "install", "-q", *project["dependencies"]])
            made_for.write_text(key)
        call([str(python), "-m", "pip", "install", "-q", "--no-deps", "--force-reinstall", str(wheel)])
        yield python


def call(command: Sequence[str], cwd: Path | None = None) -> str:
    """Return what a command that must succeed printed; fail with all its output if it doesn't."""
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
