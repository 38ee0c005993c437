"""One connection to a device, by the system's OpenSSH: its configuration, agent, jump hosts and known keys hold.

The first command that is started opens the connection (ControlMaster) and the others share it, so its `popen` is to be
kept open. Where `run` comes first, a command that only waits opens it. If the user has opened a connection to the
device, all commands share that one, which is how devices are reached that ask for a password or a second factor.
All commands end when this process does, however it ends: each waits on a pipe that it holds.
Nothing is ever asked on the terminal. A link that died is noticed after LINK_DEAD_S, a device that hangs on a link that
stands after SILENCE_S.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Final

from seed_devices import names
from seed_devices.errors import RemoteError, UnreachableError
from seed_devices.ssh import processes, ssh_errors, user_master
from seed_devices.ssh.command_line import Route
from seed_devices.ssh.control_dir import make_control_dir
from seed_devices.ssh.pace import Pace
from seed_devices.ssh.processes import Tail
from seed_devices.ssh.shell import SHELL_S, START_S, Script
from seed_devices.terminal_text import plain_lines
from seed_runtime.errors import SeedError

SILENCE_S: Final = 180
"""Seconds of silence of a program there that reports all along (`line`): memory that is short holds up even that."""
PROGRAM_S: Final = 600
"""Seconds that a small program may run there (`python`): the doctor's starts the runtime twice, within 180 s each."""
OUTPUT_MAX: Final = 16 << 20
"""Largest output of a command, in bytes."""
_NOISE_MAX: Final = 64 << 10
"""Most output of a program before the first line that was waited for, in bytes."""
_CLOSE_S: Final = 0.5
"""Seconds that the connection gets to end by itself."""

_WAIT: Final = "exec cat >/dev/null"


@dataclass(frozen=True)
class Completed:
    """Exit code and output of a command on the device."""

    code: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        """Return the output as text."""
        return self.stdout.decode(errors="replace")


class Connection:
    """The connection to a device. It opens with its first command; close it. Not thread-safe.

    Args:
        target: `[user@]host`, or an alias of ssh_config.
        config: an ssh_config in place of the user's (`-F`).
        accept_new: accept the key of a host that was never seen; a changed one is refused all the same.
        port: in place of the configuration's.

    Every command may raise UnreachableError, AuthenticationError and HostKeyError.
    """

    def __init__(
        self, target: str, *, config: Path | None = None, accept_new: bool = False, port: int | None = None
    ) -> None:
        self._route = Route(target, config, accept_new, port)
        self.target = names.device_name(target, port)
        """The device's name, as a user can paste it."""
        self.interpreter = "python3"
        """The device's Python that runs programs there, a path or a command."""
        self.max_rate: int | None = None
        """The largest rate of a transfer whose caller gives none, in bytes per second."""
        self.shared_pace: Pace | None = None
        """The pace that its transfers share with those of other connections."""
        self._folder: Path | None = None
        self._user_master: str | None = None
        self._master: subprocess.Popen[bytes] | None = None
        self._clients: list[subprocess.Popen[bytes]] = []
        self._tails: dict[int, Tail] = {}
        self._was_up = False
        self._shell_works = False

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop what still runs, and close the connection, unless it is the user's own."""
        if self._user_master is not None:
            for client in self._clients:
                processes.stop(client, 0)
            self._user_master = None
        if self._master is not None:
            # It waits for every session, also for one whose command hangs.
            processes.stop(self._master, _CLOSE_S)
            self._master = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def run(
        self, script: str, *arguments: str, stdin: bytes = b"", timeout: float | None = None, check: bool = True
    ) -> Completed:
        """Run a script there, to its end.

        Args:
            script: for the device's sh.
            arguments: what the script knows as `$1` and so on.
            stdin: its input.
            timeout: seconds after which it is stopped.
            check: raise an error unless it returns 0.

        Raises:
            RemoteError: it returned another code, or printed more than OUTPUT_MAX.
            UnreachableError: it took longer than `timeout`.
        """
        self.hold()
        process = self.popen(script, *arguments)
        feeder = threading.Thread(target=processes.write_all, args=(process.stdin, stdin), daemon=True)
        feeder.start()
        try:
            with processes.killed_after(process, timeout) as expired:
                assert process.stdout is not None
                stdout = process.stdout.read(OUTPUT_MAX + 1)
                if len(stdout) > OUTPUT_MAX:
                    raise RemoteError(
                        1, f"{self.target}: `{_short(script)}` printed more than {OUTPUT_MAX:,} bytes; try it there"
                    )
                code = process.wait()
        finally:
            # Before its pipes are closed: what still waits on one of them holds its lock.
            processes.kill(process, signal.SIGKILL)
            feeder.join()
            processes.stop(process)
        if expired.is_set():
            raise UnreachableError(
                self.target,
                f"no answer within {timeout:g} s",
                f"see whether it is busy: ssh {names.ssh_words(self.target)} uptime",
            )
        if code == 255 or code < 0:
            raise self.failure(process)
        stderr = self.stderr_of(process)
        if check and code:
            lines = stderr.strip().splitlines()
            raise RemoteError(
                1,
                f"{self.target}: `{_short(script)}` returned {code}{': ' + lines[-1] if lines else ''}; try it there",
            )
        return Completed(code, stdout, stderr)

    def python(self, source: str, *arguments: str) -> Completed:
        """Run a program with the device's own Python, for PROGRAM_S at most, whatever it returns."""
        words, stdin = (self.interpreter, *arguments), source.encode()
        return self.run('p=$1; shift; exec "$p" - "$@"', *words, stdin=stdin, timeout=PROGRAM_S, check=False)

    def popen(
        self,
        script: str,
        *arguments: str,
        stdin: int | IO[bytes] = subprocess.PIPE,
        stderr: int | IO[bytes] | None = subprocess.PIPE,
    ) -> subprocess.Popen[bytes]:
        """Start a script there and return once it runs; the first one opens the connection.

        What the login shell prints before it is skipped. Its stderr is read in the background, see `stderr_of`, unless
        it is to go elsewhere.

        Args:
            script: for the device's sh.
            arguments: what the script knows as `$1` and so on.
            stdin: its input.
            stderr: where its messages go.

        Raises:
            UnreachableError: the login shell waits for something and doesn't run it.
            RemoteError: the login shell ends without running it.
        """
        is_master = self._is_master_needed()
        order = Script(script, *arguments)
        argv = self._route.ssh(order.command, self.control_path, master=is_master)
        process = processes.start(argv, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr)
        if process.stderr is not None:
            self._tails[process.pid] = Tail(process.stderr)
        if is_master:
            self._master = process
        else:
            self._clients = [client for client in self._clients if client.poll() is None] + [process]
        assert process.stdout is not None
        # Once a command ran here, a silent shell is a slow one: memory may be short.
        patience_s = START_S if self._shell_works else SHELL_S
        started = order.wait(process.stdout, lambda: not is_master or Path(self.control_path).exists(), patience_s)
        if started.state == "runs":
            self._was_up = self._shell_works = True
            return process
        if started.state != "ended":
            processes.kill(process, signal.SIGKILL)
            raise ssh_errors.shell_error(
                self.target, started, stderr=self.stderr_of(process), user_master=self._user_master
            )
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(processes.STOP_S)
        if process.returncode is None or process.returncode == 255 or process.returncode < 0:
            raise self.failure(process)
        raise ssh_errors.shell_error(
            self.target, started, code=process.returncode, stderr=self.stderr_of(process), user_master=self._user_master
        )

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """Stop a command that `popen` started. The one that others share only gets the end of its input."""
        if process is self._master and self._has_clients:
            if process.stdin is not None:
                process.stdin.close()
            return
        processes.stop(process)
        if process is self._master:
            self._master = None

    def hold(self) -> None:
        """Open the connection, unless it is open, and hold it."""
        if self.is_open:
            return
        self.popen(_WAIT)

    def first_line(
        self, process: subprocess.Popen[bytes], start: bytes | tuple[bytes, ...], line_max: int = _NOISE_MAX
    ) -> bytes | None:
        """Read the first line that begins with `start`, or one of them; returns None at the end of the output.

        What the program prints before it is skipped, as Python packages do that greet on their import.
        """
        assert process.stdout is not None
        with processes.killed_after(process, START_S) as expired:
            left = _NOISE_MAX
            while left > 0:
                line = process.stdout.readline(line_max)
                if line.startswith(start):
                    return line
                if expired.is_set():
                    reason = f"nothing answers within {START_S} s, though the connection stands"
                    raise UnreachableError(self.target, reason, "see what keeps it busy, or restart it")
                if not line:
                    return None
                left -= len(line)
        raise RemoteError(
            12,
            f"{self.target}: its Python prints {_NOISE_MAX:,} bytes at its start; see: "
            f"ssh {names.ssh_words(self.target)} python3 -c pass",
        )

    def line(self, process: subprocess.Popen[bytes], line_max: int) -> bytes:
        """Read the next line of a program that is never silent for long; returns b"" at the end of the output.

        Raises:
            UnreachableError: SILENCE_S passed without a line; the program's connection is ended.
        """
        assert process.stdout is not None
        with processes.killed_after(process, SILENCE_S) as expired:
            line = process.stdout.readline(line_max)
        if expired.is_set():
            raise UnreachableError(
                self.target,
                f"nothing was heard from it for {SILENCE_S:g} s, though the connection stands",
                f"see what keeps it busy: ssh {names.ssh_words(self.target)} uptime , or restart it, then run the same "
                f"command again",
            )
        return line

    @property
    def is_open(self) -> bool:
        """Return True if another command can share the connection."""
        if self._user_master is not None:
            return True
        master = self._master
        if master is None or master.poll() is not None:
            return False
        # After the end of its input, see `end`, it ends with the last of its clients, and would take a new one along.
        return master.stdin is None or not master.stdin.closed or self._has_clients

    @property
    def _has_clients(self) -> bool:
        return any(client.poll() is None for client in self._clients)

    @property
    def control_path(self) -> str:
        """Return the socket by which other ssh programs share this connection, while it is open."""
        if self._user_master is not None:
            return self._user_master
        if self._folder is None:
            self._folder = make_control_dir()
        return str(self._folder / "s")

    def failure(self, process: subprocess.Popen[bytes]) -> SeedError:
        """Return why ssh ended, by what it or the command that opened the connection wrote to stderr."""
        if processes.is_stopping():
            return UnreachableError(self.target, "stopped", "run the same command again")
        # Its pipes are closed a moment before it ends, and what it wrote may still be on its way to us.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
        text = self.stderr_of(process)
        if self._master is not None and self._master is not process and not self._is_alive(within_s=1):
            text = self.stderr_of(self._master) + text
        return ssh_errors.ssh_error(self.target, text, was_up=self._was_up, by_hand=self._route.by_hand)

    def stderr_of(self, process: subprocess.Popen[bytes]) -> str:
        """Return the end of what a command wrote to stderr so far, all of it if it has ended, made plain."""
        tail = self._tails.get(process.pid)
        if tail is None:
            return ""
        if process.poll() is not None:
            tail.join(processes.STOP_S)
        return plain_lines(tail.text())

    def _is_master_needed(self) -> bool:
        """Return True if the next command has to open the connection."""
        if self.is_open:
            return False
        if self._master is not None:
            processes.stop(self._master)  # before the next one starts: both have the same ControlPath
        self._user_master = user_master.find(self._route)
        # What fails from now on is a connection that was lost.
        self._was_up = self._was_up or self._user_master is not None
        return self._user_master is None

    def _is_alive(self, within_s: float) -> bool:
        """Return whether the connection stands; it may take a moment until its end shows."""
        until = time.monotonic() + within_s
        while self.is_open:
            if time.monotonic() > until:
                return True
            time.sleep(0.02)
        return False


def _short(command: str) -> str:
    return command if len(command) <= 60 else f"{command[:57]}..."
