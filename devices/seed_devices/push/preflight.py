"""A seed that is to be carried to devices: what must be known of it, read once and shared by all of them.

Nothing of its weights is held in memory; the file is read in pieces by whoever sends it.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import seed_runtime
from seed_devices.errors import RemoteError
from seed_devices.fleet.target import check_name
from seed_devices.profiles import Profile
from seed_runtime.agent.names import NAME
from seed_runtime.agent.store import partial
from seed_runtime.assembly.assemble import working_bytes
from seed_runtime.backends import get as backend
from seed_runtime.errors import FormatError, NotASeedError, UsageError
from seed_runtime.format.header import ModelInfo
from seed_runtime.memory.footprint import UNIT

PYTHON_BYTES: Final = 24 << 20
"""What Python with NumPy takes at least, before a seed is looked at: 25 MB where measured."""
BLOCK_MAX: Final = 1 << 20
ROOM: Final = 1 << 20
"""What a push needs beside the seed: records, folders, journals [B]."""


CLOCK_FLOOR: Final = 1735689600
"""2025-01-01: a device's clock before that was never set."""


@dataclass(frozen=True)
class SeedFile:
    """One seed file. Sizes in bytes."""

    path: Path
    digest: str
    file_size: int
    weights_size: int
    model: ModelInfo
    signed: bool
    assembly: int
    """Least memory of the device's process that assembles it."""
    session: int | None
    """Least memory of the one that runs it, None where the seed holds no measurement."""

    @property
    def default_name(self) -> str:
        """The model's name on a device where none was given."""
        for name in (self.model.model_id, self.path.stem):
            if NAME.fullmatch(name):
                return name
        check_name(self.model.model_id or self.path.stem, "the seed's own name (give another one, HOST:NAME)")
        raise AssertionError

    def known(self, start: int, digests: Sequence[object], size: int) -> int:
        """Bytes from `start` on that are as on the device: whole blocks of `size`, to the first that differs.

        `digests` are SHA-256 in hexadecimal, as the device tells them.
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

    @property
    def title(self) -> str:
        return f"{self.model.model_id} {self.model.version}"


def load(path: Path) -> SeedFile:
    """The seed at `path`, every byte of it checked.

    Errors: NotASeedError, RemoteError with exit code 10 (damaged), UnsupportedError, UsageError.
    """
    try:
        return _read(path)
    except NotASeedError:
        raise
    except FormatError as error:
        # Its own text is for the device that it was copied to.
        text = f"{error.where}: {error.problem}; this seed is damaged, export it again"
        raise RemoteError(error.exit_code, text, type(error).__name__) from None


def _read(path: Path) -> SeedFile:
    try:
        seed = seed_runtime.open(path)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; give the path of a seed") from None
    digest = seed.digest.hex()
    if not partial.is_whole(path, digest):
        raise FormatError(path.name, "its bytes don't match its digests")
    needed = PYTHON_BYTES + max(working_bytes(seed.header), seed.header.weights.working_bytes)
    footprint, session = seed.footprint(), None
    if footprint is not None:
        least = min(max(mode.opening, mode.mapped + min(mode.peaks)) for mode in footprint.modes) * UNIT
        session = PYTHON_BYTES + backend(seed.kind.backend).import_bytes() + least
    return SeedFile(
        path=path,
        digest=digest,
        file_size=seed.file_size,
        weights_size=seed.header.weights.size,
        model=seed.header.model,
        signed=seed.header.signature is not None,
        assembly=needed,
        session=session,
    )


def check(
    seed: SeedFile,
    host: str,
    facts: Mapping[str, Any],
    profile: Profile | None,
    *,
    max_memory: int | None,
    have: int,
    service: bool,
) -> list[str]:
    """Refuse what the device can't take, before anything is sent to it; returns what the user should know.

    Bounds are the least that could do: the device plans with its own figures before it allocates anything.

    Args:
        profile: of the device; None for one that no profile knows and whose runtime works.
        have: bytes of the seed that are there already.

    RemoteError with exit code 11 (signatures), 12 (the device can't), 13 (disk) or 14 (memory).
    """
    notes = []
    runs = profile is None or profile.inference
    if facts.get("store_writable") is False:
        raise RemoteError(
            12,
            f"{host}: {facts.get('store')} can't be written to; mount it writable (sudo mount -o remount,rw /), or "
            f"let SEED_HOME there name a folder that can be",
        )
    free, cached = _number(facts, "disk_free"), _number(facts, "disk_cached") or 0
    if free is not None and seed.file_size - have + ROOM > free + cached:
        raise RemoteError(
            13,
            f"{host}: {seed.file_size - have + ROOM:,} bytes are needed and {free:,} are free; free some space "
            f"there: seed-deploy remove {shlex.quote(host)}:NAME",
        )
    notes += _memory(seed, host, facts, profile, max_memory)
    if service and profile is not None and not profile.service:
        raise RemoteError(
            12, f"{host}: {profile.title}: no systemd runs there, which --service needs; push without --service"
        )
    if facts.get("signers") is True:
        _signature(seed, host, facts)
    if service and facts.get("systemd_user") is False:
        raise RemoteError(
            12,
            f"{host}: no systemd runs for this user, which --service needs; try: ssh {shlex.quote(host)} sudo loginctl "
            f"enable-linger, or push without --service",
        )
    clock = _number(facts, "clock")
    if clock is not None and clock < CLOCK_FLOOR:
        notes.append("its clock was never set; nothing here depends on it, but its logs will show wrong times")
    if not runs:
        notes.append("no ONNX Runtime there: seeds are verified and assembled on it, something else must run them")
    return notes


def _signature(seed: SeedFile, host: str, facts: Mapping[str, Any]) -> None:
    if not seed.signed:
        raise RemoteError(
            11,
            f"{host}: its allowed_signers say whose seeds it takes, and {seed.path.name} is not signed; sign it "
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


def _memory(
    seed: SeedFile, host: str, facts: Mapping[str, Any], profile: Profile | None, limit: int | None
) -> list[str]:
    needed = max(seed.assembly, (seed.session or 0) if profile is None or profile.inference else 0)
    ram, available = _number(facts, "ram"), _number(facts, "ram_available")
    # Of a board that is known by its name; the other profiles hold the least that may do.
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
            14, f"{text} and the device has {_mib(ram)} MiB; use a larger one, or make a smaller model",
            "MemoryBudgetError",
        )  # fmt: skip
    if available is not None and needed > available:
        return [f"it needs {_mib(needed)} MiB at least and {_mib(available)} MiB are free there now"]
    return []


def _number(facts: Mapping[str, Any], key: str) -> int | None:
    value = facts.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _mib(size: int) -> int:
    return -(-size // (1 << 20))
