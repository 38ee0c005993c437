"""Fixtures and rules for all tests: folders of their own, fixed random state, no network, a lean install.

A test that asks for `lean_python` is slow by that alone, as the fixture installs packages.
Modules that take minutes are collected first, so that workers of pytest-xdist which run side by side end together.
"""

from __future__ import annotations

import fcntl
import hashlib
import ipaddress
import itertools
import os
import random
import socket
import sys
import tomllib
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Before a test module imports ONNX Runtime, whose wheels send events by default.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import hypothesis
import numpy as np
import pytest

from tests.support.project import ROOT, run_checked
from tests.support.shared import SharedFolder

LONGEST = (
    "tests/interop/test_machine.py",
    "tests/exporter/test_public_models.py",
    "tests/interop/test_device_arm64.py",
    "tests/soak/",
    "tests/interop/",
    "tests/devices/test_armv7.py",
)
"""Prefixes of the modules that take minutes, the longest first."""
_LISTED = 20
"""Tests that `--slow-limit` lists at most: on a busy machine many take over a second."""

# The same examples on every run, nothing remembered, and no deadline that a busy machine misses.
hypothesis.settings.register_profile("house", derandomize=True, database=None, deadline=None)
hypothesis.settings.load_profile("house")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--slow-limit",
        type=float,
        metavar="SECONDS",
        help="list tests that aren't marked slow and take longer, setup included",
    )


@pytest.hookimpl(tryfirst=True)  # before pytest deselects by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "lean_python" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)
    items.sort(key=_rank)  # stable, so the order within a module stays


def _rank(item: pytest.Item) -> int:
    return next((rank for rank, prefix in enumerate(LONGEST) if item.nodeid.startswith(prefix)), len(LONGEST))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    limit = config.getoption("--slow-limit")
    if limit is None:
        return
    seconds: dict[str, float] = {}
    slow = set()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds[report.nodeid] = seconds.get(report.nodeid, 0.0) + report.duration
                if "slow" in report.keywords:
                    slow.add(report.nodeid)
    over = sorted(((time, name) for name, time in seconds.items() if time > limit and name not in slow), reverse=True)
    if over:
        terminalreporter.section(f"not marked slow, and took over {limit:g} s")
        for time, name in over[:_LISTED]:
            terminalreporter.line(f"{time:.2f}s {name}")
        if len(over) > _LISTED:
            terminalreporter.line(f"and {len(over) - _LISTED} others")


@pytest.fixture(scope="session")
def numbered_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yield paths of folders that aren't there yet, in a folder of their own.

    `mktemp` looks at all folders beside a new one: thousands of them took 12 s of each worker's time.
    """
    parent = tmp_path_factory.mktemp("xdg")
    return (parent / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def own_folders(numbered_folders: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test empty XDG folders and no `SEED_*` settings of the user's. Returns their parent."""
    folder = next(numbered_folders)
    folder.mkdir()
    for kind in ("CACHE", "CONFIG", "DATA", "STATE"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(folder / kind.lower()))
    for name in [name for name in os.environ if name.startswith("SEED_") and name != "SEED_BENCH_CACHE"]:
        monkeypatch.delenv(name)
    return folder


@pytest.fixture(autouse=True)
def fixed_random_state() -> None:
    """Seed the global random generators, from which libraries draw."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - for libraries that draw from the global generator


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Return a generator that depends on the test's name only."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture(autouse=True)
def offline(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test whose process opens a connection beyond this machine, unless it is marked `network`."""
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
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> SharedFolder:
    """Return the folder for what is made once for all workers of this run of pytest."""
    own = tmp_path_factory.getbasetemp()
    # Workers of pytest-xdist have folders of their own within that of the run.
    return SharedFolder((own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared")


@pytest.fixture(scope="session")
def wheel(shared_folder: SharedFolder) -> Path:
    """Build the wheel of this tree, once for all workers."""

    def build(folder: Path) -> None:
        run_checked([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=ROOT)

    (built,) = shared_folder.made("wheel", build).glob("*.whl")
    return built


@pytest.fixture(scope="session")
def lean_python(wheel: Path) -> Iterator[Path]:
    """Return the interpreter of an environment that holds the base install of this tree's wheel and no more.

    The environment outlives the session in `.venv-lean`, as its packages take long to install. Sessions with the same
    wheel use it side by side; one with another wheel waits for them.
    """
    venv = ROOT / ".venv-lean"
    python = venv / "bin" / "python"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    made_for, installed = venv / "made-for", venv / "installed"
    packages_key = hashlib.sha256("\n".join([sys.version, *project["dependencies"]]).encode()).hexdigest()
    wheel_key = hashlib.sha256(wheel.read_bytes()).hexdigest()

    def is_made(file: Path, key: str) -> bool:
        return file.exists() and file.read_text() == key

    with (ROOT / ".venv-lean.lock").open("w") as lock:
        while True:
            fcntl.flock(lock, fcntl.LOCK_SH)
            if is_made(made_for, packages_key) and is_made(installed, wheel_key):
                yield python
                return
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not is_made(made_for, packages_key):
                run_checked([sys.executable, "-m", "venv", "--clear", str(venv)])
                run_checked([str(python), "-m", "pip", "install", "-q", *project["dependencies"]])
                made_for.write_text(packages_key)
            if not is_made(installed, wheel_key):
                installed.unlink(missing_ok=True)
                run_checked([str(python), "-m", "pip", "install", "-q", "--no-deps", "--force-reinstall", str(wheel)])
                installed.write_text(wheel_key)
