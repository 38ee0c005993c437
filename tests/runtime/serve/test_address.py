"""Addresses: a socket is for its owner, a port for this machine. And the plan of a server."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

import seed_runtime
from seed_runtime.errors import MemoryBudgetError, UnsupportedError, UsageError
from seed_runtime.memory.cgroup import CgroupLimit
from seed_runtime.memory.process import Usage
from seed_runtime.seed import Seed
from seed_runtime.serve import Address, limits, listen, parse_address, plan_server, planned_bytes
from tests.support.model_seeds import FEATURES, classifier


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":8080", Address(host="127.0.0.1", port=8080)),
        ("8080", Address(host="127.0.0.1", port=8080)),
        ("localhost:8080", Address(host="127.0.0.1", port=8080)),
        ("127.0.0.2:0", Address(host="127.0.0.2", port=0)),
        ("[::1]:80", Address(host="::1", port=80)),
        ("unix:/a/b", Address(path="/a/b")),
        ("/a/b", Address(path="/a/b")),
        ("./b", Address(path=os.path.abspath("b"))),
        ("unix:b", Address(path=os.path.abspath("b"))),
    ],
)
def test_an_address_is_a_loopback_port_or_a_socket(text: str, address: Address) -> None:
    assert parse_address(text) == address
    if address.path is None:
        assert parse_address(str(address).removeprefix("http://")) == address
    else:
        assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        ("0.0.0.0:8080", "would let other machines in"),
        ("[::]:8080", "would let other machines in"),
        ("192.0.2.1:8080", "would let other machines in"),
        ("example.org:8080", "not an address of this machine"),
        (":65536", "is not an address"),
        ("127.0.0.1", "is not an address"),
        ("a:b:c", "is not an address"),
        (":-1", "is not an address"),
        ("unix:", "needs the path"),
        ("/a/", "needs the path"),
        ("/" + "a" * 107, "at most 107 bytes"),
    ],
)
def test_other_addresses_are_refused(text: str, reported: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_address(text)
    assert reported in str(caught.value)


def test_a_socket_is_for_its_owner_alone_and_a_stale_one_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with listen(Address(path=str(path))):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with pytest.raises(UsageError, match="another server listens"), listen(Address(path=str(path))):
            pass
        path.unlink()
        path.write_text("somebody else's")
    assert path.read_text() == "somebody else's"
    with pytest.raises(UsageError, match="something else is there"), listen(Address(path=str(path))):
        pass
    with pytest.raises(UsageError, match="No such file"), listen(Address(path=str(tmp_path / "no" / "s"))):
        pass


def test_a_port_in_use_is_reported() -> None:
    with listen(parse_address(":0")) as (_, address):
        assert address.port > 0
        with pytest.raises(UsageError, match="Address already in use; choose another port"), listen(address):
            pass


# How much is planned


@pytest.fixture
def small_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process has held before, which other tests decide, doesn't count."""
    monkeypatch.setattr("seed_runtime.memory.plan.baseline", lambda: Usage(40 << 20, 40 << 20))


@pytest.mark.usefixtures("small_process")
def test_the_largest_input_that_fits_is_planned_for(tmp_path: Path) -> None:
    path = tmp_path / "model.seed"
    path.write_bytes(classifier())
    seed = seed_runtime.open(path)
    free = plan_server(seed)
    assert free.feeds is not None
    assert free.feeds["x"].shape == (64, FEATURES)
    assert free.body_max == limits.BODY_FREE
    assert planned_bytes(seed) is not None
    # One MiB lies between the measured ends, 1 and 64 rows: the limit admits some of them.
    least = _least(seed)
    rows = []
    for spare in (0, 1 << 19, 2 << 20):
        found = plan_server(seed, least + spare)
        assert found.feeds is not None
        rows.append(len(found.feeds["x"]))
        assert limits.ENVELOPE_MAX < found.body_max < 1 << 20
    assert rows == sorted(rows)
    assert rows[-1] == 64
    with pytest.raises(MemoryBudgetError):
        plan_server(seed, 10 << 20)
    with pytest.raises(MemoryBudgetError):
        planned_bytes(seed, 10 << 20)


@pytest.mark.usefixtures("small_process")
def test_in_a_control_group_the_largest_input_that_fits_is_planned_for_as_well(tmp_path: Path) -> None:
    path = tmp_path / "model.seed"
    path.write_bytes(classifier())
    seed = seed_runtime.open(path)
    assert plan_server(seed, cgroup=CgroupLimit("/a", 1 << 30, 0)).body_max == limits.BODY_FREE
    small = plan_server(seed, cgroup=CgroupLimit("/a", _least(seed) + (1 << 19) + 4096, 4096))
    assert small.feeds is not None
    assert len(small.feeds["x"]) < 64
    assert small.body_max < 1 << 20
    with pytest.raises(MemoryBudgetError, match="cgroup /a"):
        plan_server(seed, cgroup=CgroupLimit("/a", 10 << 20, 0))


@pytest.mark.usefixtures("small_process")
def test_without_measurements_no_limit_is_planned(tmp_path: Path) -> None:
    path = tmp_path / "model.seed"
    path.write_bytes(classifier(footprint=False))
    assert plan_server(seed_runtime.open(path)).feeds is None
    assert planned_bytes(seed_runtime.open(path)) is None
    with pytest.raises(UnsupportedError):
        seed_runtime.open(path).session(max_memory=1 << 30)


def _least(seed: Seed) -> int:
    """Return the smallest limit with which any input can be planned, to 64 KiB."""
    low, high = 10 << 20, 1 << 30
    while high - low > 1 << 16:
        middle = (low + high) // 2
        try:
            plan_server(seed, middle)
            high = middle
        except MemoryBudgetError:
            low = middle
    return high
