"""One connection to a device, by the system's OpenSSH: its configuration, agent, jump hosts and known keys hold.

The first command that is started carries the connection (ControlMaster) and the others share it, so its `popen` is
to be kept open. Where `run` comes first, a command that only waits carries it. All of them end when this process
does, however it ends: each waits on a pipe that it holds.
Nothing is ever asked on the terminal. A link that died is noticed after LINK_DEAD_S, a device that hangs on a link
that stands after SILENCE_S.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Final

from seed_devices.errors import RemoteError, UnreachableError
from seed_devices.remote import device_schema
from seed_devices.ssh import control_dir, processes, sftp, ssh_errors
from seed_devices.ssh.processes import Tail, end
from seed_runtime.errors import SeedError, UsageError

__all__ = ["Connection", "Done", "end"]

LINK_DEAD_S: Final = 15
START_S: Final = 180
"""How long a login and the start of a program there may take: Python on a slow card, with memory short."""
SILENCE_S: Final = 180
"""How long a program there that reports all along (`line`) may say nothing: memory that is short holds up even that."""
PROGRAM_S: Final = 600
"""How long a small program may run there (`python`): the doctor's starts the runtime twice, within 180 s each."""
OUTPUT_MAX: Final = 16 << 20
"""Bytes that a command's output may have."""
_NOISE_MAX: Final = 64 << 10
"""Bytes that a device's shell may print before the first line that was waited for."""
_CLOSE_S: Final = 0.5

_READY = "seed-ready"
_WAIT = f"sh -c 'echo {_READY}; exec cat >/dev/null'"


@dataclass(frozen=True)
class Done:
    """How a command on the device ended."""

    code: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        return self.stdout.decode(errors="replace")


class Connection:
    """The device `target`: `[user@]host` or an alias of ssh_config. Opens with its first command; close it.

    Args:
        config: ssh_config instead of the user's (`-F`).
        accept_new: take the key of a host that was never seen; a changed one is refused all the same.
        port: instead of the configuration's.

    Errors: UnreachableError, AuthenticationError, HostKeyError. Not thread-safe.
    """

    def __init__(
        self, target: str, *, config: Path | None = None, accept_new: bool = False, port: int | None = None
    ) -> None:
        if not target or target.startswith("-") or any(ord(letter) <= 32 for letter in target):
            raise UsageError(f"{target!r} is no host; write [user@]host, or an alias of your ssh_config")
        if config is not None and not config.is_file():
            raise UsageError(f"{config}: there is no such ssh_config; give another path with -F")
        self.target = target
        self.max_rate: int | None = None
        """Bytes per second of what `put` sends, where it isn't told otherwise."""
        self._accept_new, self._config, self._port = accept_new, config, port
        self._folder: Path | None = None
        self._lead: subprocess.Popen[bytes] | None = None
        self._guests: list[subprocess.Popen[bytes]] = []
        self._tails: dict[int, Tail] = {}
        self._was_up = False

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End what still runs, the connection last."""
        if self._lead is not None:
            # It waits for every session, also for one whose command hangs.
            end(self._lead, _CLOSE_S)
            self._lead = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def run(
        self, command: str, *, stdin: bytes | None = None, timeout: float | None = None, check: bool = True
    ) -> Done:
        """Run a shell command there, to its end. With `check`, RemoteError unless it returns 0.

        `timeout` [s] ends it with an UnreachableError.
        """
        self.keep()
        process = self.popen(command)
        feeder = threading.Thread(target=processes.feed, args=(process.stdin, stdin or b""), daemon=True)
        feeder.start()
        try:
            with processes.limited(process, timeout) as expired:
                assert process.stdout is not None
                stdout = process.stdout.read(OUTPUT_MAX + 1)
                if len(stdout) > OUTPUT_MAX:
                    raise RemoteError(1, f"{self.target}: `{_short(command)}` printed more than {OUTPUT_MAX:,} bytes")
                code = process.wait()
        finally:
            # Before its pipes are closed: what still waits on one of them holds its lock.
            processes.kill(process, signal.SIGKILL)
            feeder.join()
            end(process)
        if expired.is_set():
            raise UnreachableError(
                self.target,
                f"no answer within {timeout:g} s",
                f"see whether it is busy: ssh {shlex.quote(self.target)} uptime",
            )
        if code == 255 or code < 0:
            raise self.failure(process)
        stderr = self.stderr_of(process)
        if check and code:
            said = stderr.strip().splitlines()
            raise RemoteError(
                1, f"{self.target}: `{_short(command)}` returned {code}{': ' + said[-1] if said else ''}; try it there"
            )
        return Done(code, stdout, stderr)

    def python(self, source: str, *arguments: str) -> Done:
        """Run a program with the device's own `python3`, PROGRAM_S at most. Whatever it returns is returned."""
        words = " ".join(shlex.quote(argument) for argument in arguments)
        return self.run(f"python3 - {words}", stdin=source.encode(), timeout=PROGRAM_S, check=False)

    def popen(
        self,
        command: str,
        *,
        stdin: int | IO[bytes] = subprocess.PIPE,
        stdout: int | IO[bytes] = subprocess.PIPE,
        stderr: int | IO[bytes] | None = subprocess.PIPE,
    ) -> subprocess.Popen[bytes]:
        """Start a shell command there. The first one carries the connection.

        Its stderr is read in the background, see `stderr_of`, unless it is to go elsewhere.
        """
        leads = not self.is_open
        if leads and self._lead is not None:
            end(self._lead)  # before the next one starts: both have the same ControlPath
        argv = ["ssh", *self._options(leads), "-T", *self._port_option("-p"), "--", self.target, command]
        process = self._start(argv, stdin=stdin, stdout=stdout, stderr=stderr)
        if leads:
            self._lead = process
        else:
            self._guests = [guest for guest in self._guests if guest.poll() is None] + [process]
        return process

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """End a command that `popen` started. The one that carries others only gets the end of its input."""
        if process is self._lead and self._has_guests:
            if process.stdin is not None:
                process.stdin.close()
            return
        end(process)
        if process is self._lead:
            self._lead = None

    def put(
        self,
        local: Path,
        remote: str,
        *,
        resume: bool = False,
        limit_kbit: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Send a file by sftp; with `resume`, only what `remote` doesn't have yet, which must exist.

        A `remote` that has as many bytes already is left alone: whether they are the right ones is the caller's to ask.

        `progress` gets bytes there and bytes in all, read from the device once a second.
        RemoteError with sftp's words where the device refuses, UnreachableError where the link is lost.
        """
        self.keep()
        folder = self._private()
        # A name of ours for the file: sftp expands patterns in what it is given.
        link, batch = folder / "file", folder / "batch"
        link.unlink(missing_ok=True)
        link.symlink_to(local.resolve())
        batch.write_text(f'{"reput" if resume else "put"} "{link}" {sftp.quoted(remote)}\n')
        argv = ["sh", "-c", processes.GUARDED, "sh", "sftp", *self._options(False), *self._port_option("-P")]
        if limit_kbit is None and self.max_rate is not None:
            limit_kbit = self.max_rate * 8 // 1024  # sftp counts in units of 1024 bits
        argv += ["-l", str(max(1, limit_kbit))] if limit_kbit is not None else []
        argv += ["-b", str(batch), "--", sftp.bracketed(self.target)]
        process = self._start(argv, stdout=subprocess.DEVNULL)
        try:
            with self._watched(remote, local.stat().st_size, progress):
                code = process.wait()
        finally:
            end(process)
        if code:
            said = [line for line in self.stderr_of(process).splitlines() if line.strip()]
            if resume and any(sftp.NOTHING_LEFT in line for line in said):
                return
            lost = code > 128 or any("onnection closed" in line for line in said)
            if not self._alive(within_s=1 if lost else 0):
                raise self.failure(self._lead or process)
            if any("subsystem request failed" in line for line in said):
                raise RemoteError(
                    12, f"{self.target}: its sshd has no sftp; add to its sshd_config: Subsystem sftp internal-sftp"
                )
            raise RemoteError(1, f"{self.target}: sftp: {said[-1].strip() if said else f'it returned {code}'}")

    def keep(self) -> None:
        """Open the connection if it isn't, and hold it."""
        if self.is_open:
            return
        process = self.popen(_WAIT)
        if self.first_line(process, _READY.encode()) is None:
            raise self.failure(process)

    def first_line(
        self, process: subprocess.Popen[bytes], start: bytes | tuple[bytes, ...], line_max: int = _NOISE_MAX
    ) -> bytes | None:
        """The first line that begins with `start`, or one of them; None at EOF.

        What a device's shell prints before it is skipped.
        """
        assert process.stdout is not None
        with processes.limited(process, START_S) as expired:
            left = _NOISE_MAX
            while left > 0:
                line = process.stdout.readline(line_max)
                if line.startswith(start):
                    self._was_up = True
                    return line
                if expired.is_set():
                    reason = f"nothing answers within {START_S} s of the login"
                    raise UnreachableError(self.target, reason, "see what keeps it busy, or restart it")
                if not line:
                    return None
                left -= len(line)
        raise RemoteError(
            12, f"{self.target}: its shell prints {_NOISE_MAX:,} bytes at each login; make its start files silent"
        )

    def line(self, process: subprocess.Popen[bytes], line_max: int) -> bytes:
        """The next line of a program that is never silent for long; b"" at EOF.

        UnreachableError after SILENCE_S without one, and the program's connection is ended.
        """
        assert process.stdout is not None
        with processes.limited(process, SILENCE_S) as expired:
            line = process.stdout.readline(line_max)
        if expired.is_set():
            raise UnreachableError(
                self.target,
                f"nothing was heard from it for {SILENCE_S:g} s, though the connection stands",
                f"see what keeps it busy: ssh {shlex.quote(self.target)} uptime , or restart it, then run the same "
                f"command again",
            )
        return line

    @property
    def is_open(self) -> bool:
        lead = self._lead
        if lead is None or lead.poll() is not None:
            return False
        # At the end of its input, see `end`, it goes with the last of the others, and takes whoever comes then along.
        return lead.stdin is None or not lead.stdin.closed or self._has_guests

    @property
    def _has_guests(self) -> bool:
        return any(guest.poll() is None for guest in self._guests)

    @property
    def control_path(self) -> str:
        """Where other ssh programs find this connection (-o ControlPath), while it is open."""
        return str(self._private() / "s").replace("%", "%%")

    def failure(self, process: subprocess.Popen[bytes]) -> SeedError:
        """Why ssh ended: by what it, or the command that carries the connection, wrote to stderr."""
        if processes.ending():
            return UnreachableError(self.target, "stopped", "run the same command again")
        # Its pipes are closed a moment before it ends, and what it wrote may still be on its way to us.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
        text = self.stderr_of(process)
        if self._lead is not None and self._lead is not process and not self._alive(within_s=1):
            text += self.stderr_of(self._lead)
        return ssh_errors.classify(self.target, text, was_up=self._was_up)

    def stderr_of(self, process: subprocess.Popen[bytes]) -> str:
        """The end of what a command wrote to stderr so far, all of it if it has ended, as `plain_lines`."""
        tail = self._tails.get(process.pid)
        if tail is None:
            return ""
        if process.poll() is not None:
            tail.join(processes.END_S)
        return device_schema.plain_lines(tail.text())

    def _start(
        self,
        argv: list[str],
        stdin: int | IO[bytes] = subprocess.PIPE,
        stdout: int | IO[bytes] = subprocess.PIPE,
        stderr: int | IO[bytes] | None = subprocess.PIPE,
    ) -> subprocess.Popen[bytes]:
        process = processes.start(argv, stdin=stdin, stdout=stdout, stderr=stderr)
        if process.stderr is not None:
            self._tails[process.pid] = Tail(process.stderr)
        return process

    def _alive(self, within_s: float) -> bool:
        """Whether the connection stands; it may take a moment until its end shows."""
        until = time.monotonic() + within_s
        while self.is_open:
            if time.monotonic() > until:
                return True
            time.sleep(0.02)
        return False

    @contextlib.contextmanager
    def _watched(self, remote: str, total: int, progress: Callable[[int, int], None] | None) -> Iterator[None]:
        if progress is None:
            yield
            return
        # The size there, not what sftp has read here: up to 2 MB of that are on their way, the whole of many seeds.
        process = self.popen(f"sh -c 'while sleep 1 && stat -c %s \"$0\"; do :; done' {shlex.quote(remote)}")
        thread = threading.Thread(target=sftp.report, args=(process.stdout, total, progress), daemon=True)
        thread.start()
        try:
            yield
        finally:
            processes.kill(process, signal.SIGKILL)
            thread.join(processes.END_S)
            end(process, 0)

    def _options(self, leads: bool) -> list[str]:
        options = {
            "BatchMode": "yes",
            "StrictHostKeyChecking": "accept-new" if self._accept_new else "yes",
            "ConnectTimeout": str(LINK_DEAD_S),
            "ConnectionAttempts": "1",
            "ServerAliveInterval": str(LINK_DEAD_S // 4),
            "ServerAliveCountMax": "3",
            "ControlMaster": "yes" if leads else "no",
            "ControlPath": self.control_path,
            "ControlPersist": "no",
            "LogLevel": "INFO",
            "EscapeChar": "none",
            "RequestTTY": "no",
            "ClearAllForwardings": "yes",
            "ForwardAgent": "no",
            "ForwardX11": "no",
            "PermitLocalCommand": "no",
            "RemoteCommand": "none",
        }
        # A user's RequestTTY or forwardings are for working there, not for carrying files.
        if not leads:
            # Without the shared connection ssh would log in anew, once more the whole wait on a dead link.
            options["ProxyCommand"] = "false"
        words = ["-F", str(self._config.absolute())] if self._config is not None else []
        for key, value in options.items():
            words += ["-o", f"{key}={value}"]
        return words

    def _port_option(self, flag: str) -> list[str]:
        return [] if self._port is None else [flag, str(self._port)]

    def _private(self) -> Path:
        if self._folder is None:
            self._folder = control_dir.folder()
        return self._folder


def _short(command: str) -> str:
    return command if len(command) <= 60 else f"{command[:57]}..."
