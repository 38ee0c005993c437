"""The user's systemd: the text of a unit, and calls of systemctl, loginctl and journalctl."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Final

from seed_runtime.errors import SeedError, UsageError

START_S: Final = 300
"""Time for a service to become ready, in seconds: with a cold cache it assembles its model first."""
STOP_S: Final = 45
"""Time for a service to stop, in seconds."""
CHANGE_S: Final = START_S + STOP_S + 60.0
"""Time for systemctl to stop and start a service, in seconds."""
_BUS_S: Final = 10.0
"""Time for a user manager that was just started to answer, in seconds."""
_SHORT_S: Final = 60.0
"""Time for calls that only ask or set something, in seconds."""
_BOOTED: Final = "/run/systemd/system"
"""This folder is there if systemd started the system. Source: sd_booted(3)"""
_UNIT: Final = """\
[Unit]
Description=seed model {name}
StartLimitIntervalSec=300
StartLimitBurst=5

[Service]
Type=notify
ExecStartPre={first}
ExecStart={command}
{settings}Restart=on-failure
RestartSec=2
RestartPreventExitStatus=2 3 10 11 12 13 14
SuccessExitStatus=130 143
TimeoutStartSec={start_s}
TimeoutStopSec={stop_s}
{memory}UMask=0077
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
ReadWritePaths={writable}
PrivateTmp=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native

[Install]
WantedBy=default.target
"""


class ServiceError(SeedError):
    """The model can't be served as a service here. The exit code is the server's own if it ended with one."""

    exit_code = 12

    def __init__(self, message: str, exit_code: int = 12) -> None:
        """Describe what went wrong, with the server's exit code if it gave one."""
        super().__init__(message, exit_code)
        self.message, self.exit_code = message, exit_code

    def __str__(self) -> str:
        """Return the message."""
        return self.message


def unit_text(
    name: str,
    command: Sequence[str],
    first: Sequence[str],
    settings: Mapping[str, str],
    writable: Sequence[str],
    memory_max: int | None,
) -> str:
    """Return the unit of a model's server, see `service`.

    Args:
        name: the model.
        command: the words of the server's command.
        first: the words of a command that is run before the server. It may fail, and may write where the server
            must not.
        settings: environment variables.
        writable: folders that the server may write to, if they exist.
        memory_max: MemoryMax= [B]; None for no limit.

    Raises:
        UsageError: a word has control characters.
    """
    return _UNIT.format(
        name=name,
        command=_command(command),
        # "-": a failure is ignored. "+": it runs outside the sandbox. Source: systemd.service(5)
        first=_command([f"-+{first[0]}", *first[1:]]),
        settings="".join(f"Environment={_quoted(f'{key}={value}')}\n" for key, value in settings.items()),
        memory="" if memory_max is None else f"MemoryMax={memory_max}\n",
        start_s=START_S,
        stop_s=STOP_S,
        writable=" ".join(_quoted(f"-{path}") for path in writable),
    )


def runtime_folder() -> str:
    """Return the user's folder for sockets, $XDG_RUNTIME_DIR."""
    return os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"


def enable_linger() -> bool:
    """Ask that the user's services run without a login, which starts the user manager as well.

    Returns:
        Whether that was granted.
    """
    user = pwd.getpwuid(os.getuid()).pw_name
    if shutil.which("loginctl") is None:
        return False
    return run(["loginctl", "--no-ask-password", "enable-linger", user], _SHORT_S).returncode == 0


def await_manager() -> None:
    """Wait until the user's service manager answers.

    Raises:
        ServiceError: there is no systemd, or it doesn't answer.
    """
    none = "this device has no systemd; let its own service manager start: seed-run model.seed --serve ADDRESS"
    if shutil.which("systemctl") is None:
        raise ServiceError(none)
    deadline = time.monotonic() + _BUS_S
    while True:
        done = systemctl("show", "--property=Version", check=False)
        if done.returncode == 0:
            return
        if not os.path.isdir(_BOOTED):
            raise ServiceError(none)
        if time.monotonic() >= deadline:
            break
        time.sleep(0.5)
    raise ServiceError(
        f"the user's systemd does not answer ({last_line(done.stderr)}); on the device run: "
        f"sudo loginctl enable-linger {pwd.getpwuid(os.getuid()).pw_name}, and try again"
    )


def systemctl(*arguments: str, check: bool = True, seconds: float = _SHORT_S) -> subprocess.CompletedProcess[str]:
    """Run `systemctl --user`.

    Args:
        arguments: its arguments.
        check: raise an error if it fails.
        seconds: how long it may take.

    Raises:
        ServiceError: it failed, and `check` is set.
    """
    done = run(["systemctl", "--user", "--no-ask-password", *arguments], seconds)
    if check and done.returncode:
        raise ServiceError(f"systemctl --user {' '.join(arguments)}: {last_line(done.stderr)}; see: journalctl --user")
    return done


def run(command: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
    """Run a command. One that can't be started or takes too long counts as failed, with the reason as its stderr."""
    # A session over SSH may lack XDG_RUNTIME_DIR, by which systemctl finds the user manager.
    environment = {**os.environ, "XDG_RUNTIME_DIR": runtime_folder(), "LC_ALL": "C"}
    try:
        return subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        what = error.strerror if isinstance(error, OSError) else f"no answer within {seconds:.0f} s"
        return subprocess.CompletedProcess(command, 1, "", what or "")


def properties(unit: str) -> dict[str, str]:
    """Return what the service manager says about a unit: its state, process, restarts and memory."""
    names = "ActiveState,SubState,Result,ExecMainStatus,MainPID,NRestarts,MemoryCurrent"
    done = systemctl("show", unit, f"--property={names}", check=False)
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


def journal(unit: str, lines: int) -> list[str]:
    """Return the last lines that a unit wrote; none if the system keeps no journal."""
    if shutil.which("journalctl") is None:
        return []
    command = ["journalctl", "--user", "-u", unit, "-n", str(lines), "-o", "short-iso", "--no-pager", "-q"]
    done = run(command, _SHORT_S)
    return done.stdout.splitlines() if done.returncode == 0 else []


def _command(words: Sequence[str]) -> str:
    # systemd expands variables in arguments, but not in the name of the program.
    return " ".join([_quoted(words[0]), *(_quoted(each).replace("$", "$$") for each in words[1:])])


def _quoted(text: str) -> str:
    """Quote one word of a unit file. Source: systemd.syntax(7), "Quoting"; systemd.unit(5), "Specifiers"."""
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise UsageError(f"{text!r} has control characters, which a unit can't contain; rename it")
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text}"'


def last_line(text: str) -> str:
    """Return the last line of a text that isn't empty."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it gave no reason"
