"""Brings the runtime onto a device: a virtual environment in its store, made of wheels that the host sends.

The device needs Python >= 3.11 with its venv module, and nothing else: no pip, no compiler, no network, no sudo.
A failure at any step leaves the runtime that was there (installer.py, which runs on the device, keeps that).
"""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import subprocess
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import PurePosixPath
from typing import Any, Final

from seed_devices import profiles
from seed_devices.errors import RemoteError
from seed_devices.profiles import Profile
from seed_devices.push import wheels
from seed_devices.remote import device_schema
from seed_devices.remote.agent_client import STORE
from seed_devices.ssh.connection import START_S, Connection, end
from seed_runtime.errors import DiskSpaceError, SeedError, UnsupportedError
from seed_runtime.version import __version__

Progress = Callable[[str, int, int], None]
"""Gets the name of a step, what is done of it, and all of it; bytes where bytes travel."""

OLDEST_PYTHON: Final = (3, 11)
OLDEST_NUMPY: Final = (1, 24)
"""Of the distribution, where no wheel exists: the decoders need no newer one."""
WAIT_S: Final = 600
"""Seconds that another installation on the same device may take."""
LINE_MAX: Final = 1 << 20
_KILLED: Final = 137
# No quote and no backslash within: the login shell may be fish, which reads them otherwise. Not `exec`: the shell
# tells how Python ended, and ssh by itself only that the session did. Nothing is written: no compiled modules, and
# not what ONNX Runtime keeps for its telemetry.
_IMPORT: Final = (
    f'exec sh -c \'{STORE}ORT_DISABLE_TELEMETRY=1 "$s/runtime/current/bin/python" -B -P -c "$1"; exit $?\' sh'
)
_ROOM: Final = 16 << 20


class NoRoomError(DiskSpaceError):
    """The runtime doesn't fit on the device's disk. What runs there was left alone."""

    def __str__(self) -> str:
        return (
            f"{self.folder}: the runtime needs {self.needed:,} bytes and {self.free:,} are free; free some space there"
        )


@dataclasses.dataclass(frozen=True)
class Installed:
    """The runtime that a device has. `fresh`: it was installed by this call."""

    version: str
    path: str
    fresh: bool
    notes: tuple[str, ...] = ()
    """What it was made of."""


def is_due(there: str | None, needed: tuple[int, int, int], *, update: bool = False) -> bool:
    """Whether a push has to install a runtime: none starts there, or it is older than the seed needs.

    One that is older than this host's stays until then, or until an `update` is asked for: installing sends tens of
    megabytes, over whatever link it is.
    """
    return there is None or version(there) < (max(needed, version(__version__)) if update else needed)


def trouble(connection: Connection, profile: Profile) -> str:
    """Why the runtime of a device can't run models, "" where it can: it is asked to import what they need.

    An agent that answers is no proof: it starts without NumPy and ONNX Runtime.
    """
    program = f"import {', '.join(modules(profile))}"
    done = connection.run(f"{_IMPORT} {shlex.quote(program)}", timeout=START_S, check=False)
    # Killed is what a process is whose memory runs out: another runtime wouldn't help.
    if done.code in (0, _KILLED):
        return ""
    said = done.stderr.strip().splitlines()
    return said[-1] if said else f"it returned {done.code}"


def modules(profile: Profile) -> list[str]:
    """List what a runtime of any version must be able to import on a device of `profile`."""
    return ["numpy", "seed_runtime.cli", *(["onnxruntime"] if profile.inference else [])]


def install(
    connection: Connection,
    facts: Mapping[str, Any],
    *,
    needed: tuple[int, int, int] = (0, 0, 0),
    online: bool = False,
    progress: Progress | None = None,
) -> Installed:
    """Put this host's version of the runtime into the device's store, unless another host just did.

    Args:
        needed: what the seed needs at least; this host's may be too old for it.
        online: let pip on the device fetch what seed-runtime needs from its own index; ours is sent all the same.

    Errors: what `check` refuses, DiskSpaceError, WheelsError, and those of the connection.
    """
    profile = check(facts, needed)
    report = progress or (lambda step, done, total: None)
    libc = (str(facts["libc"][0]), str(facts["libc"][1]))
    with _Remote(connection, report) as remote:
        # Facts may have been told by the runtime that is there: what makes the new one is python3 as it is now.
        check({**facts, "python": remote.python})
        python = version(remote.python)[:2]
        house = wheels.collect(profile, (python[0], python[1]), libc, dependencies=not online, progress=progress)
        return _deliver(connection, remote, facts, profile, house, online)


def check(facts: Mapping[str, Any], needed: tuple[int, int, int] = (0, 0, 0)) -> Profile:
    """The device's profile if a runtime of at least `needed` can be installed there.

    UnsupportedError says what is in the way.
    """
    if needed > version(__version__):
        raise UnsupportedError(
            f"the seed needs seed-runtime {'.'.join(map(str, needed))} and this host has {__version__}; "
            "update it here: pip install -U 'seed-runtime[deploy]'"
        )
    profile = profiles.match(facts)
    if not profile.supported:
        raise UnsupportedError(f"{profile.title}: {profile.note}")
    if version(str(facts["python"])) < OLDEST_PYTHON:
        raise UnsupportedError(f"its Python is {facts['python']} and 3.11 is needed; {python_step(facts)}")
    libc = (facts.get("libc") or ["", ""])[0]
    if libc != "glibc":
        raise UnsupportedError(
            f"its C library is {libc or 'unknown'} and NumPy and ONNX Runtime come for glibc; "
            "use a system with glibc there, such as Debian"
        )
    if not facts.get("venv", True):
        raise UnsupportedError("its Python has no venv module; install it there: sudo apt install python3-venv")
    if not facts.get("store_writable", True):
        raise UnsupportedError(
            f"{facts.get('store')} can't be written to there; mount it writable, or set SEED_HOME to a folder that is"
        )
    if not profile.inference:
        _check_numpy(facts)
    free = facts.get("disk_free")
    if free is not None and free < _ROOM:
        raise NoRoomError(str(facts.get("store")), _ROOM, int(free))
    return profile


def no_python(host: str) -> UnsupportedError:
    """The refusal of a device on which python3 doesn't start."""
    return UnsupportedError(
        f"{host}: there is no python3; install Python 3.11 or newer there: sudo apt install python3 python3-venv"
    )


def python_step(facts: Mapping[str, Any]) -> str:
    """How a device comes to a newer Python."""
    if facts.get("os_id") in ("debian", "raspbian"):
        return "update its system to Debian 12 or newer, which brings it"
    if facts.get("os_id") == "ubuntu":
        return "update its system to Ubuntu 24.04 or newer, which brings it"
    return "update its system, or put a newer python3 first in its PATH"


def version(text: str) -> tuple[int, int, int]:
    """The first three numbers of a version; what is not there counts as 0."""
    numbers = [int(number) for number in re.findall(r"\d{1,9}", text)[:3]] + [0, 0, 0]
    return numbers[0], numbers[1], numbers[2]


def installer() -> bytes:
    """The program that a device runs to install a runtime."""
    return (resources.files("seed_devices") / "remote" / "installer.py").read_bytes()


def _check_numpy(facts: Mapping[str, Any]) -> None:
    numpy = facts.get("numpy")
    if numpy is None:
        raise UnsupportedError(
            "there is no NumPy, and none to send to a 32-bit system; install it there: sudo apt install python3-numpy"
        )
    if version(str(numpy)) < OLDEST_NUMPY:
        oldest = ".".join(map(str, OLDEST_NUMPY))
        raise UnsupportedError(f"its NumPy is {numpy} and {oldest} is needed; update its system")


def _deliver(
    connection: Connection,
    remote: _Remote,
    facts: Mapping[str, Any],
    profile: Profile,
    house: wheels.Wheelhouse,
    online: bool,
) -> Installed:
    by_name = {wheel.path.name: wheel for wheel in house.all}
    there = facts.get("runtime") or {}
    answer = remote.ask(
        "prepare",
        store=facts["store"],
        known=there.get("path"),
        wanted=list(version(house.version)),
        wheels=[{"name": name, "sha256": wheel.sha256, "size": wheel.size} for name, wheel in by_name.items()],
        unpacked=sum(wheel.unpacked for wheel in (house.own, *house.needed)),
        wait_s=WAIT_S,
    )
    if answer["state"] == "there":
        return Installed(answer["version"], answer["path"], False)
    missing = {name: part for name, part in (answer.get("missing") or {}).items() if name in by_name}
    total = sum(by_name[name].size for name in missing)
    sent = sum(part["have"] for part in missing.values())
    for name, part in missing.items():
        sent -= part["have"]
        _send(connection, remote, by_name[name], part["path"], sent, total)
        sent += by_name[name].size
        remote.report("transfer", sent, total)
    answer = remote.ask(
        "install",
        version=house.version,
        own=house.own.path.name,
        pip=house.pip.path.name,
        modules=[*modules(profile), "seed_runtime.agent.operations"],
        online=online,
        dependencies=profile.inference,
        system=not profile.inference,
    )
    if not profile.inference:
        made_of = "the NumPy that is there"
    else:
        made_of = "what the device's own index has" if online else ", ".join(house.titles)
    notes = (*house.notes, f"runtime {house.version} was installed with {made_of}")
    return Installed(answer["version"], answer["path"], True, notes)


def _send(connection: Connection, remote: _Remote, wheel: wheels.Wheel, path: str, before: int, total: int) -> None:
    """One wheel, from where it stopped last; from its beginning if it arrives with another digest."""
    for _ in range(2):
        try:
            connection.put(
                wheel.path, path, resume=True, progress=lambda done, _: remote.report("transfer", before + done, total)
            )
        except RemoteError:
            if (free := remote.ask("room")["free"]) < _ROOM:
                raise NoRoomError(str(PurePosixPath(path).parent), wheel.size, free) from None
            raise
        if remote.ask("place", name=wheel.path.name)["good"]:
            return
    raise RemoteError(1, f"{connection.target}: {wheel.path.name} arrives damaged; check its disk")


class _Remote:
    """installer.py on the device, for as long as the block lasts."""

    def __init__(self, connection: Connection, report: Progress) -> None:
        self._connection, self.report = connection, report
        self.python = ""

    def __enter__(self) -> _Remote:
        source = installer()
        self._connection.keep()
        program = f'import sys; exec(compile(sys.stdin.buffer.read({len(source)}), "installer.py", "exec"))'
        self._process: subprocess.Popen[bytes] = self._connection.popen(f"python3 -c {shlex.quote(program)}")
        self._write(source)
        hello = self._connection.first_line(self._process, b'{"installer"')
        if hello is None:
            raise self._failure()
        found = re.search(rb'"python": "([0-9.]{1,20})', hello)
        self.python = found[1].decode() if found else ""
        return self

    def __exit__(self, *error: object) -> None:
        end(self._process)

    def ask(self, operation: str, **fields: Any) -> dict[str, Any]:
        """Its answer; RemoteError or DiskSpaceError with its words if it refuses, UnreachableError if it hangs."""
        self._write(json.dumps({"op": operation, **fields}).encode() + b"\n")
        while line := self._connection.line(self._process, LINE_MAX):
            answer = device_schema.parse_object(line) or {}
            try:
                if "progress" in answer:
                    step, done, total = answer["progress"]
                    self.report(str(step), int(done), int(total))
                    continue
                if answer["ok"] is True:
                    return device_schema.check_answer(
                        self._connection.target, device_schema.INSTALLER[operation], answer
                    )
                raise RemoteError(int(answer["exit"]), f"{self._connection.target}: {answer['error']}", answer["kind"])
            except (ValueError, KeyError, TypeError):
                raise RemoteError(
                    1, f"{self._connection.target}: its Python answers {line[:80]!r}; try again"
                ) from None
        raise self._failure()

    def _write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(data)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failure() from None

    def _failure(self) -> SeedError:
        code = self._process.wait()
        if code == 127:
            return no_python(self._connection.target)
        if code not in (255, -1) and code > 0:
            said = self._connection.stderr_of(self._process).strip().splitlines()
            return RemoteError(
                1, f"{self._connection.target}: installing ended: {said[-1] if said else code}; run it again"
            )
        return self._connection.failure(self._process)
