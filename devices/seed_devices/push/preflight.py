"""Read a seed and check a device before a push sends anything.

A seed is read once and the record is shared by all devices. Nothing of its weights is held in memory; the file is read
in pieces by whoever sends it.
"""

from __future__ import annotations

import contextlib
import hashlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import seed_runtime
from seed_devices import names
from seed_devices.errors import RemoteError
from seed_devices.fleet.target import check_name
from seed_devices.profiles import Profile
from seed_devices.push import requirements
from seed_runtime import backends
from seed_runtime.agent.names import NAME
from seed_runtime.agent.store import partial
from seed_runtime.assembly.assemble import working_bytes
from seed_runtime.backends.onnxruntime_releases import is_older, oldest_release
from seed_runtime.errors import FormatError, NotASeedError, UnsupportedError, UntrustedError, UsageError
from seed_runtime.format.header import Header, ModelInfo
from seed_runtime.format.reader import SeedReader
from seed_runtime.memory.footprint import UNIT
from seed_runtime.processing import PICTURE, TEXT
from seed_runtime.seed import Seed
from seed_runtime.trust import sshsig

PYTHON_BYTES: Final = 24 << 20
"""The least memory that Python with NumPy takes before a seed is opened, in bytes: 25 MB where measured."""
BLOCK_MAX: Final = 1 << 20
"""Largest block of which a device may report a digest, in bytes."""
DISK_MARGIN: Final = 1 << 20
"""Disk space that a push needs beside the seed for records, folders and journals, in bytes."""
CLOCK_FLOOR: Final = 1735689600
"""2025-01-01 in seconds since 1970: a device's clock before that was never set."""

NO_SYSTEMD_STEP: Final = (
    "push without --service, and let what starts programs there start: seed-run model.seed --serve ADDRESS"
)
"""Next step for a device whose system is started by something else than systemd."""


@dataclass(frozen=True)
class SeedHeader:
    """One seed file by its header alone, whose other bytes may be damaged."""

    path: Path
    digest: str
    file_size: int
    """Size of the whole file, in bytes."""
    model: ModelInfo
    base: str | None
    """Digest of the seed that it stands on; None for a whole one."""
    depth: int
    """Number of seeds that it stands on, one after the other."""
    signer: str | None
    """The key that its signature names, which may be wrong; None where there is no signature."""

    @property
    def title(self) -> str:
        """Return the model's id and version."""
        return f"{self.model.model_id} {self.model.version}"


@dataclass(frozen=True)
class SeedFile(SeedHeader):
    """One seed file that is to be pushed, all of its bytes checked. Sizes are in bytes."""

    weights_size: int
    assembly: int
    """The least memory of the device's process that assembles it."""
    session: int | None
    """The least memory of the process that runs it, None where the seed holds no measurement."""
    library: str | None = None
    """The oldest ONNX Runtime that takes it, None where none is known."""
    backend: str | None = None
    """What runs it, as in seed_runtime.backends; None where that isn't known."""
    asked_with: tuple[str, ...] = ()
    """Extras of seed-runtime with which it is asked about pictures or texts."""
    is_complete: bool = True
    """False for a delta whose base wasn't read: of its session and its graph nothing is known."""

    @property
    def default_name(self) -> str:
        """Return the model's name on a device where the user gave none."""
        for name in (self.model.model_id, self.path.stem):
            if NAME.fullmatch(name):
                return name
        check_name(self.model.model_id or self.path.stem, "the seed's own name (give another one, HOST:NAME)")
        raise AssertionError

    def matching_bytes(self, start: int, digests: Sequence[object], size: int) -> int:
        """Count the bytes from `start` on that the device has already: whole blocks, to the first that differs.

        Args:
            start: the offset of the first block.
            digests: SHA-256 of the device's blocks in hexadecimal, as the device reports them.
            size: bytes of a block.
        """
        same = 0
        with self.path.open("rb") as file:
            file.seek(start)
            for digest in digests:
                block = file.read(size)
                if len(block) < size or hashlib.sha256(block).hexdigest() != digest:
                    break
                same += size
        return same


def read_header(path: Path) -> SeedHeader:
    """Read the header of the seed at `path`.

    Raises:
        NotASeedError: the file is no seed.
        RemoteError: it is damaged (exit code 10).
        UnsupportedError: its format is newer than this runtime.
        OSError: it can't be read.
    """
    with _as_damaged_here(), partial.open_file(path, "rb") as file:
        reader = SeedReader(file, path.name)
    return SeedHeader(**_facts(path, reader.digest, reader.file_size, reader.header))


def check_signature(path: Path) -> None:
    """Check that a signed seed's signature is that of the key that it names, whoever holds that.

    Raises:
        TrustError: it isn't, or that can't be checked.
    """
    with partial.open_file(path, "rb") as file:
        reader = SeedReader(file, path.name)
    if reader.header.signature is not None and reader.signed is not None:
        sshsig.check_signature(reader.header.signature, reader.signed, path.name)


def load(path: Path) -> SeedFile:
    """Read the seed at `path` and check every byte of it.

    Raises:
        NotASeedError: the file is no seed.
        RemoteError: it is damaged (exit code 10).
        UnsupportedError: its format is newer than this runtime.
        UsageError: it can't be read.
    """
    with _as_damaged_here():
        return _read(path)


def with_bases(seed: SeedFile, bases: Sequence[Path]) -> SeedFile:
    """Return a delta with what its graph and the memory of its session need.

    Args:
        seed: the delta.
        bases: what it stands on, the whole seed first.

    Raises:
        SeedError: one of them can't be used.
        OSError: one of them can't be read.
    """
    below = None
    for path in bases:
        below = seed_runtime.open(path, enforce=False, base=below)
    return replace(seed, **_figures(seed_runtime.open(seed.path, enforce=False, base=below)))


def check(
    seed: SeedFile,
    host: str,
    facts: Mapping[str, Any],
    profile: Profile | None,
    *,
    max_memory: int | None,
    bytes_to_send: int,
    service: bool,
    runtime_due: bool = False,
) -> list[str]:
    """Check that a device can take the seed, before anything is sent to it.

    The bounds are the least that could do: the device plans with its own figures before it allocates anything.

    Args:
        seed: what is to be pushed.
        host: the device, as the user wrote it.
        facts: what the device reported.
        profile: the device's; None for one that no profile knows and whose runtime works.
        max_memory: what --max-memory allows, in bytes.
        bytes_to_send: of this seed and of others with it, without what has arrived.
        service: whether a service was asked for.
        runtime_due: whether the push installs the runtime, and with it the newest ONNX Runtime.

    Returns:
        Notes for the user.

    Raises:
        RemoteError: with exit code 11 (signatures), 12 (the device can't), 13 (disk) or 14 (memory).
    """
    if facts.get("store_writable") is False:
        raise RemoteError(
            12,
            f"{host}: {facts.get('store')} can't be written to; mount it writable (sudo mount -o remount,rw /), or "
            f"set SEED_HOME there to a folder that can be",
        )
    free, cached = _number(facts, "disk_free"), _number(facts, "disk_cached") or 0
    if free is not None and bytes_to_send + DISK_MARGIN > free + cached:
        raise RemoteError(
            13,
            f"{host}: {bytes_to_send + DISK_MARGIN:,} bytes are needed and {free:,} are free; free some space "
            f"there: seed-deploy remove {shlex.quote(names.model_name(host, 'NAME'))}",
        )
    library = facts.get("onnxruntime")
    if seed.library and isinstance(library, str) and not runtime_due and is_older(library, seed.library):
        raise RemoteError(
            12,
            f"{host}: its ONNX Runtime is {library} and {seed.title} needs {seed.library} or newer; update it: "
            f"seed-deploy push --update-runtime {shlex.quote(str(seed.path))} {shlex.quote(host)}",
        )
    notes = _check_memory(seed, host, facts, profile, max_memory)
    if service:
        check_service(host, facts, profile)
    if facts.get("signers") is True:
        _check_signature(seed, host, facts)
    clock = _number(facts, "clock")
    if clock is not None and clock < CLOCK_FLOOR:
        notes.append("its clock was never set; the push doesn't depend on it, but its logs will show wrong times")
    if profile is not None and not profile.inference:
        notes.append("no ONNX Runtime there: seeds are verified and assembled on it, something else must run them")
    return notes


def check_service(host: str, facts: Mapping[str, Any], profile: Profile | None) -> None:
    """Check that a device can have services of its user.

    Args:
        host: the device's name.
        facts: what the device reported.
        profile: the device's; None for one that no profile knows.

    Raises:
        RemoteError: no systemd runs there, or none for this user.
    """
    if profile is not None and not profile.service:
        raise RemoteError(
            12, f"{host}: {profile.title}: no systemd runs there, which --service needs; {NO_SYSTEMD_STEP}"
        )
    if facts.get("systemd_user") is False:
        if facts.get("systemd") is False:
            raise RemoteError(12, f"{host}: no systemd runs there, which --service needs; {NO_SYSTEMD_STEP}")
        raise RemoteError(
            12,
            f"{host}: no systemd runs for this user, which --service needs; try: ssh {names.ssh_words(host)} sudo "
            f"loginctl enable-linger, or push without --service",
        )


def _read(path: Path) -> SeedFile:
    try:
        seed = seed_runtime.open(path)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; give the path of a seed") from None
    if not partial.is_whole(path.resolve(), seed.digest.hex()):  # which follows no links itself
        raise FormatError(path.name, "its bytes don't match its digests")
    return SeedFile(**_facts(path, seed.digest, seed.file_size, seed.header), **_figures(seed))


@contextlib.contextmanager
def _as_damaged_here() -> Iterator[None]:
    """Say of damaged seeds what is to be done on this machine: FormatError is written for one that was copied."""
    try:
        yield
    except NotASeedError:
        raise
    except FormatError as error:
        text = f"{error.where}: {error.problem}; this seed is damaged, export it again"
        raise RemoteError(error.exit_code, text, type(error).__name__) from None


def _figures(seed: Seed) -> dict[str, Any]:
    """Return the fields that `SeedFile` has beside those of `SeedHeader`."""
    # A device that has the base knows the rest: what runs it, and what its graph needs.
    is_complete = seed.header.base is None or seed.base is not None
    footprint, session, assembly = seed.footprint(), None, seed.header.weights.working_bytes
    if seed.header.has_parts:
        assembly = max(assembly, working_bytes(seed.header))
    if footprint is not None and is_complete:
        least = min(max(mode.opening, mode.mapped + min(mode.peaks)) for mode in footprint.modes) * UNIT
        session = PYTHON_BYTES + backends.get(seed.kind.backend).import_bytes() + least
    info = seed.skeleton() if is_complete else None
    return {
        "weights_size": seed.header.weights.size,
        "assembly": PYTHON_BYTES + assembly,
        "session": session,
        "library": None if info is None or not info.opsets else oldest_release(info.ir_version, info.opsets),
        "backend": None if info is None else seed.kind.backend,
        "asked_with": _asked_with(seed) if is_complete else (),
        "is_complete": is_complete,
    }


def _asked_with(seed: Seed) -> tuple[str, ...]:
    try:
        steps = seed.processing()
    except UnsupportedError:  # of a newer runtime than this one, and the device has none that knows more
        return ()
    if steps is None:
        return ()
    media = (TEXT,) if steps.generation is not None else steps.media
    extras = {PICTURE: requirements.PICTURES, TEXT: requirements.TEXT}
    return tuple(extras[medium] for medium in media if medium in extras)


def _facts(path: Path, digest: bytes, file_size: int, header: Header) -> dict[str, Any]:
    """Return the fields of `SeedHeader`."""
    return {
        "path": path,
        "digest": digest.hex(),
        "file_size": file_size,
        "model": header.model,
        "base": None if header.base is None else header.base.digest.hex(),
        "depth": 0 if header.base is None else header.base.depth,
        "signer": _signer(header),
    }


def _signer(header: Header) -> str | None:
    if header.signature is None:
        return None
    try:
        return sshsig.describe_key(header.signature)
    except UntrustedError:
        return "no key that can be read"


def _check_signature(seed: SeedFile, host: str, facts: Mapping[str, Any]) -> None:
    if seed.signer is None:
        raise RemoteError(
            11,
            f"{host}: it takes signed seeds only (it has allowed_signers), and {seed.path.name} is not signed; sign it "
            f"(seed-export --sign KEY), or get it from whom you trust",
            "UntrustedError",
        )
    if facts.get("ssh_keygen") is False:
        raise RemoteError(
            11,
            f"{host}: it has no ssh-keygen to check the signature with, which its allowed_signers ask for; install it "
            f"there: sudo apt install openssh-client",
            "TrustError",
        )


def _check_memory(
    seed: SeedFile, host: str, facts: Mapping[str, Any], profile: Profile | None, limit: int | None
) -> list[str]:
    needed = max(seed.assembly, (seed.session or 0) if profile is None or profile.inference else 0)
    ram, available = _number(facts, "ram"), _number(facts, "ram_available")
    # Only a board that is known by its model's name has the memory of its profile; the others hold the least.
    if ram is None and profile is not None and profile.models:
        ram = max(profile.ram)
    text = f"{host}: {seed.title} needs {_mib(needed)} MiB at least"
    if limit is not None and needed > limit:
        raise RemoteError(
            14,
            f"{text} and --max-memory allows {_mib(limit)} MiB; allow more, or make a smaller model",
            "MemoryBudgetError",
        )
    if ram is not None and needed > ram:
        raise RemoteError(
            14,
            f"{text} and the device has {_mib(ram)} MiB; use a larger one, or make a smaller model",
            "MemoryBudgetError",
        )
    if available is not None and needed > available:
        return [f"it needs {_mib(needed)} MiB at least and {_mib(available)} MiB are free there now"]
    return []


def _number(facts: Mapping[str, Any], key: str) -> int | None:
    value = facts.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _mib(size: int) -> int:
    return -(-size // (1 << 20))
