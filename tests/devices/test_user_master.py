"""A connection that the user has opened, with a password: it is used where keys don't get in."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from seed_devices.errors import AuthenticationError, UnreachableError
from seed_devices.ssh.command_line import BY_HAND
from seed_devices.ssh.connection import Connection
from tests.devices.support.account import PASSWORD
from tests.devices.support.commands import deploy, stderr_of
from tests.devices.support.proxy import Proxy
from tests.devices.support.seeds import EXAMPLE
from tests.devices.support.sshd import Device, MakeDevice, Sshd, make_key


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """Return a server that takes a password and no key."""
    server = Sshd(tmp_path_factory.mktemp("asking"), password=True)
    server.alias("asking", make_key(server.folder / "key"))
    yield server
    server.stop()


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the user's home, with a path short enough for sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="h") as folder:
        monkeypatch.setenv("HOME", folder)
        (Path(folder) / ".ssh").mkdir(mode=0o700)
        yield Path(folder)


class Users:
    """What a user does at a terminal."""

    def __init__(self, home: Path) -> None:
        askpass = home / "askpass"
        askpass.write_text(f"#!/bin/sh\necho {PASSWORD}\n")
        askpass.chmod(0o700)
        self.environment = {**os.environ, "SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":0"}

    def type(self, command: str) -> None:
        """Run a command line, and give the password where it asks for it."""
        subprocess.run(
            ["bash", "-c", command],
            check=True,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


@pytest.fixture
def users(home: Path) -> Users:
    return Users(home)


@pytest.fixture
def device(asking: Sshd, tmp_path: Path) -> Device:
    """Return the device that asks for a password, with a runtime, in an ssh_config of its own."""
    config = tmp_path / "ssh_config"
    config.write_text(asking.config.read_text())
    if not (asking.account.store / "runtime").exists():
        asking.account.install_runtime()
    return dataclasses.replace(asking.account, alias="asking", config=config)


def connect(device: Device) -> Connection:
    return Connection(device.alias, config=device.config)


def add_to_config(device: Device, line: str) -> None:
    device.config.write_text(f"{device.config.read_text()}  {line}\n")


@contextlib.contextmanager
def opened(users: Users, command: str) -> Iterator[None]:
    """Open a connection by a command line that ends with the host, and close it after the block."""
    users.type(command)
    try:
        yield
    finally:
        users.type(command.replace("-fNM", "-O exit"))


@pytest.mark.slow
def test_the_refusal_names_a_command_after_which_every_command_works(device: Device, users: Users, home: Path) -> None:
    done = deploy(device.config, "doctor", device.alias)
    assert done.returncode == 21
    found = re.search(
        r"refused: \S+: Permission denied \(password\); .* ; or open a connection, .*: (ssh .*)\n", stderr_of(done)
    )
    assert found
    assert found[1] == f"ssh -F {device.config} -fNM -S ~/.ssh/seed-%C {device.alias}"
    with opened(users, found[1]):
        for command in ("push", "push", "doctor"):
            words = [EXAMPLE] if command == "push" else []
            done = deploy(device.config, command, *words, device.alias)
            assert done.returncode == 0, stderr_of(done)
        assert len(list((home / ".ssh").glob("seed-*"))) == 1
    with connect(device) as connection, pytest.raises(AuthenticationError):
        connection.run("true")


@pytest.mark.parametrize("path", ["cm-%C", "cm %r@%h:%p", "100%%"])
def test_a_connection_is_found_where_the_users_configuration_has_it(
    device: Device, users: Users, home: Path, path: str
) -> None:
    add_to_config(device, f'ControlPath "{home}/{path}"')
    with opened(users, f"ssh -F {device.config} -fNM {device.alias}"), connect(device) as connection:
        assert connection.run("echo in").text == "in\n"
        assert connection.run("echo again").text == "again\n"


def test_a_connection_through_a_jump_host_is_found(
    device: Device, users: Users, home: Path, make_device: MakeDevice
) -> None:
    jump = make_device(runtime=False)
    device.config.write_text(jump.config.read_text() + device.config.read_text())
    add_to_config(device, f"ProxyJump {jump.alias}\n  ControlPath {home}/cm-%C")
    with opened(users, f"ssh -F {device.config} -fNM {device.alias}"), connect(device) as connection:
        assert connection.run("echo in").text == "in\n"


def test_one_that_is_gone_or_hangs_is_passed_over_where_keys_get_in(
    make_device: MakeDevice, users: Users, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seed_devices.ssh.user_master._ASK_S", 0.5)
    made = make_device(runtime=False)
    config = tmp_path / "ssh_config"
    config.write_text(f"ControlPath {home}/cm\n{made.config.read_text()}")
    device = dataclasses.replace(made, config=config)
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(f"{home}/cm")
        with connect(device) as connection:
            assert connection.run("echo in").text == "in\n"
        gone.listen()  # and never answers
        with connect(device) as connection:
            assert connection.run("echo in").text == "in\n"


def test_one_is_found_where_no_configuration_names_it(device: Device, users: Users, home: Path) -> None:
    with opened(users, f"ssh -F {device.config} -fNM -S {BY_HAND} {device.alias}"), connect(device) as connection:
        assert connection.run("echo in").text == "in\n"


def test_one_that_dies_in_between_is_a_lost_connection(device: Device, users: Users, home: Path) -> None:
    add_to_config(device, f"ControlPath {home}/cm")
    users.type(f"ssh -F {device.config} -fNM {device.alias}")
    with connect(device) as connection:
        connection.run("true")
        users.type(f"ssh -F {device.config} -O exit {device.alias}")
        with pytest.raises(UnreachableError, match="the connection was lost"):
            connection.run("true")


def test_one_over_a_dead_link_is_told_with_the_command_that_closes_it(
    asking: Sshd, device: Device, users: Users, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seed_devices.ssh.connection.SHELL_S", 1)
    with Proxy(asking.port) as proxy:
        device.config.write_text(device.config.read_text().replace(f"Port {asking.port}", f"Port {proxy.port}"))
        add_to_config(device, f"ControlPath {home}/cm")
        with opened(users, f"ssh -F {device.config} -fNM {device.alias}"):
            proxy.silent = True
            with connect(device) as connection, pytest.raises(UnreachableError) as caught:
                connection.run("true")
    assert "on the connection that you have opened to it" in str(caught.value)
    assert f"close it: ssh -S {home}/cm -O exit {device.alias} ," in str(caught.value)
