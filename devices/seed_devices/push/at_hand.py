"""The seeds at hand for a push: the one that was given, and others that may bring the same version in fewer bytes.

Those beside it are found by their headers alone, and all bytes of one are checked before it is sent. What is at hand is
shared by all devices of a push.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from seed_devices.push import preflight
from seed_devices.push.preflight import SeedFile, SeedHeader
from seed_runtime.errors import SeedError, UsageError

FOLDER_MAX: Final = 256
"""Largest number of seeds in one folder whose headers are read, the newest first."""


class SeedsAtHand:
    """The seeds that a push may send. Thread-safe."""

    def __init__(self, given: SeedFile, others: Iterable[SeedHeader] = (), named: Iterable[str] = ()) -> None:
        """Take the seeds.

        Args:
            given: the seed that is to run.
            others: seeds beside it.
            named: digests of those among them that the user has named.
        """
        self.given = given
        self.headers: dict[str, SeedHeader] = {header.digest: header for header in others} | {given.digest: given}
        """All of them by their digests."""
        self.named = frozenset(named)
        """Digests of seeds that the user has named to be sent in place of the given one, or below it."""
        self._loaded: dict[str, SeedFile] = {given.digest: given}
        self._lock = threading.Lock()

    def load(self, header: SeedHeader) -> SeedFile:
        """Return a seed with all of its bytes checked, and with its signature where that decides whether it is sent.

        Raises:
            RemoteError: it is damaged.
            TrustError: the given seed is signed, and this one wrongly.
            SeedError: it can't be used otherwise, or was replaced meanwhile.
        """
        with self._lock:
            if header.digest not in self._loaded:
                found = preflight.load(header.path)
                if found.digest != header.digest:
                    raise UsageError(
                        f"{header.path} was replaced by another seed meanwhile; run the same command again"
                    )
                if self.given.signer is not None and found.signer is not None:
                    preflight.check_signature(found.path)
                self._loaded[header.digest] = found
            return self._loaded[header.digest]

    def below(self, header: SeedHeader) -> Iterator[SeedHeader]:
        """Yield the seeds that one stands on, the nearest first, up to one that isn't at hand or is whole."""
        base = header.base
        while base is not None and (found := self.headers.get(base)) is not None:
            yield found
            base = found.base

    def same_version(self) -> list[SeedHeader]:
        """Return the seeds that hold the version of the given one, which comes first.

        Others have the same model id, version and source, and are signed by the same key if the given one is. A
        version that everybody leaves at 1 says nothing, so of two
        of which one is a delta its base must have an earlier version: whether that is so may depend on the device, see
        `ways`. A fine-tune is another version, whatever its number says.
        """
        return [self.given, *(each for each in self.headers.values() if self._is_same_version(each))]

    def _is_same_version(self, other: SeedHeader) -> bool:
        given = self.given
        if other.digest == given.digest or not given.model.model_id or self._stand_on_another(other):
            return False
        ours, theirs = given.model, other.model
        if (ours.model_id, ours.version) != (theirs.model_id, theirs.version):
            return False
        if other.digest in self.named:
            return True
        is_same_source = (ours.parameters, ours.source_bytes) == (theirs.parameters, theirs.source_bytes)
        is_as_trusted = given.signer in (None, other.signer)
        return is_same_source and is_as_trusted and not given.tuned and not other.tuned

    def _stand_on_another(self, other: SeedHeader) -> bool:
        """Return whether the given seed stands on another one, or that one on the given."""
        pairs = ((self.given, other), (other, self.given))
        return any(low.digest in (high.base, *(each.digest for each in self.below(high))) for high, low in pairs)


def collect(given: SeedFile, named: Iterable[Path] = (), *, whole: bool = False) -> SeedsAtHand:
    """Find the seeds that a push may send.

    Args:
        given: the seed that is to run.
        named: files that the user named.
        whole: take the given one alone.

    Raises:
        UsageError: a named file isn't of this version, nor below it; or the given one isn't `whole`.
        SeedError: a named file can't be used.
    """
    files = list(named)
    if whole:
        if files:
            raise UsageError("--whole sends no delta, and --delta names one; leave one of them out")
        if given.base is not None:
            raise UsageError(f"{given.path} is a delta itself; leave --whole out, or push the whole seed")
        return SeedsAtHand(given)
    headers = [_named_header(path) for path in files]
    at_hand = SeedsAtHand(given, [*_beside(given.path), *headers], (header.digest for header in headers))
    forms = at_hand.same_version()
    known = {each.digest for form in forms for each in (form, *at_hand.below(form))}
    for path, header in zip(files, headers, strict=True):
        if header.digest not in known:
            raise UsageError(
                f"{path} is {header.model.model_id} {header.model.version}, which is neither {given.title} nor a base "
                f"of it; leave it out, or push it by itself"
            )
    return at_hand


def _named_header(path: Path) -> SeedHeader:
    try:
        return preflight.read_header(path.resolve())  # a link that the user names is followed
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; give the path of a seed") from None


def _beside(path: Path) -> list[SeedHeader]:
    """Read the headers of the other seeds in the folder of a file; what is no seed is passed over."""
    others: list[tuple[float, Path]] = []
    for each in path.parent.glob("*.seed"):
        with contextlib.suppress(OSError):
            if not each.samefile(path):
                others.append((each.stat().st_mtime, each))
    found = []
    for _, each in sorted(others, reverse=True)[:FOLDER_MAX]:
        with contextlib.suppress(SeedError, OSError):
            found.append(preflight.read_header(each))
    return found
