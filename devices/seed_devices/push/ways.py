"""The ways to bring a version to a device, by what the device has: whole, or as what differs from a seed there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from seed_devices.push.at_hand import SeedsAtHand
from seed_devices.push.preflight import SeedHeader
from seed_devices.push.requirements import version


class Stored:
    """What a device says that it has of a model."""

    def __init__(self, model: Mapping[str, Any]) -> None:
        """Take the model from the answer to `status`; an empty mapping for nothing."""
        self.current: str | None = model.get("current")
        """The version that runs."""
        self.versions: dict[str, Mapping[str, Any]] = {each["digest"]: each for each in model.get("versions") or []}
        self._partial = model.get("partial_digest"), model.get("partial") or 0

    def has(self, digest: str | None) -> bool:
        """Return whether a version is there, with all that it stands on, and looks whole."""
        seen: set[str] = set()
        while digest is not None:
            found = self.versions.get(digest)
            if found is None or found.get("intact") is False or digest in seen:
                return False
            seen.add(digest)
            digest = found.get("base")
        return True

    def arrived(self, header: SeedHeader) -> int:
        """Return how many bytes of a seed have arrived; what has arrived of another seed doesn't count."""
        digest, size = self._partial
        return min(size, header.file_size) if digest == header.digest else 0


@dataclass(frozen=True)
class Reader:
    """What reads seeds on a device: the runtime that is there, or the one that the push installs."""

    runtime: str
    """Its version."""
    chain_max: int | None
    """How many seeds a seed may stand on there; None where seeds with a base can't be read."""

    def takes(self, header: SeedHeader) -> bool:
        """Return whether it is new enough for a seed."""
        return (self.chain_max or 0) >= header.depth and version(self.runtime) >= header.model.min_runtime


@dataclass(frozen=True)
class Way:
    """One way to bring a version to a device."""

    files: tuple[SeedHeader, ...]
    """The seeds to send, each on top of the one before; the last one is the version."""
    left: int
    """Bytes to send: what has arrived before doesn't count."""
    is_stored: bool
    """True if the device has the version in this form already."""
    base_version: int | None
    """Version of the model that its base is; None for a whole seed, and where that isn't known."""

    @property
    def form(self) -> SeedHeader:
        """Return the seed that will run."""
        return self.files[-1]


def find_ways(at_hand: SeedsAtHand, stored: Stored, reader: Reader) -> tuple[list[Way], list[str]]:
    """Find all ways to bring the given version to a device, the one with the fewest bytes to send first.

    A form that is there already comes before all others, and the one that runs before that. Of equal ones the given
    seed is first.

    Args:
        at_hand: the seeds that may be sent.
        stored: what the device has.
        reader: what reads seeds there.

    Returns:
        The ways, none where a base is missing here and there; and notes on seeds that the user named and that can't be
        used there.
    """
    given, found, notes = at_hand.given, [], []
    for form in at_hand.same_version():
        if form is not given and not _is_of_later_version(at_hand, stored, form):
            continue
        way = _way(at_hand, stored, form)
        if way is not None and all(map(reader.takes, way.files)):
            found.append(way)
        elif way is not None and form is not given:
            notes.append(
                f"its runtime {reader.runtime} is too old for {form.path.name}; --update-runtime brings a newer one"
            )
        elif form.digest in at_hand.named:
            notes.append(f"{form.path.name} was not used: its base is neither there nor at hand")
    found.sort(key=lambda way: (not way.is_stored, way.left, way.form.digest != stored.current, way.form is not given))
    return found, notes


def whole_size(at_hand: SeedsAtHand) -> int | None:
    """Return the size of the whole seed of the given version, in bytes; None where it isn't at hand."""
    sizes = [form.file_size for form in at_hand.same_version() if form.base is None]
    return min(sizes, default=None)


def missing_base(at_hand: SeedsAtHand, stored: Stored) -> str | None:
    """Return the first base below the given seed that is neither at hand nor on the device; None if none is missing."""
    base = at_hand.given.base
    while base is not None and not stored.has(base):
        if base not in at_hand.headers:
            return base
        base = at_hand.headers[base].base
    return None


def _way(at_hand: SeedsAtHand, stored: Stored, form: SeedHeader) -> Way | None:
    """Return the way that ends with a form; None where a base is missing.

    No whole seed is sent below another form than the given one, unless the user named it: the given one does as well.
    """
    base_version = _version_of(at_hand, stored, form.base)
    if stored.has(form.digest):
        return Way((form,), 0, True, base_version)
    files, base = [form], form.base
    while base is not None and not stored.has(base):
        below = at_hand.headers.get(base)
        if below is None or (below.base is None and form is not at_hand.given and base not in at_hand.named):
            return None
        files.append(below)
        base = below.base
    left = sum(each.file_size - stored.arrived(each) for each in files)
    return Way(tuple(reversed(files)), left, False, base_version)


def _is_of_later_version(at_hand: SeedsAtHand, stored: Stored, other: SeedHeader) -> bool:
    """Return whether the bases of another seed and of the given one are of earlier versions than these two are."""
    if other.digest in at_hand.named:
        return True
    bases = [each.base for each in (at_hand.given, other) if each.base is not None]
    versions = [_version_of(at_hand, stored, base) for base in bases]
    return bool(bases) and all(found is not None and found < other.model.version for found in versions)


def _version_of(at_hand: SeedsAtHand, stored: Stored, digest: str | None) -> int | None:
    if digest is None:
        return None
    if digest in at_hand.headers:
        return at_hand.headers[digest].model.version
    found = stored.versions.get(digest, {}).get("model_version")
    return found if isinstance(found, int) else None
