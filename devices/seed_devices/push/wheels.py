"""What a device installs, collected on the host: seed-runtime's own wheel, those that it needs, and pip's.

    <user cache>/seed/wheels/<16 hex>/*.whl            our own; whole, appears by one rename
    <user cache>/seed/wheels/<16 hex>-<16 hex>/*.whl   from the index; digests.json is as old as the last question
    <user cache>/seed/wheels/<16 hex>.lock             held while it is made; two processes make it once

Our own wheel stands in a folder that is named by the files it is made of, so a changed checkout gets a wheel of its
own. Wheels of the index stand in one that is named by what was asked for (machine, Python, glibc, the requirements)
and by what came: the index is asked again after ASK_S, and where it can't be, what it had before is used. A folder
never changes; one that newer wheels replaced goes after SPARE_S, as it may still be on its way to a device.

pip chooses among wheels by the tags of the device. The markers of a dependency ("only on Windows") it evaluates for
the host's Python; that the result works is tested on the device before it is used.
"""

from __future__ import annotations

import contextlib
import dataclasses
import email.parser
import fcntl
import hashlib
import importlib.util
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import platformdirs

from seed_devices.profiles import Profile, glibc
from seed_devices.push.repack import repack
from seed_runtime.errors import SeedError, UnsupportedError, UsageError

DISTRIBUTION: Final = "seed-runtime"
WHEELS_MAX: Final = 64
"""Wheels of one device."""
FETCH_S: Final = 1800
"""Seconds that one call of pip may take."""
ASK_S: Final = 3600
"""Seconds for which an answer of the index holds, no answer as well: the devices of a fleet are one question."""
SPARE_S: Final = 2 * 86400

_DIGESTS: Final = "digests.json"
_NO_INDEX: Final = re.compile(
    r"NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|ProxyError|SSLError|Network is unreachable|"
    r"Temporary failure in name resolution|Connection refused|Connection reset|Retrying \("
)
_NO_WHEEL: Final = re.compile("No matching distribution found|ResolutionImpossible|conflicting dependencies")


class WheelsError(SeedError):
    """The wheels are not in the cache and the package index can't be reached from this machine."""

    exit_code = 20

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(what, reason)
        self.what, self.reason = what, reason

    def __str__(self) -> str:
        return (
            f"{self.what} are not in this machine's cache and can't be fetched ({self.reason}); "
            "run this again once it reaches a package index, they are then kept for devices without one"
        )


@dataclasses.dataclass(frozen=True)
class Wheel:
    """One wheel. Sizes in bytes; `unpacked` is what it takes when installed."""

    path: Path
    sha256: str
    size: int
    unpacked: int


@dataclasses.dataclass(frozen=True)
class Wheelhouse:
    """All that one device installs: `own` is seed-runtime, `pip` can be run as it is, `needed` are the others."""

    version: str
    own: Wheel
    pip: Wheel
    needed: tuple[Wheel, ...]
    notes: tuple[str, ...] = ()
    """What the user should know of where they come from."""

    @property
    def titles(self) -> list[str]:
        """Names and versions of those that an index chose."""
        return [" ".join(wheel.path.name.split("-")[:2]) for wheel in (*self.needed, self.pip)]

    @property
    def all(self) -> tuple[Wheel, ...]:
        return (self.own, self.pip, *self.needed)


def collect(
    profile: Profile,
    python: tuple[int, int],
    libc: tuple[str, str],
    *,
    dependencies: bool = True,
    progress: Callable[[str, int, int], None] | None = None,
) -> Wheelhouse:
    """The wheels for a device of `profile` with this Python and C library: what the index has, else what it had.

    Without `dependencies`, our own wheel and pip's only.
    UnsupportedError: no wheels exist for it. WheelsError: the index can't be reached. UsageError: pip is missing here.
    """
    report = progress or (lambda step, done, total: None)
    notes: list[str] = []
    report("wheels", 0, 3)
    own = own_wheel()
    report("wheels", 1, 3)
    version = ".".join(map(str, python))
    name = f"wheels of pip for Python {version}"
    (pip,) = _fetched(name, ["pip"], ["--no-deps", f"--python-version={version}"], notes)
    report("wheels", 2, 3)
    needed: tuple[Wheel, ...] = ()
    if dependencies and profile.inference:
        tags = platform_tags(profile, libc)
        target = [f"--python-version={version}", "--implementation=cp", *(f"--platform={tag}" for tag in tags)]
        name = f"wheels for Python {version} on {profile.title} with {libc[0]} {libc[1]}"
        needed = _fetched(name, requirements(own), target, notes)
    report("wheels", 3, 3)
    return Wheelhouse(_version(own), own, pip, needed, tuple(notes))


def platform_tags(profile: Profile, libc: tuple[str, str]) -> list[str]:
    """What pip calls platforms: those that the device's C library admits. UnsupportedError if that is none."""
    if profile.wheels is None or libc[0] != "glibc":
        raise UnsupportedError(
            f"{profile.title} with {libc[0] or 'an unknown C library'}: ONNX Runtime has wheels for glibc only; "
            "use a system with glibc there, such as Debian"
        )
    tags = profile.wheels.tags(glibc(libc[1]))
    if not tags:
        oldest = ".".join(map(str, profile.wheels.oldest_glibc))
        raise UnsupportedError(f"{profile.title}: glibc {libc[1]} is older than {oldest}; update its system")
    return tags


def own_wheel() -> Wheel:
    """The wheel of the seed-runtime that runs here, cached by what it is made of.

    Made from the checkout where that is installed in place, else from the installed files: no index is asked, so
    the device gets what this machine has, whatever an index holds under that name by now.
    """
    try:
        distribution = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        raise UsageError(
            f"{DISTRIBUTION} is not installed here, so there is nothing to install on a device; "
            f"install it: pip install {DISTRIBUTION}[deploy]"
        ) from None
    checkout = _checkout(distribution)
    if checkout is None:
        return repack_cached(distribution)
    if not (checkout / "pyproject.toml").is_file():
        raise UsageError(f"{DISTRIBUTION} was installed in place from {checkout}, which is gone; install it again")
    return _only(_cached(_tree_key(checkout), lambda folder: _build(checkout, folder)))


def repack_cached(distribution: metadata.Distribution) -> Wheel:
    """The wheel that an installed distribution came from, made again from its files."""
    record = distribution.read_text("RECORD") or ""
    return _only(_cached(_key("repacked", distribution.version, record), lambda folder: repack(distribution, folder)))


def requirements(own: Wheel) -> list[str]:
    """What the base install needs, as the wheel's metadata says: extras left out."""
    with zipfile.ZipFile(own.path) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        message = email.parser.BytesParser().parsebytes(archive.read(name))
    return [line for line in message.get_all("Requires-Dist", []) if "extra ==" not in line]


def cache_root() -> Path:
    """Where the wheels are kept."""
    return Path(platformdirs.user_cache_path("seed", appauthor=False)) / "wheels"


def _fetched(what: str, wanted: Sequence[str], target: Sequence[str], notes: list[str]) -> tuple[Wheel, ...]:
    """What the index has now, if it was asked within ASK_S or can be; else what it had, with a note that says so."""
    key = _key("fetched", *target, *wanted)
    with _locked(key) as root:
        folders = sorted(root.glob(f"{key}-*"), key=_asked, reverse=True)
        before, wheels = next(((folder, held) for folder in folders if (held := _held(folder))), (None, ()))
        if before is not None and 0 <= time.time() - _asked(before) < ASK_S:
            return wheels
        try:
            with _made(root, key, lambda part: _download(what, wanted, target, part)) as part:
                folder = root / f"{key}-{_sha256(part / _DIGESTS)[:16]}"
                if folder != before:
                    shutil.rmtree(folder, ignore_errors=True)
                    part.rename(folder)
        except SeedError as error:
            if before is None:
                raise
            day = time.strftime("%Y-%m-%d", time.gmtime(_asked(before)))
            reason = error.reason if isinstance(error, WheelsError) else str(error)
            notes.append(f"{what}: those of {day} were used, the index could not be asked ({reason})")
            folder = before
        os.utime(folder / _DIGESTS)
        for old in folders:
            if old != folder and time.time() - _asked(old) > SPARE_S:
                shutil.rmtree(old, ignore_errors=True)
        return wheels if folder == before else _held(folder)


def _cached(key: str, make: Callable[[Path], object]) -> tuple[Wheel, ...]:
    """The wheels of the folder `key`, made by `make(empty folder)` if they aren't there or are damaged."""
    with _locked(key) as root:
        folder = root / key
        if wheels := _held(folder):
            return wheels
        with _made(root, key, make) as part:
            shutil.rmtree(folder, ignore_errors=True)
            part.rename(folder)
        return _held(folder)


@contextlib.contextmanager
def _made(root: Path, key: str, make: Callable[[Path], object]) -> Iterator[Path]:
    """A new folder of wheels with their digests, gone after the block unless it was renamed. Called under the lock."""
    for stale in root.glob(f"{key}.*.part"):
        shutil.rmtree(stale, ignore_errors=True)
    part = root / f"{key}.{secrets.token_hex(4)}.part"
    part.mkdir()
    try:
        make(part)
        made = sorted(part.glob("*.whl"))
        if not 0 < len(made) <= WHEELS_MAX:
            raise SeedError(f"{len(made)} wheels were made where 1 to {WHEELS_MAX} were expected; report it")
        (part / _DIGESTS).write_text(json.dumps({wheel.name: _sha256(wheel) for wheel in made}))
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _asked(folder: Path) -> float:
    """When the index was asked for these wheels last; 0 if that isn't known."""
    try:
        return (folder / _DIGESTS).stat().st_mtime
    except OSError:
        return 0.0


def _held(folder: Path) -> tuple[Wheel, ...]:
    """The wheels of a folder; none if it is not there or a digest is not the one that was written beside them."""
    try:
        digests = json.loads((folder / _DIGESTS).read_text())
        wheels = []
        for name, digest in sorted(digests.items()):
            path = folder / name
            if _sha256(path) != digest:
                return ()
            with zipfile.ZipFile(path) as archive:
                unpacked = sum(entry.file_size for entry in archive.infolist())
            wheels.append(Wheel(path, digest, path.stat().st_size, unpacked))
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile):
        return ()
    return tuple(wheels)


def _download(what: str, wanted: Sequence[str], target: Sequence[str], folder: Path) -> None:
    command = ["download", "--only-binary=:all:", "--retries=1", "--dest", str(folder), *target, "--", *wanted]
    code, said = _pip(command)
    if not code:
        return
    if _NO_INDEX.search(said):
        raise WheelsError(what, "the package index does not answer")
    if _NO_WHEEL.search(said):
        raise UnsupportedError(
            f"the package index has no {what}; use a newer system there, or another Python from 3.11 on"
        )
    raise WheelsError(what, _last_line(said))


def _build(checkout: Path, folder: Path) -> None:
    command = ["wheel", "--no-deps", "--wheel-dir", str(folder)]
    if importlib.util.find_spec("hatchling"):
        command.append("--no-build-isolation")  # works without a network
    code, said = _pip([*command, str(checkout)])
    if code and _NO_INDEX.search(said):
        raise WheelsError(f"what builds {DISTRIBUTION} from {checkout}", "install it: pip install hatchling")
    if code:
        raise UsageError(f"{DISTRIBUTION} can't be built from {checkout}: {_last_line(said)}; correct its sources")


def _pip(arguments: Sequence[str]) -> tuple[int, str]:
    if not importlib.util.find_spec("pip"):
        raise UsageError(f"pip is missing in {sys.prefix}; install it: {sys.executable} -m ensurepip")
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pip", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            timeout=FETCH_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 1, f"ReadTimeout: pip did not end within {FETCH_S} s"
    return done.returncode, done.stdout.decode("utf-8", "replace")


def _checkout(distribution: metadata.Distribution) -> Path | None:
    """The folder that the distribution runs from, if it is installed in place (PEP 610)."""
    try:
        origin = json.loads(distribution.read_text("direct_url.json") or "{}")
        in_place = origin.get("dir_info", {}).get("editable", False)
        url = urlsplit(str(origin.get("url", "")))
    except (ValueError, AttributeError):
        return None
    return Path(unquote(url.path)) if in_place is True and url.scheme == "file" else None


def _tree_key(checkout: Path) -> str:
    """The name for a wheel of these sources: their names and contents."""
    digest = hashlib.sha256()
    for top in ("pyproject.toml", "README.md", "LICENSE", "runtime", "exporter", "devices"):
        start = checkout / top
        files = sorted(start.rglob("*")) if start.is_dir() else [start]
        for path in files:
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(checkout)}\0{_sha256(path)}\n".encode())
    return digest.hexdigest()[:16]


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _only(wheels: tuple[Wheel, ...]) -> Wheel:
    (wheel,) = wheels
    return wheel


def _version(own: Wheel) -> str:
    return own.path.name.split("-")[1]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _last_line(said: str) -> str:
    lines = [line for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith("ERROR")]
    return (telling or lines or ["pip said nothing"])[-1].removeprefix("ERROR: ")


@contextlib.contextmanager
def _locked(key: str) -> Iterator[Path]:
    """Hold the lock for `key`; gives the folder of the cache."""
    root = cache_root()
    root.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(root / f"{key}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield root
    finally:
        os.close(descriptor)
