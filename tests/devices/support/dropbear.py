"""Dropbear on a loopback port, as small boards have it: no sftp, no environment by key, BusyBox as its programs.

Dropbear looks for a user's keys in the home that /etc/passwd names, so it runs with an account of the test's own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.devices.support.account import make_home, own_account
from tests.devices.support.sshd import Device, answers, make_key
from tests.support.ports import free_port
from tests.support.project import skip_or_fail

_START_S = 60


class Dropbear:
    """The server, and the one device behind it; stop it when done."""

    def __init__(self, folder: Path, shell: str = "/bin/sh") -> None:
        path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
        server, keys = (shutil.which(name, path=path) for name in ("dropbear", "dropbearkey"))
        if server is None or keys is None or shutil.which("ssh") is None:
            skip_or_fail("there is no Dropbear on this machine: apt install dropbear-bin openssh-client")
        self.port = free_port()
        home = make_home(folder)
        key = make_key(folder / "key")
        (home / ".ssh" / "authorized_keys").write_text(key.with_suffix(".pub").read_text())
        (home / ".ssh" / "authorized_keys").chmod(0o600)
        made = subprocess.run(
            [keys, "-t", "ed25519", "-f", str(folder / "host")], check=True, capture_output=True, text=True
        )
        public = next(line for line in made.stdout.splitlines() if line.startswith("ssh-ed25519 "))
        (folder / "known_hosts").write_text(f"seed-test {public}\n")
        config = folder / "ssh_config"
        config.write_text(
            f"Host board\n  HostName 127.0.0.1\n  Port {self.port}\n  IdentityFile {key}\n"
            f"  IdentitiesOnly yes\n  IdentityAgent none\n  UserKnownHostsFile {folder / 'known_hosts'}\n"
            "  GlobalKnownHostsFile /dev/null\n  HostKeyAlias seed-test\n"
        )
        self.device = Device("board", config, home)
        words = [server, "-F", "-E", "-m", "-s", "-r", str(folder / "host"), "-P", str(folder / "pid")]
        words = own_account(folder, home, [*words, "-p", f"127.0.0.1:{self.port}"], shell=shell)
        with (folder / "log").open("ab") as log:
            self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=log)
        until = time.monotonic() + _START_S
        while not answers(self.port):
            assert time.monotonic() < until, (folder / "log").read_text()
            if self._process.poll() is not None:
                self.stop()
                pytest.skip(f"Dropbear did not start: {(folder / 'log').read_text()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop the server; its sessions end with their clients."""
        self._process.terminate()
        self._process.wait()
