"""A real sshd on a loopback port, and devices behind it: each an alias with a home, a store and XDG folders of its own.

It runs as the user who runs the tests. What tells one device from another is the key that logs in:
authorized_keys gives each key its own environment.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from seed_runtime.version import __version__
from tests.devices.support.account import make_home, own_account
from tests.support.ports import free_port
from tests.support.project import ROOT, skip_or_fail

RUNTIME = f"{__version__}-00000000"
MakeDevice = Callable[..., "Device"]
"""The fixture `make_device`: takes the arguments of Sshd.device but for the alias."""
_START_S = 60
_LISTENS = b"Server listening on"
"""What sshd says once the port is its own."""


@dataclass(frozen=True)
class Device:
    """A device. `alias` is its Host in the ssh_config `config`."""

    alias: str
    config: Path
    home: Path

    @property
    def store(self) -> Path:
        return self.home / "store"

    def model(self, name: str) -> Path:
        return self.store / "models" / name

    def install_runtime(self) -> None:
        """Make the folder of a runtime; its interpreter is the one that runs the tests."""
        put_runtime(self.store)

    def processes(self) -> list[str]:
        """Return the command lines of ssh to this device, and of what runs on it with its home folder.

        Another run of the tests may have a device of the same alias, with a config of its own. An agent's command line
        names no device, and ps cuts lines at 80 columns.
        """
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it ended, or is somebody else's
                words, variables = (
                    (folder / name).read_text(errors="replace").split("\0") for name in ("cmdline", "environ")
                )
                if f"HOME={self.home}" in variables or (
                    words[0] == "ssh" and {str(self.config), self.alias} <= set(words)
                ):
                    found.append(" ".join(words))
        return found


class Sshd:
    """The server. `config` is the ssh_config that knows all its devices; stop it when done.

    It has no sftp, which nothing may need.

    Args:
        folder: for its files.
        port: where it listens; a free one if None.
        settings: more lines for its sshd_config, before all others.
        password: whether logins take account.PASSWORD and no key, for `account`, the only device then.
    """

    def __init__(self, folder: Path, port: int | None = None, settings: str = "", password: bool = False) -> None:
        program = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        if program is None or shutil.which("ssh") is None:
            skip_or_fail("there is no sshd on this machine: apt install openssh-server openssh-client")
        if os.geteuid() == 0:
            try:
                Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
            except OSError as error:
                skip_or_fail(f"sshd needs /run/sshd when it is started by root: {error}")
        self.folder, self.settings = folder, settings
        self.command = [program, "-D", "-e", "-f", str(folder / "sshd_config")]
        if password:
            self.settings += "PasswordAuthentication yes\nPubkeyAuthentication no\n"
            self.account = Device("", folder / "ssh_config", make_home(folder))
            self.command = own_account(folder, self.account.home, self.command)
        self.port = port or free_port()
        self.config, self.known_hosts = folder / "ssh_config", folder / "known_hosts"
        self._authorized = folder / "authorized_keys"
        self._authorized.touch()
        self._process: subprocess.Popen[bytes] | None = None
        self.host_key = make_key(folder / "host_key")
        self._trust()
        self.config.write_text("")
        self.start()

    def start(self) -> None:
        (self.folder / "sshd_config").write_text(
            # Of a setting that is there twice the first counts.
            f"{self.settings}ListenAddress 127.0.0.1\nPort {self.port}\nHostKey {self.host_key}\nPidFile none\n"
            f"AuthorizedKeysFile {self._authorized}\nPermitUserEnvironment yes\nStrictModes no\nUsePAM no\n"
            "PermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            "MaxStartups 500\nMaxSessions 500\nPrintMotd no\nUseDNS no\n"
        )
        with (self.folder / "sshd.log").open("ab") as log:
            begin = log.tell()
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stderr=log,
            )
        until = time.monotonic() + _START_S
        # Not asked at its port, where the server of another run of the tests might answer.
        while _LISTENS not in (said := (self.folder / "sshd.log").read_bytes()[begin:]):
            if self._process.poll() is not None or time.monotonic() > until:
                self.stop()
                pytest.fail(f"sshd did not start:\n{said.decode(errors='replace')}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop the server and the sessions that it serves."""
        if self._process is not None:
            for child in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            self._process.terminate()
            self._process.wait()
            self._process = None

    def processes(self) -> list[int]:
        """Return all processes behind the server: sessions, and what runs in them."""
        return _descendants(self._process.pid) if self._process is not None else []

    def device(
        self,
        alias: str,
        *,
        runtime: bool = True,
        environment: Mapping[str, str] | None = None,
        port: int | None = None,
        command: str | None = None,
    ) -> Device:
        """Make a new device.

        Args:
            runtime: whether one is installed there.
            environment: beside HOME, SEED_HOME and the XDG folders, or instead of them.
            port: where ssh goes, if not straight to the server.
            command: what runs there, whatever was asked for (SSH_ORIGINAL_COMMAND).
        """
        home = self.folder / "devices" / alias
        home.mkdir(parents=True)
        key = make_key(self.folder / f"key-{alias}")
        settings = {"HOME": home, "SEED_HOME": home / "store", "XDG_RUNTIME_DIR": home / "run"}
        settings |= {f"XDG_{kind}_HOME": home / kind.lower() for kind in ("CACHE", "CONFIG", "DATA", "STATE")}
        settings |= dict(environment or {})
        (home / "run").mkdir()
        options = [f'environment="{name}={value}"' for name, value in settings.items()]
        options += [f'command="{command}"'] if command else []
        with self._authorized.open("a") as file:
            file.write(f"{','.join(options)} {key.with_suffix('.pub').read_text()}")
        self.alias(alias, key, port=port)
        device = Device(alias, self.config, home)
        if runtime:
            device.install_runtime()
        return device

    def alias(self, alias: str, key: Path, *, port: int | None = None, known_hosts: Path | None = None) -> None:
        """Add a Host to the ssh_config."""
        with self.config.open("a") as file:
            file.write(
                f"Host {alias}\n  HostName 127.0.0.1\n  Port {port or self.port}\n  HostKeyAlias seed-test\n"
                f"  IdentityFile {key}\n  IdentitiesOnly yes\n  IdentityAgent none\n"
                f"  UserKnownHostsFile {known_hosts or self.known_hosts}\n  GlobalKnownHostsFile /dev/null\n"
            )

    def key_of(self, device: Device) -> Path:
        return self.folder / f"key-{device.alias}"

    def fleet(self, count: int) -> list[Device]:
        """Make devices with stores of their own that share one installed runtime."""
        devices = [self.device(f"shared{number}", runtime=False) for number in range(count)]
        shared = Device("shared", self.config, self.folder / "shared")
        shared.install_runtime()
        for device in devices:
            device.store.mkdir()
            (device.store / "runtime").symlink_to(shared.store / "runtime")
        return devices

    def change_host_key(self) -> None:
        """Change the server's key, as a new installation of its system does: ssh knows the old one."""
        self.stop()
        self.host_key = make_key(self.folder / f"host_key-{time.monotonic_ns()}")
        self.start()

    def _trust(self) -> None:
        self.known_hosts.write_text(f"seed-test {self.host_key.with_suffix('.pub').read_text()}")


def put_runtime(store: Path) -> None:
    """Put a runtime into `store`: the code under test and the interpreter of the tests."""
    folder = store / "runtime" / RUNTIME / "bin"
    folder.mkdir(parents=True)
    path = f"{shlex.quote(str(ROOT / 'runtime'))}${{PYTHONPATH:+:$PYTHONPATH}}"
    start = f"#!/bin/sh\nPYTHONPATH={path} exec {shlex.quote(sys.executable)}"
    for name, words in (("python", ""), ("seed-run", " -m seed_runtime.cli")):
        (folder / name).write_text(f'{start}{words} "$@"\n')
        (folder / name).chmod(0o755)
    packages = store / "runtime" / RUNTIME / "lib" / "python3" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "seed_runtime").symlink_to(ROOT / "runtime" / "seed_runtime")
    (store / "runtime" / "current").symlink_to(RUNTIME)


def make_key(path: Path) -> Path:
    """Make a key pair without a passphrase."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    return path


def answers(port: int) -> bool:
    """Return True if an SSH server answers on a port of this machine."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _descendants(pid: int) -> list[int]:
    """Return the children of a process, their children, and so on."""
    listed = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = [tuple(map(int, line.split())) for line in listed.splitlines()]
    found, wanted = [], {pid}
    while new := [child for child, parent in pairs if parent in wanted and child not in found]:
        found += new
        wanted = set(new)
    return found
