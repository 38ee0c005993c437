"""Dropbear, the SSH server of small boards, as the device."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from seed_devices.errors import UnreachableError
from seed_devices.push.wheels import Wheelhouse
from tests.devices.support import fake_wheels
from tests.devices.support.commands import deploy, hosts, stderr_of
from tests.devices.support.dropbear import Dropbear
from tests.devices.support.proxy import Proxy
from tests.devices.support.pushing import running_seed, send
from tests.devices.support.seeds import EXAMPLE, EXAMPLE_NAME, make_seed


@pytest.fixture
def dropbear(tmp_path: Path) -> Iterator[Dropbear]:
    """Return a server with one device that has a runtime."""
    server = Dropbear(tmp_path)
    server.device.install_runtime()
    yield server
    server.stop()


def test_a_seed_is_pushed_to_dropbear_and_runs(dropbear: Dropbear) -> None:
    send(dropbear.device, EXAMPLE)
    assert running_seed(dropbear.device, EXAMPLE_NAME) == EXAMPLE.read_bytes()


@pytest.mark.slow
def test_a_runtime_is_installed_behind_dropbear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new: Wheelhouse
) -> None:
    server = Dropbear(tmp_path)
    try:
        assert fake_wheels.install(server.device, monkeypatch, new).fresh
    finally:
        server.stop()
    fake_wheels.assert_whole(server.device, new.version)


@pytest.mark.slow
def test_a_push_to_dropbear_that_was_cut_goes_on_where_it_stopped(dropbear: Dropbear, tmp_path: Path) -> None:
    device, seed = dropbear.device, make_seed(tmp_path / "large.seed", width=1024)
    size = seed.stat().st_size
    with Proxy(dropbear.port) as proxy:
        config = device.config.read_text()
        device.config.write_text(config.replace(f"Port {dropbear.port}", f"Port {proxy.port}"))
        proxy.cut_after = 2_200_000
        with pytest.raises(UnreachableError, match="run the same command again"):
            send(device, seed, "large")
        (part,) = (device.store / "incoming").glob("*.part")
        missing = size - part.stat().st_size
        proxy.reset()
        done = send(device, seed, "large")
    assert 0 < missing < size
    assert proxy.sent - missing <= max(1 << 20, missing // 20)
    assert done.state == "pushed"
    assert running_seed(device, "large") == seed.read_bytes()


@pytest.mark.slow
def test_every_command_works_with_dropbear(dropbear: Dropbear) -> None:
    config, host = dropbear.device.config, dropbear.device.alias
    done = deploy(config, "push", EXAMPLE, host, "--max-rate", "100KB")
    assert done.returncode == 0, stderr_of(done)
    assert hosts(config, "logs", host)[0]["lines"]
    assert deploy(config, "run", host, "--verify").returncode == 0
    done = deploy(config, "doctor", host)
    assert (done.returncode, stderr_of(done)) == (0, "")
