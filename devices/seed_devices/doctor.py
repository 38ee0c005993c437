"""Find what is wrong with a device, why it matters, and the command that repairs it.

It costs one round trip beyond the facts: health.py, run by the device's own python3. Nothing on the device is changed.
`judge` decides from what was found alone, so that it can be asked about any device that was recorded.
"""

from __future__ import annotations

import dataclasses
import posixpath
import re
import shlex
import time
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal

from seed_devices import names, profiles
from seed_devices.errors import RemoteError
from seed_devices.profiles import Profile
from seed_devices.push import preflight, requirements
from seed_devices.push.requirements import version
from seed_devices.remote import device_schema
from seed_devices.remote.pythons import OLDEST_PYTHON
from seed_devices.ssh.connection import Connection
from seed_devices.ssh.shell import START_S
from seed_devices.ssh.transfer import put
from seed_devices.terminal_text import plain
from seed_runtime.errors import SeedError
from seed_runtime.version import __version__

Severity = Literal["fault", "advice"]
"""A fault keeps something from working, now or after the next start; advice doesn't."""

RUNTIME_DISK: Final = 256 << 20
"""Disk space that installing a runtime takes at its peak, wheels and installed files, in bytes."""
LOW_DISK: Final = 64 << 20
"""Free disk space below which a push to a device with a runtime may fail, in bytes."""
LOW_RAM: Final = 128 << 20
"""Available memory in bytes below which small models may not run: Python, NumPy and ONNX Runtime take 45 MB."""
NAMED_MAX: Final = 3
"""Largest number of leftovers that are named."""
CLOCK_DRIFT_S: Final = 86400
"""Seconds between the clocks of device and host from which on they count as different."""


@dataclasses.dataclass(frozen=True)
class Fault:
    """One thing that is wrong: what, why it matters, and the command or the advice that repairs it."""

    what: str
    why: str
    fix: str
    severity: Severity = "fault"


def examine(connection: Connection, facts: Mapping[str, Any] | None, *, now: float | None = None) -> list[Fault]:
    """Find what is wrong with a device.

    Args:
        connection: to the device.
        facts: what it reported; None where its python3 did not get that far.
        now: the time to compare its clock with, in seconds since 1970; this host's if None.

    Returns:
        Its faults, and then advice.

    Raises:
        SeedError: of the connection.
    """
    if facts is None:
        done = connection.run("python3 --version", timeout=START_S, check=False)
        return judge(connection.target, None, {"python": plain(done.text.strip())}, now=now)
    findings: dict[str, Any] = {}
    if version(str(facts["python"])) >= OLDEST_PYTHON:
        source = (resources.files("seed_devices") / "remote" / "health.py").read_text()
        unsent = _transfer_error(connection)
        done = connection.python(source, str(facts["store"]), _modules(facts))
        lines = done.stdout.strip().splitlines()
        if (found := device_schema.parse_object(lines[-1]) if lines else None) is None:
            errors = done.stderr.strip().splitlines()
            findings = {"error": errors[-1] if errors else f"python3 returned {done.code}"}
        else:
            try:
                findings = device_schema.check_answer(connection.target, device_schema.FINDINGS, found)
            except RemoteError as error:
                findings = {"error": _reason(connection, error)}
        findings["unsent"] = unsent
    return judge(connection.target, facts, findings, now=now)


def judge(
    host: str, facts: Mapping[str, Any] | None, findings: Mapping[str, Any], *, now: float | None = None
) -> list[Fault]:
    """Decide what is wrong with a device that reported `facts` and of which health.py reported `findings`.

    Args:
        host: the device, as the user wrote it.
        facts: what it reported; None where its python3 did not get that far.
        findings: what health.py found.
        now: the time to compare its clock with, in seconds since 1970; this host's if None.

    Returns:
        Its faults, and then advice.
    """
    if facts is None:
        return [_no_python(findings)]
    found = [
        *_system(facts),
        *_resources(facts),
        *_transfer(findings),
        *_clock(facts, findings, time.time() if now is None else now),
        *_runtime(host, facts, findings),
        *_models(host, findings),
        *_services(host, facts, findings),
        *_signatures(facts, findings),
        *_leftovers(host, findings),
    ]
    return sorted(found, key=lambda fault: fault.severity == "advice")


def _no_python(findings: Mapping[str, Any]) -> Fault:
    python = findings.get("python") or ""
    if python.startswith("Python "):
        return Fault(
            f"{python} can't report what the device is", "seed-runtime needs Python 3.11 or newer", "update its system"
        )
    return Fault(
        "python3 is missing",
        "the runtime is a Python program",
        "sudo apt install python3 python3-venv (Termux: see the profile of Termux in the documentation)",
    )


def _system(facts: Mapping[str, Any]) -> Iterator[Fault]:
    try:
        profile = profiles.match(facts)
    except SeedError as error:
        what, _, fix = str(error).rpartition("; ")
        yield Fault(what, "neither NumPy nor ONNX Runtime has wheels for it", fix)
        return
    libc = (facts.get("libc") or [""])[0]
    if not profile.supported:
        why, fix = "Android's C library takes no manylinux wheels, and nothing can be installed", _TERMUX
        yield Fault(f"{profile.title} with its own C library", why, fix)
    elif libc != "glibc":
        fix = "use a system with glibc, such as Debian"
        yield Fault(f"its C library is {libc or 'unknown'}", "NumPy and ONNX Runtime come for glibc", fix)
    if version(str(facts["python"])) < OLDEST_PYTHON:
        what = f"Python {facts['python']} is too old"
        yield Fault(what, "seed-runtime needs 3.11 or newer", requirements.python_advice(facts))
    elif not facts.get("venv", True):
        fix = "sudo apt install python3-venv"
        yield Fault("Python's venv module is missing", "the runtime is installed into a virtual environment", fix)
    elif facts.get("pythons") and not any(row["taken"] for row in facts["pythons"]):
        what = f"none of its Pythons can be taken: {requirements.pythons_text(facts)}"
        severity: Severity = "advice" if facts.get("runtime") else "fault"
        yield Fault(what, "the next runtime can't be made", requirements.python_advice(facts), severity)
    if profile.supported and not profile.inference:
        yield from _32_bit(profile, facts)


def _32_bit(profile: Profile, facts: Mapping[str, Any]) -> Iterator[Fault]:
    fix = "install a 64-bit system if the board can run one"
    yield Fault(f"{profile.title}: {facts.get('os', 'its system')} is 32-bit", profile.note, fix, "advice")
    numpy = facts.get("numpy")
    if numpy is None or version(str(numpy)) < requirements.OLDEST_NUMPY:
        oldest = ".".join(map(str, requirements.OLDEST_NUMPY))
        what = "NumPy is missing" if numpy is None else f"NumPy {numpy} is older than {oldest}"
        fix = "sudo apt install python3-numpy" if numpy is None else "update its system"
        yield Fault(what, "there is no wheel of it for 32-bit systems", fix)


def _resources(facts: Mapping[str, Any]) -> Iterator[Fault]:
    store, free = facts.get("store"), facts.get("disk_free")
    if not facts.get("store_writable", True):
        whose = "its home folder" if not facts.get("home_writable", True) else str(store)
        fix = "sudo mount -o remount,rw / , or set SEED_HOME to a folder that can be written to"
        yield Fault(f"{whose} can't be written to", "nothing can be pushed", fix)
    if facts.get("noexec"):
        why = "no runtime starts from it, so no model runs"
        yield Fault(requirements.noexec_text(facts), why, requirements.noexec_advice(facts))
    if free is not None:
        needed = LOW_DISK if facts.get("runtime") else RUNTIME_DISK
        if free < needed:
            why = "a push needs the seed's size and that of its weights" if facts.get("runtime") else _ROOM_WHY
            fix = "free some space: sudo apt clean, or seed-deploy remove for versions that are kept"
            yield Fault(f"{free / 1e6:.0f} MB of disk are free, {needed / 1e6:.0f} MB should be", why, fix)
    available = facts.get("ram_available")
    if available is not None and available < LOW_RAM:
        fix = "see what runs there: ps aux --sort=-rss | head"
        what = f"{available / 1e6:.0f} MB of memory are available"
        yield Fault(what, "Python and ONNX Runtime take 45 MB before the model", fix, "advice")


def _transfer_error(connection: Connection) -> str:
    """Send a file that is thrown away there; returns why it can't be sent, "" where it can."""
    try:
        put(connection, Path(__file__), "/dev/null", 0)
    except RemoteError as error:
        return _reason(connection, error)
    return ""


def _reason(connection: Connection, error: RemoteError) -> str:
    return str(error).removeprefix(f"{connection.target}: ").partition("; ")[0]


def _transfer(findings: Mapping[str, Any]) -> Iterator[Fault]:
    if reason := findings.get("unsent"):
        why = "a push sends files by its sh, cat, dd, ls and sleep"
        yield Fault(f"no file can be sent to it: {reason}", why, "sudo apt install coreutils")


def _clock(facts: Mapping[str, Any], findings: Mapping[str, Any], now: float) -> Iterator[Fault]:
    clock = facts.get("clock")
    if clock is None:
        return
    signed = bool(findings.get("signers"))
    day = time.strftime("%Y-%m-%d", time.gmtime(clock))
    why = "signatures are checked against the time for which their signers are allowed" if signed else _CLOCK_WHY
    fix = "sudo timedatectl set-ntp true, or set it: sudo date -s @$(date +%s)"
    if clock < preflight.CLOCK_FLOOR:
        yield Fault(f"its clock was never set: it says {day}", why, fix, "fault" if signed else "advice")
    elif abs(clock - now) > CLOCK_DRIFT_S:
        days = abs(clock - now) / 86400
        side = "behind" if clock < now else "ahead"
        yield Fault(f"its clock is {days:.0f} days {side}: {day}", why, fix, "fault" if signed else "advice")


def _runtime(host: str, facts: Mapping[str, Any], findings: Mapping[str, Any]) -> Iterator[Fault]:
    push = f"seed-deploy push MODEL.seed {shlex.quote(host)}"
    if error := findings.get("error"):
        yield Fault(f"the store can't be examined: {error}", "its state is unknown", "check its disk for errors: dmesg")
    there = facts.get("runtime")
    if findings.get("linked") and not there:
        yield Fault("the runtime is incomplete", "no model runs", f"{push} installs it again")
    elif not there:
        yield Fault("there is no runtime yet", "it comes with the first push", push, "advice")
    elif findings.get("starts"):
        why = f"no model runs: {findings['starts']}"
        yield Fault(f"the runtime {there['version']} does not start", why, f"{push} --update-runtime")
    elif version(str(there["version"])) < version(__version__):
        what = f"the runtime is {there['version']}, this host has {__version__}"
        yield Fault(what, "newer seeds may not run there", f"{push} --update-runtime", "advice")
    if findings.get("status_error"):
        yield Fault(f"the store can't be read: {findings['status_error']}", "its models can't be listed", _STORE_FIX)


def _models(host: str, findings: Mapping[str, Any]) -> Iterator[Fault]:
    for model in (findings.get("status") or {}).get("models") or []:
        name, current = model["name"], model.get("current")
        target = shlex.quote(names.model_name(host, name))
        versions = {one["digest"]: one for one in model.get("versions") or []}
        broken = sorted(digest for digest, one in versions.items() if one.get("intact") is False)
        push = f"seed-deploy push {shlex.quote(f'{name}.seed')} {target}"
        if current is None and versions:
            yield Fault(f"{name}: no version is current", "it does not run", f"seed-deploy rollback {target}")
        elif current is not None and (current not in versions or current in broken):
            others = [digest for digest in versions if digest != current and digest not in broken]
            fix = f"{push} , or back to the version before: seed-deploy rollback {target}" if others else push
            yield Fault(f"{name}: the running version {current[:12]} is damaged", "it does not run", fix)
        for digest in broken:
            if digest != current:
                fix = f"remove it: seed-deploy remove {target} --digest {shlex.quote(digest[:12])}"
                yield Fault(f"{name}: the kept version {digest[:12]} is damaged", "no rollback to it", fix)


def _services(host: str, facts: Mapping[str, Any], findings: Mapping[str, Any]) -> Iterator[Fault]:
    described = findings.get("services") or {}
    models = (findings.get("status") or {}).get("models") or []
    live = {model["name"]: model.get("service") for model in models}
    linger = f"sudo loginctl enable-linger {shlex.quote(findings['user']) if findings.get('user') else '$USER'}"
    for name in sorted(set(described) | {name for name, service in live.items() if service}):
        target = shlex.quote(names.model_name(host, name))
        state = (live.get(name) or {}).get("active") or ""
        if facts.get("systemd") is False:
            yield Fault(f"{name}: no systemd runs there", "its service can't be started", preflight.NO_SYSTEMD_STEP)
        elif not facts.get("systemd_user"):
            fix = f"{linger} , then log in again"
            yield Fault(f"{name}: no systemd runs for this user", "its service can't be started", fix)
        elif state not in ("active", "activating", ""):
            yield Fault(f"{name}: its service is {state}", "it does not answer", f"seed-deploy logs {target} says why")
        elif (live.get(name) or {}).get("stale"):
            fix = f"seed-deploy push MODEL.seed {shlex.quote(host)} --update-runtime restarts it"
            yield Fault(f"{name}: its service runs from an older runtime", "it lacks later fixes", fix, "advice")
    if (described or any(live.values())) and findings.get("linger") is False:
        yield Fault("linger is not enabled", "services end with the last login and don't start with the device", linger)


def _signatures(facts: Mapping[str, Any], findings: Mapping[str, Any]) -> Iterator[Fault]:
    if findings.get("signers") and not facts.get("ssh_keygen", True):
        why = "allowed signers are set there and no signature can be checked, so every seed is refused"
        yield Fault("ssh-keygen is missing", why, "sudo apt install openssh-client")


def _leftovers(host: str, findings: Mapping[str, Any]) -> Iterator[Fault]:
    left = findings.get("leftovers") or []
    for kind, fix in (
        ("seed", "push it again, which continues where it stopped"),
        ("runtime", "the next push that installs one removes it"),
        ("wheel", "the next push that installs a runtime continues with what has arrived"),
    ):
        some = [one for one in left if one.get("kind") == kind]
        if some:
            total = sum(one["bytes"] for one in some)
            paths = [one["path"] for one in some]
            # To be run on the device: a path that a device names must not be removed here.
            remove = shlex.quote(f"rm -r {' '.join(shlex.quote(path) for path in paths)}")
            listed = ", ".join(_short_name(posixpath.basename(path)) for path in paths[:NAMED_MAX])
            more = f" and {len(some) - NAMED_MAX} more" if len(some) > NAMED_MAX else ""
            title = f"unfinished {kind}{'s' if len(some) > 1 else ''}"
            what = f"{len(some)} {title} of {total / 1e6:.1f} MB: {listed}{more}"
            yield Fault(
                what, "a push was interrupted", f"{fix}; or remove: ssh {names.ssh_words(host)} {remove}", "advice"
            )


def _short_name(name: str) -> str:
    """Return a file's name without its digest, or the beginning of it where it is named by its digest."""
    first, _, rest = name.partition(".")
    return f"{first[:12]}.{rest}" if len(first) == 64 else re.sub(r"\.[0-9a-f]{16}\.part$", "", name)


def _modules(facts: Mapping[str, Any]) -> str:
    try:
        return ", ".join(requirements.modules(profiles.match(facts)))
    except SeedError:
        return "numpy, seed_runtime"


_TERMUX: Final = (
    "pkg install proot-distro && proot-distro install debian && proot-distro login debian , then in it: "
    "apt install openssh-server python3 && mkdir -p /run/sshd && /usr/sbin/sshd -p 8024 , and push to port 8024"
)
_ROOM_WHY: Final = "the runtime needs that much while it is installed"
_CLOCK_WHY: Final = "times in the history are wrong; pushes work all the same"
_STORE_FIX: Final = "check who owns the files in it, and its disk for errors: dmesg"
