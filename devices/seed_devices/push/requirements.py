"""Requirements on a device that is to take a runtime, and on the runtime that runs there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from seed_devices import profiles
from seed_devices.profiles import Profile
from seed_devices.remote.agent_client import FIND_STORE
from seed_devices.remote.pythons import OLDEST_PYTHON
from seed_devices.ssh.connection import Connection
from seed_devices.ssh.shell import START_S
from seed_runtime.errors import DiskSpaceError, UnsupportedError, UsageError
from seed_runtime.version import __version__

OLDEST_NUMPY: Final = (1, 24)
"""The oldest version of a distribution's NumPy, where no wheel exists: the decoders need no newer one."""
TFLITE: Final = "tflite"
"""Extra of seed-runtime that runs TFLite models."""
PICTURES: Final = "pictures"
"""Extra with which models are asked about pictures."""
TEXT: Final = "text"
"""Extra with which models are asked about texts, and write them."""
_MODULES: Final = {TFLITE: "ai_edge_litert.interpreter", PICTURES: "PIL.Image", TEXT: "tokenizers"}
"""What an extra is there for, by its name."""
_FACTS: Final = {TFLITE: "litert", PICTURES: "pillow", TEXT: "tokenizers"}
"""Facts that say that an extra is there."""
_TITLES: Final = {PICTURES: "Pillow", TEXT: "tokenizers"}
"""Packages of the extras with which models are asked."""
DISK_MARGIN: Final = 16 << 20
"""Free bytes below which nothing is installed."""
_SIGKILL: Final = 137
"""The shell's exit status for a process that was killed, as one is whose memory runs out."""
# Not `exec`: the shell reports how Python ended, and ssh by itself only that the session did. Nothing is written: no
# compiled modules, and not what ONNX Runtime keeps for its telemetry.
_IMPORT: Final = f'{FIND_STORE}ORT_DISABLE_TELEMETRY=1 "$s/runtime/current/bin/python" -B -P -c "$1"; exit $?'


class NoRoomError(DiskSpaceError):
    """The runtime, or the seed behind it, doesn't fit on the device's disk. What runs there was left alone."""

    def __str__(self) -> str:
        return (
            f"the push needs {self.needed:,} bytes in {self.folder} and {self.free:,} are free; free some space there"
        )


def is_due(there: str | None, needed: tuple[int, int, int], *, update: bool = False) -> bool:
    """Return True if a push has to install a runtime: none starts there, or it is older than the seed needs.

    One that is older than this host's stays until then, or until an `update` is asked for: installing sends tens of
    megabytes, over whatever link it is.
    """
    return there is None or version(there) < (max(needed, version(__version__)) if update else needed)


def check(facts: Mapping[str, Any], needed: tuple[int, int, int] = (0, 0, 0)) -> Profile:
    """Check that a runtime of at least version `needed` can be installed on the device that reported `facts`.

    Returns:
        The device's profile.

    Raises:
        UnsupportedError: it can't; the message says why, and what to do.
        NoRoomError: its disk is full.
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
        raise UnsupportedError(f"{_python_text(facts)}; {python_advice(facts)}")
    _check_libc(facts, profile)
    if not facts.get("venv", True):
        others = f" ({pythons_text(facts)})" if len(facts.get("pythons") or ()) > 1 else ""
        step = "install it there: sudo apt install python3-venv"
        raise UnsupportedError(f"its Python has no venv module{others}; {step}")
    if facts.get("pythons") and not any(row["taken"] for row in facts["pythons"]):
        raise UnsupportedError(f"none of its Pythons can run it ({pythons_text(facts)}); {python_advice(facts)}")
    if not facts.get("store_writable", True):
        raise UnsupportedError(
            f"{facts.get('store')} can't be written to there; mount it writable, or set SEED_HOME to a folder that is"
        )
    if facts.get("noexec"):
        raise UnsupportedError(f"{noexec_text(facts)}; {noexec_advice(facts)}")
    if not profile.inference:
        _check_numpy(facts)
    free = facts.get("disk_free")
    if free is not None and free < DISK_MARGIN:
        raise NoRoomError(str(facts.get("store")), DISK_MARGIN, int(free))
    return profile


def import_error(connection: Connection, profile: Profile) -> str:
    """Let the device's runtime import what models need; returns why it can't, "" where it can.

    An agent that answers is no proof: it starts without NumPy and ONNX Runtime.
    """
    program = f"import {', '.join(modules(profile))}"
    done = connection.run(_IMPORT, program, timeout=START_S, check=False)
    # If memory ran out, another runtime wouldn't help.
    if done.code in (0, _SIGKILL):
        return ""
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"it returned {done.code}"


def modules(profile: Profile, extras: Sequence[str] = ()) -> list[str]:
    """List what a runtime of any version, with these extras, must be able to import on a device of `profile`."""
    if not profile.inference:
        return ["numpy", "seed_runtime.cli"]
    return ["numpy", "seed_runtime.cli", "onnxruntime", *(_MODULES[extra] for extra in extras)]


def extras(backend: str | None, asked_with: Collection[str], facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the extras of the runtime that a device needs: those that it has, and those of the seed.

    Args:
        backend: what runs the seed, None where that isn't known.
        asked_with: extras with which the seed's model is asked.
        facts: what the device reports.
    """
    # Without a runtime these are facts about the system's Python.
    there = [extra for extra, fact in _FACTS.items() if facts.get("runtime") and facts.get(fact)]
    return tuple(sorted({*there, *asked_with, *([TFLITE] if backend == "litert" else [])}))


def lacks(backend: str | None, facts: Mapping[str, Any], profile: Profile | None) -> bool:
    """Return whether the runtime that is there lacks what runs the seed, and could have it."""
    can_run = profile is not None and profile.inference
    return can_run and backend == "litert" and not facts.get("litert")


def missing_packages(asked_with: Collection[str], facts: Mapping[str, Any], profile: Profile | None) -> str:
    """Name the packages that the runtime which is there lacks to ask a model with; "" where it can have none."""
    if profile is None or not profile.inference:
        return ""
    return " and ".join(_TITLES[extra] for extra in sorted(asked_with) if not facts.get(_FACTS[extra]))


def python_advice(facts: Mapping[str, Any]) -> str:
    """Return how the device gets a newer Python."""
    if facts.get("os_id") in ("debian", "raspbian"):
        return "update its system to Debian 12 or newer, which brings it"
    if facts.get("os_id") == "ubuntu":
        return "update its system to Ubuntu 24.04 or newer, which brings it"
    return "update its system, or install a newer Python there and name it with --python PATH"


def pythons_text(facts: Mapping[str, Any]) -> str:
    """Return the Pythons of a device that were not taken, each with the reason."""
    rows = [row for row in facts.get("pythons") or () if not row["taken"]]
    return ", ".join(f"{row['path']}{row['version'] and ' '}{row['version']}: {row['reason']}" for row in rows)


def noexec_text(facts: Mapping[str, Any]) -> str:
    """Return why no runtime can be loaded from the device's store."""
    return f"{facts.get('store')} is on {facts['noexec']}, which is mounted noexec: no library can be loaded from it"


def noexec_advice(facts: Mapping[str, Any]) -> str:
    """Return where the device's store can be instead."""
    folder = f"{facts.get('exec_folder') or '/opt'}/seed"
    line = shlex.quote(f"SEED_HOME={folder}")
    make = (
        "" if facts.get("exec_folder") else f"make a folder of yours there, sudo install -d -o $USER {folder} , then "
    )
    return (
        f"{make}put the store there: echo {line} | sudo tee -a /etc/environment , "
        f"or allow it: sudo mount -o remount,exec {shlex.quote(str(facts['noexec']))}"
    )


def version(text: str) -> tuple[int, int, int]:
    """Return the first three numbers of a version; a missing one counts as 0."""
    numbers = [int(number) for number in re.findall(r"\d{1,9}", text)[:3]] + [0, 0, 0]
    return numbers[0], numbers[1], numbers[2]


def _python_text(facts: Mapping[str, Any]) -> str:
    text = f"its Python is {facts['python']} and 3.11 is needed"
    return f"{text} ({pythons_text(facts)})" if len(facts.get("pythons") or ()) > 1 else text


def _check_libc(facts: Mapping[str, Any], profile: Profile) -> None:
    name, number = facts.get("libc") or ["", ""]
    if name != "glibc":
        raise UnsupportedError(
            f"its C library is {name or 'unknown'} and NumPy and ONNX Runtime come for glibc; "
            "use a system with glibc there, such as Debian"
        )
    try:
        glibc = profiles.parse_glibc(str(number))
    except UsageError as error:
        raise UnsupportedError(f"its C library can't be used: {error}") from None
    if profile.wheels is not None and not profile.wheels.tags(glibc):
        oldest = ".".join(map(str, profile.wheels.oldest_glibc))
        raise UnsupportedError(f"{profile.title}: its glibc {number} is older than {oldest}; update its system")


def _check_numpy(facts: Mapping[str, Any]) -> None:
    numpy = facts.get("numpy")
    if numpy is None:
        raise UnsupportedError(
            "there is no NumPy, and none to send to a 32-bit system; install it there: sudo apt install python3-numpy"
        )
    if version(str(numpy)) < OLDEST_NUMPY:
        oldest = ".".join(map(str, OLDEST_NUMPY))
        raise UnsupportedError(f"its NumPy is {numpy} and {oldest} is needed; update its system")
