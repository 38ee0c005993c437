"""A whole emulated arm64 machine that can be booted, used over SSH and cut off from its power.

A `Machine` is one board with a state folder: what its disk flushed is stored there, and the next boot finds it again.
The guest reaches no network; its sshd is reached through a port of 127.0.0.1.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.interop.support.arm64 import tool
from tests.interop.support.machine_image import USER, Image
from tests.support.ports import free_port
from tests.support.project import ROOT

BOOT_LIMIT = 240
"""Seconds that booting may take, on a busy machine."""
_BOUND = ("setpriv", "--pdeathsig", "KILL")
"""Prefix of commands that end with the process that started them, even if that is killed."""


class Machine:
    """One board. As a context manager it is powered off in the end, without a shutdown.

    Args:
        image: The files it is made of.
        state: Folder for what its disk stores, and for its console's log.
        memory: Its memory [MiB].
    """

    def __init__(self, image: Image, state: Path, memory: int = 512) -> None:
        self.image, self.state, self.memory = image, state, memory
        state.mkdir(parents=True, exist_ok=True)
        self.ssh_config = state / "ssh_config"
        self._short = Path(tempfile.mkdtemp(prefix="seed-m"))  # a socket's path must be short
        self.port = free_port()
        self._disk: subprocess.Popen[bytes] | None = None
        self._board: subprocess.Popen[bytes] | None = None
        self.boots = 0
        self._write_ssh_config()

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        shutil.rmtree(self._short, ignore_errors=True)

    @property
    def console(self) -> str:
        return (self.state / "console").read_text(errors="replace")

    def boot(self, torn: int = 0) -> float:
        """Switch it on and wait for its sshd. Returns the seconds this took."""
        began = time.monotonic()
        self.boots += 1
        path = self._short / f"disk{self.boots}"
        self._disk = subprocess.Popen(
            [
                *(
                    *_BOUND,
                    sys.executable,
                    "-m",
                    "tests.interop.support.disk",
                    str(self.image.disk),
                    str(self.state / "disk"),
                ),
                *(str(path), f"--torn={torn}"),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )
        assert self._disk.stdout
        assert self._disk.stdout.readline() == b"ready\n"
        with (self.state / "console").open("wb") as console:
            self._board = subprocess.Popen(
                [
                    *(*_BOUND, tool("qemu-system-aarch64"), "-M", "virt", "-cpu", "cortex-a72", "-smp", "2"),
                    *(
                        "-m",
                        str(self.memory),
                        "-accel",
                        "tcg,thread=multi,tb-size=128",
                        "-nodefaults",
                        "-display",
                        "none",
                    ),
                    *("-serial", "stdio", "-kernel", str(self.image.kernel), "-initrd", str(self.image.initrd)),
                    *("-append", "console=ttyAMA0 quiet loglevel=4 net.ifnames=0 systemd.show_status=0 panic=1"),
                    *("-blockdev", f"driver=nbd,node-name=disk,server.type=unix,server.path={path}"),
                    *("-device", "virtio-blk-device,drive=disk,serial=seed"),
                    *("-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{self.port}-:22"),
                    *("-device", "virtio-net-device,netdev=net", "-device", "virtio-rng-device", "-no-reboot"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
            )
        while not self._answers():
            if self._board.poll() is not None or time.monotonic() - began > BOOT_LIMIT:
                raise TimeoutError(f"the machine's sshd doesn't answer\n{self.console[-4000:]}")
            time.sleep(0.25)
        return time.monotonic() - began

    def cut(self, torn: bool = False) -> None:
        """Cut the power: what wasn't flushed is lost, or half of it if `torn`."""
        for process, number in (
            (self._board, signal.SIGKILL),
            (self._disk, signal.SIGUSR1 if torn else signal.SIGKILL),
        ):
            if process is not None:
                process.send_signal(number)
                process.wait()
                if process.stdout:
                    process.stdout.close()
        self._board = self._disk = None

    def shut_down(self) -> None:
        """Switch it off as a user should: nothing is lost."""
        assert self._board
        self.run("systemctl poweroff", user="root", check=False)
        self._board.wait(timeout=BOOT_LIMIT)
        self.cut()

    def run(
        self, command: str, user: str = USER, stdin: bytes = b"", check: bool = True, timeout: float = 600
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command there."""
        done = subprocess.run(
            [*self.ssh(user), command], input=stdin, capture_output=True, timeout=timeout, check=False
        )
        text = subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())
        assert not check or not text.returncode, f"{command} returned {text.returncode}\n{text.stdout}{text.stderr}"
        return text

    def put(self, local: Path, remote: str) -> None:
        self.run(f"cat > {remote}", stdin=local.read_bytes())

    def ssh(self, user: str = USER) -> list[str]:
        return [tool("ssh"), "-F", str(self.ssh_config), "-l", user, "device"]

    def _answers(self) -> bool:
        # QEMU takes the connection before anything in the guest listens.
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5) as client:
            return client.recv(4) == b"SSH-"
        return False

    def _write_ssh_config(self) -> None:
        known = self.state / "known_hosts"
        known.write_text(f"[127.0.0.1]:{self.port} {self.image.host_key}\n")
        # ssh refuses a key that others may read, and git keeps no modes: the cache's copy is private.
        self.ssh_config.write_text(
            "Host device\n"
            f"  HostName 127.0.0.1\n  Port {self.port}\n  User {USER}\n"
            f"  IdentityFile {self.image.key}\n  IdentitiesOnly yes\n  IdentityAgent none\n"
            f"  UserKnownHostsFile {known}\n  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n"
            "  BatchMode yes\n  ConnectTimeout 60\n  ServerAliveInterval 5\n  ServerAliveCountMax 3\n  LogLevel ERROR\n"
        )
