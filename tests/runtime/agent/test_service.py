"""A model as a service: the unit as systemd reads it, and what is left after each failure.

systemctl is a stand-in here that starts real servers; the real one is tested in the whole machine.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from seed_runtime.agent.service import plan, service, settings, systemd
from seed_runtime.agent.store.store import Store
from seed_runtime.errors import UsageError
from tests.runtime.agent.support.services import make_current, unit_file
from tests.support.model_seeds import classifier

PLAIN = settings.Service("seed-m.service", "unix", "unix:/run/user/7/seed-m.sock", None, 90 << 20, 122 << 20, True)


@pytest.fixture
def store() -> Store:
    found = Store()
    commands = found.home / "runtime" / "0.1.0-00000000" / "bin"
    commands.mkdir(parents=True)
    (found.home / "runtime" / "current").symlink_to("0.1.0-00000000")
    (commands / "seed-run").symlink_to(Path(sys.executable).with_name("seed-run"))
    return found


def calls(manager: Path) -> list[list[str]]:
    return [json.loads(line)[2:] for line in (manager / "calls").read_text().splitlines()]


def metadata(path: Path) -> dict[str, Any]:
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(path))
    connection.request("GET", "/v2/models/classifier", headers={"Connection": "close"})
    found: dict[str, Any] = json.load(connection.getresponse())
    return found


# The unit


def test_the_unit_starts_the_version_that_is_current_within_its_plan(store: Store) -> None:
    text = service.unit_text(store, "m", PLAIN)
    assert (
        f'ExecStart="{store.home}/runtime/current/bin/seed-run" "{store.home}/models/m/current/model.seed" '
        f'"--serve" "unix:/run/user/7/seed-m.sock" "--max-memory" "{90 << 20}"\n'
    ) in text
    python = f"{store.home}/runtime/current/bin/python"
    assert f'ExecStartPre="-+{python}" "-I" "-m" "seed_runtime.agent" "settle" "m"\n' in text
    for line in ("Type=notify", f"MemoryMax={122 << 20}", "NoNewPrivileges=yes", "ProtectSystem=strict"):
        assert f"\n{line}\n" in text
    assert f'Environment="XDG_CACHE_HOME={os.environ["XDG_CACHE_HOME"]}"' in text
    assert f'"-{os.environ["XDG_CACHE_HOME"]}/seed"' in text


def test_a_model_without_measurements_has_only_the_limit_that_was_asked_for(store: Store) -> None:
    unmeasured = settings.Service("seed-m.service", "unix", "http://127.0.0.1:80", None, None, None, True)
    text = service.unit_text(store, "m", unmeasured)
    assert "max-memory" not in text
    assert "MemoryMax" not in text
    assert '"--serve" "127.0.0.1:80"' in text


def test_systemd_understands_the_unit(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    home = tmp_path / "a 100% $HOME"
    shutil.copytree(store.home, home, symlinks=True)
    store.home, store.models = home, home / "models"
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    path = tmp_path / "seed-m.service"
    path.write_text(service.unit_text(store, "m", PLAIN))
    (tmp_path / "run").mkdir(mode=0o700)
    done = subprocess.run(
        ["systemd-analyze", "--user", "verify", str(path)],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path / "run")},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_path_that_no_unit_can_contain_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.home = Path("/a\nExecStartPre=/bin/evil")
    with pytest.raises(UsageError, match="control characters"):
        service.unit_text(store, "m", PLAIN)


@pytest.mark.parametrize("address", ["0.0.0.0:80", "/tmp/socket", ":0", "example.org:80", "", "unixx"])
def test_another_address_is_refused_before_anything_is_done(store: Store, manager: Path, address: str) -> None:
    if address:
        with pytest.raises(UsageError):
            service.install(store, "m", address)
    assert not (manager / "calls").exists()


# Its life


@pytest.mark.slow
def test_a_service_is_installed_follows_the_current_version_and_is_removed(
    store: Store, manager: Path, tmp_path: Path
) -> None:
    make_current(store, "a" * 64, classifier())
    found = service.install(store, "m", "unix")
    path = tmp_path / "run" / "seed-m.sock"
    assert metadata(path)["name"] == "classifier"
    assert (found["address"], found["active"], found["linger"]) == (f"unix:{path}", "active", True)
    assert found["memory_max"] == found["max_memory"] + plan.MARGIN
    assert ["enable", "seed-m.service"] in calls(manager)
    assert (manager / "loginctl").read_text().startswith("--no-ask-password enable-linger ")
    assert service.status(store, "m") == found
    make_current(store, "b" * 64, classifier())
    again = service.restart(store, "m")
    assert again is not None
    assert again["pid"] != found["pid"]
    # Its plan is made by a process of its own, so that it is always the same but for the size of Python.
    assert abs(again["max_memory"] - found["max_memory"]) < 4 << 20
    assert "serving classifier" in service.log("m", 5)[-1]
    service.remove(store, "m")
    assert not path.exists()
    assert not unit_file().exists()
    assert service.status(store, "m") is None
    assert service.restart(store, "m") is None
    service.remove(store, "m")


@pytest.mark.slow
def test_a_version_that_does_not_start_leaves_the_unit_as_it_was(store: Store, manager: Path, tmp_path: Path) -> None:
    make_current(store, "a" * 64, classifier())
    service.install(store, "m", "unix")
    before = unit_file().read_text()
    before_json = (store.model("m").folder / "service.json").read_bytes()
    damaged = bytearray(classifier(footprint=False))
    damaged[-40] ^= 1  # the header is right, and what is decoded is not
    make_current(store, "b" * 64, bytes(damaged))
    with pytest.raises(systemd.ServiceError) as caught:
        service.restart(store, "m")
    assert caught.value.exit_code == 10
    assert "damaged" in str(caught.value)
    assert unit_file().read_text() == before
    assert (store.model("m").folder / "service.json").read_bytes() == before_json
    with store.model("m").locked(0), store.model("m").switched_to("a" * 64):
        service.restart(store, "m")
    assert metadata(tmp_path / "run" / "seed-m.sock")["name"] == "classifier"


@pytest.mark.slow
def test_a_first_service_that_does_not_start_leaves_nothing(store: Store, manager: Path) -> None:
    damaged = bytearray(classifier())
    damaged[-40] ^= 1
    make_current(store, "a" * 64, bytes(damaged))
    with pytest.raises(systemd.ServiceError):
        service.install(store, "m", "unix")
    assert not unit_file().exists()
    assert service.status(store, "m") is None
    assert ["disable", "--now", "seed-m.service"] in calls(manager)


@pytest.mark.slow
def test_a_limit_that_is_too_small_is_reported_before_anything_is_written(store: Store, manager: Path) -> None:
    make_current(store, "a" * 64, classifier())
    with pytest.raises(systemd.ServiceError, match="allow at least --max-memory") as caught:
        service.install(store, "m", "unix", memory_max=50 << 20)
    assert caught.value.exit_code == 14
    assert not unit_file().exists()
    make_current(store, "b" * 64, classifier(footprint=False))
    found = service.install(store, "m", "unix", memory_max=300 << 20)
    assert (found["max_memory"], found["memory_max"]) == (None, 300 << 20)


def test_a_missing_manager_and_a_missing_model_are_reported(
    store: Store, manager: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systemd, "_BOOTED", str(manager))
    with pytest.raises(UsageError, match="push a model first"):
        service.install(store, "m", "unix")
    (manager / "no-manager").touch()
    with pytest.raises(systemd.ServiceError, match=r"No medium found.*sudo loginctl enable-linger"):
        service.install(store, "m", "unix")
    assert not unit_file().exists()


def test_where_systemd_did_not_start_the_system_nobody_is_sent_to_loginctl(
    store: Store, manager: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systemd, "_BOOTED", str(manager / "none"))
    (manager / "no-manager").touch()
    with pytest.raises(systemd.ServiceError, match="has no systemd; let its own service manager start"):
        service.install(store, "m", "unix")


def test_a_device_without_systemd_is_reported(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(systemd.ServiceError, match="has no systemd") as caught:
        service.install(store, "m", "unix")
    assert caught.value.exit_code == 12
    assert service.log("m", 5) == []
