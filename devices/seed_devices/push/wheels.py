"""Collect what a device installs: the wheel of seed-runtime, the wheels that it needs, and pip.

pip does the work: it builds the wheel of a checkout, chooses among an index's wheels by the platform tags of the
device, and checks their digests. What it can't do is answer without an index, so what it made is stored (wheel_cache).
An index is asked again after ASK_S; where it can't be, what it had before is used.

pip evaluates the markers of a dependency ("only on Windows") for the host's Python; that the result works is tested on
the device before it is used.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from seed_devices.errors import WheelsError
from seed_devices.profiles import Profile, parse_glibc
from seed_devices.push.installed_wheel import write_wheel
from seed_devices.push.wheel_cache import Wheel, cached, key_of, sha256
from seed_devices.remote.installer_environment import last_line
from seed_runtime.errors import UnsupportedError, UsageError

DISTRIBUTION: Final = "seed-runtime"
ASK_S: Final = 3600
"""Seconds for which an index's answer is used again, no answer as well: the devices of a fleet are one question."""

_SOURCES: Final = ("pyproject.toml", "README.md", "LICENSE", "runtime", "exporter", "devices")
_NO_INDEX: Final = re.compile(
    r"NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|ProxyError|SSLError|Network is unreachable|"
    r"Temporary failure in name resolution|Connection refused|Connection reset|Retrying \("
)
_EXTRA: Final = re.compile(r"extra == ['\"]([\w.-]+)['\"]")
"""Marker of a dependency that an extra adds."""
_NO_WHEEL: Final = re.compile("No matching distribution found|ResolutionImpossible|conflicting dependencies")


class NoWheelsError(UnsupportedError):
    """An index has no wheels for this Python on this device; for another Python of the device there may be some."""


@dataclasses.dataclass(frozen=True)
class Wheelhouse:
    """All that one device installs: `own` is seed-runtime, `pip` can be run as it is, `needed` are the others."""

    version: str
    own: Wheel
    pip: Wheel
    needed: tuple[Wheel, ...]
    notes: tuple[str, ...] = ()
    """Notes for the user on where the wheels come from."""

    @property
    def titles(self) -> list[str]:
        """Return names and versions of the wheels that an index chose."""
        return [" ".join(wheel.path.name.split("-")[:2]) for wheel in (*self.needed, self.pip)]

    @property
    def all(self) -> tuple[Wheel, ...]:
        """Return every wheel of the device."""
        return (self.own, self.pip, *self.needed)

    @property
    def unpacked(self) -> int:
        """Return the bytes that the runtime takes when installed."""
        return sum(wheel.unpacked for wheel in (self.own, *self.needed))

    def missing_bytes(self, arrived: Mapping[str, int]) -> int:
        """Return the bytes that are still to be sent.

        Args:
            arrived: sizes of the files that arrived at the device earlier, by name, as its facts report them.
        """
        missing = 0
        for wheel in self.all:
            sizes = [arrived.get(name, 0) for name in (wheel.path.name, part_name(wheel))]
            missing += wheel.size - max(size for size in (*sizes, 0) if size <= wheel.size)
        return missing


def collect(
    profile: Profile,
    python: tuple[int, int],
    glibc: str,
    *,
    dependencies: bool = True,
    extras: Sequence[str] = (),
    progress: Callable[[str, int, int], None] | None = None,
) -> Wheelhouse:
    """Collect the wheels for a device: what the index has now, else what it had when it was asked last.

    Args:
        profile: the kind of device.
        python: the version of its python3.
        glibc: the version of its C library, one that some wheels admit.
        dependencies: False for seed-runtime's own wheel and pip only.
        extras: of seed-runtime, whose packages the device needs as well.
        progress: called with "wheels", how many of two steps are done, and 2.

    Raises:
        NoWheelsError: no wheels exist for this Python on the device.
        WheelsError: nothing is stored, and the index can't be reached.
        UsageError: pip is missing on this machine, or seed-runtime can't be made a wheel of.
    """
    report = progress or (lambda phase, done, total: None)
    report("wheels", 0, 2)
    own = own_wheel()
    report("wheels", 1, 2)
    version = ".".join(map(str, python))
    title, wanted, target = f"wheels of pip for Python {version}", ["pip"], [f"--python-version={version}"]
    if dependencies and profile.inference and profile.wheels is not None:
        title = f"wheels for Python {version} on {profile.title} with glibc {glibc}"
        wanted += requirements(own, extras)
        target += ["--implementation=cp", *(f"--platform={tag}" for tag in profile.wheels.tags(parse_glibc(glibc)))]
    key = key_of(*target, *wanted)
    wheels, notes = cached(key, lambda folder: _download(title, wanted, target, folder), title, valid_s=ASK_S)
    (pip,) = (wheel for wheel in wheels if wheel.path.name.startswith("pip-"))
    needed = tuple(wheel for wheel in wheels if wheel is not pip)
    report("wheels", 2, 2)
    return Wheelhouse(own.path.name.split("-")[1], own, pip, needed, tuple(notes))


def part_name(wheel: Wheel) -> str:
    """Return the name of the file in which a device collects a wheel, as installer.py gives it."""
    return f"{wheel.path.name}.{wheel.sha256[:16]}.part"


def own_wheel() -> Wheel:
    """Return the wheel of the seed-runtime that runs here, which is the one that devices get.

    It is built from the checkout where that is installed in place (PEP 610), and written from the installed files
    otherwise; no index is asked for it.

    Raises:
        UsageError: seed-runtime is not installed, or its sources or files are not as they should be.
    """
    try:
        distribution = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        step = f"install it: pip install {DISTRIBUTION}[deploy]"
        raise UsageError(f"{DISTRIBUTION} is not installed here, so no device can get it; {step}") from None
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        checkout = Path(unquote(urlsplit(origin["url"]).path))
        (wheel,), _ = cached(_sources_key(checkout), lambda folder: _build(checkout, folder))
    else:
        key = key_of("installed", distribution.read_text("RECORD") or "")
        (wheel,), _ = cached(key, lambda folder: write_wheel(distribution, folder))
    return wheel


def requirements(own: Wheel, extras: Sequence[str] = ()) -> list[str]:
    """Return what seed-runtime needs, as the metadata of its wheel says: the base install, and what extras add."""
    name, version = own.path.name.split("-")[:2]
    info = zipfile.Path(own.path, f"{name}-{version}.dist-info/")
    lines = metadata.PathDistribution(info).requires or []
    found = [line for line in lines if "extra ==" not in line]
    for line in lines:
        needed, _, marker = line.partition(";")
        if (match := _EXTRA.fullmatch(marker.strip())) and match[1] in extras:
            found.append(needed.strip())
    return found


def _download(title: str, wanted: Sequence[str], target: Sequence[str], folder: Path) -> None:
    command = ["download", "--only-binary=:all:", "--retries=1", "--dest", str(folder), *target, "--", *wanted]
    code, output = _pip(command)
    if code and _NO_INDEX.search(output):
        raise WheelsError(title, "the package index does not answer")
    if code and _NO_WHEEL.search(output):
        step = "use a newer system there, or another Python from 3.11 on"
        raise NoWheelsError(f"the package index has no {title}; {step}")
    if code:
        raise WheelsError(title, last_line(output))


def _build(checkout: Path, folder: Path) -> None:
    command = ["wheel", "--no-deps", "--wheel-dir", str(folder), str(checkout)]
    if importlib.util.find_spec("hatchling"):
        command.append("--no-build-isolation")  # works without a network
    code, output = _pip(command)
    if code and _NO_INDEX.search(output):
        raise WheelsError(f"what builds {DISTRIBUTION} from {checkout}", "install it: pip install hatchling")
    if code:
        raise UsageError(f"{DISTRIBUTION} can't be built from {checkout}: {last_line(output)}; correct its sources")


def _pip(arguments: Sequence[str]) -> tuple[int, str]:
    """Run this Python's pip, and return its exit status and all that it printed."""
    if not importlib.util.find_spec("pip"):
        raise UsageError(f"pip is missing in {sys.prefix}; install it: {sys.executable} -m ensurepip")
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "LC_ALL": "C"}
    done = subprocess.run(
        [sys.executable, "-m", "pip", *arguments], env=environment, check=False,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return done.returncode, done.stdout.decode("utf-8", "replace")


def _sources_key(checkout: Path) -> str:
    """Return the key of a wheel of these sources: their names and contents."""
    found = (path for name in _SOURCES for path in (checkout / name, *sorted((checkout / name).rglob("*"))))
    files = [path for path in found if path.is_file() and "__pycache__" not in path.parts]
    return key_of(*(f"{path.relative_to(checkout)} {sha256(path)}" for path in files))
