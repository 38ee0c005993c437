"""The routes by which a version can reach a device, by what the device has: whole, or as what differs from a seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from seed_devices.push.candidates import Candidates
from seed_devices.push.preflight import SeedHeader
from seed_devices.push.requirements import version


class StoredVersions:
    """What a device says that it has of a model."""

    def __init__(self, model: Mapping[str, Any]) -> None:
        """Take the model from the answer to `status`; an empty mapping for nothing."""
        self.current: str | None = model.get("current")
        """The version that runs."""
        self._versions: dict[str, Mapping[str, Any]] = {each["digest"]: each for each in model.get("versions") or []}
        self._partial = model.get("partial_digest"), model.get("partial") or 0

    def has(self, digest: str) -> bool:
        """Return whether a version is there, with all that it stands on, and looks whole."""
        seen: set[str] = set()
        base: str | None = digest
        while base is not None:
            found = self._versions.get(base)
            if found is None or found.get("intact") is False or base in seen:
                return False
            seen.add(base)
            base = found.get("base")
        return True

    def is_below(self, digest: str) -> bool:
        """Return whether the version that runs stands on this one."""
        seen: set[str] = set()
        base = self._versions.get(self.current or "", {}).get("base")
        while base is not None and base not in seen:
            if base == digest:
                return True
            seen.add(base)
            base = self._versions.get(base, {}).get("base")
        return False

    def version_of(self, digest: str) -> int | None:
        """Return the model's version that a stored seed is; None where that isn't known."""
        found = self._versions.get(digest, {}).get("model_version")
        return found if isinstance(found, int) else None

    def bytes_arrived(self, header: SeedHeader) -> int:
        """Return how many bytes of a seed have arrived; what has arrived of another seed doesn't count."""
        digest, size = self._partial
        return min(size, header.file_size) if digest == header.digest else 0


@dataclass(frozen=True)
class RuntimeLimits:
    """Which seeds a device's runtime reads: the one that is there, or the one that the push installs."""

    runtime: str
    """Its version."""
    chain_max: int | None
    """How many seeds a seed may stand on there; None where seeds with a base can't be read."""

    def allow(self, header: SeedHeader) -> bool:
        """Return whether the runtime is new enough for a seed."""
        return (self.chain_max or 0) >= header.depth and version(self.runtime) >= header.model.min_runtime


@dataclass(frozen=True)
class Route:
    """One route by which a version can reach a device."""

    files: tuple[SeedHeader, ...]
    """The seeds to send, each on top of the one before; the last one is the version."""
    bytes_to_send: int
    """What has arrived before doesn't count."""
    is_stored: bool = False
    """True if the device has the version as this seed already."""
    base_version: int | None = None
    """Version of the model that its base is; None for a whole seed, and where that isn't known."""
    is_repair: bool = False
    """True if it also sends bases that the device reports as stored: for a device that finds them damaged or gone."""

    @property
    def seed(self) -> SeedHeader:
        """Return the seed that will run."""
        return self.files[-1]


def find_routes(candidates: Candidates, stored: StoredVersions, limits: RuntimeLimits) -> tuple[list[Route], list[str]]:
    """Find all routes by which the given version can reach a device, the one with the fewest bytes to send first.

    A seed that is there already comes before all others, and the one that runs before that. Of equal ones the given
    seed is first, and repairs are last.

    Args:
        candidates: the seeds that may be sent.
        stored: what the device has.
        limits: what the runtime there reads.

    Returns:
        The routes, none where a base is missing here and there; and notes on seeds that the user named and that can't
        be used there.
    """
    found: list[Route] = []
    notes: list[str] = []
    for seed in candidates.alternatives:
        routes = _routes_of(candidates, stored, seed)
        allowed = [route for route in routes if all(map(limits.allow, route.files))]
        found += allowed
        if seed is candidates.given or allowed:
            continue
        if routes:
            problem = f"its runtime {limits.runtime} is too old for it; --update-runtime brings a newer one"
        else:
            problem = f"its base {seed.base} is neither there nor in the folder of {seed.path.name}"
        notes.append(f"{seed.path.name} was not used: {problem}")
    found.sort(
        key=lambda route: (
            route.is_repair,
            not route.is_stored,
            route.bytes_to_send,
            route.seed.digest != stored.current,
            route.seed is not candidates.given,
        )
    )
    return found, notes


def whole_size(candidates: Candidates) -> int | None:
    """Return how many bytes a device takes that has nothing yet; None where a base is missing here.

    That is the whole seed of this version, or else the given delta with all that it stands on.
    """
    if candidates.whole is not None:
        return candidates.whole.file_size
    chain = [candidates.given, *candidates.bases_of(candidates.given)]
    return sum(each.file_size for each in chain) if chain[-1].base is None else None


def missing_base(candidates: Candidates, stored: StoredVersions) -> str | None:
    """Return the first base below the given seed that is neither here nor on the device; None if none is missing."""
    base = candidates.given.base
    while base is not None and not stored.has(base):
        found = candidates.find(base)
        if found is None:
            return base
        base = found.base
    return None


def _routes_of(candidates: Candidates, stored: StoredVersions, seed: SeedHeader) -> list[Route]:
    """Return the route that ends with a seed, and the one that brings its bases again; none where a base is missing."""
    base_version = None if seed.base is None else _base_version(candidates, stored, seed.base)
    needed = _missing_files(candidates, stored, seed)
    routes = []
    if stored.has(seed.digest):
        routes.append(Route((seed,), 0, True, base_version))
    elif needed is not None:
        size = sum(each.file_size - stored.bytes_arrived(each) for each in needed)
        routes.append(Route(needed, size, False, base_version))
    everything = _missing_files(candidates, StoredVersions({}), seed)
    if routes and everything is not None and len(everything) > len(routes[0].files):
        size = sum(each.file_size for each in everything)
        routes.append(Route(everything, size, False, base_version, is_repair=True))
    return routes


def _missing_files(candidates: Candidates, stored: StoredVersions, seed: SeedHeader) -> tuple[SeedHeader, ...] | None:
    """Return a seed and those of its bases that a device lacks, the lowest first; None where one can't be sent.

    A whole seed isn't sent below a delta where the whole seed of the version itself can be sent.
    """
    files, base = [seed], seed.base
    while base is not None and not stored.has(base):
        found = candidates.find(base)
        if found is None or (found.base is None and candidates.whole is not None):
            return None
        files.append(found)
        base = found.base
    return tuple(reversed(files))


def _base_version(candidates: Candidates, stored: StoredVersions, digest: str) -> int | None:
    found = candidates.find(digest)
    return stored.version_of(digest) if found is None else found.model.version
