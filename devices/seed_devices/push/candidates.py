"""The seeds that a push may send: the one that was given, those that the user named beside it, and bases of deltas.

A seed is sent in place of the given one only if the user named it. Equal ids, versions and sources prove nothing, since
a model can be trained again under the same number. What is found in a folder are bases alone, which a digest proves.
Headers are read first, and all bytes of a seed before it is sent. All devices of a push share what was found.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from seed_devices.push import preflight
from seed_devices.push.preflight import SeedFile, SeedHeader
from seed_runtime.errors import SeedError, UsageError

FOLDER_MAX: Final = 256
"""Largest number of seeds in one folder whose headers are read, the newest first."""


class Candidates:
    """The seeds that a push may send. Thread-safe."""

    def __init__(self, given: SeedFile, named: Iterable[SeedHeader] = (), bases: Iterable[SeedHeader] = ()) -> None:
        """Take the seeds.

        Args:
            given: the seed that is to run.
            named: seeds of the same version that the user named to be sent in its place.
            bases: seeds on which these may stand; others among them are never sent.
        """
        self.given = given
        named = [each for each in named if each.digest != given.digest]
        self.alternatives: tuple[SeedHeader, ...] = (given, *named)
        """The seeds of which any may run in the end; the given one comes first."""
        self._headers = {each.digest: each for each in (*bases, *named, given)}
        self._loaded: dict[str, SeedFile] = {given.digest: given}
        self._lock = threading.RLock()

    @property
    def whole(self) -> SeedHeader | None:
        """Return the whole seed among the alternatives; None if all are deltas."""
        return next((each for each in self.alternatives if each.base is None), None)

    def find(self, digest: str) -> SeedHeader | None:
        """Return a seed by its digest; None where it isn't on this machine."""
        return self._headers.get(digest)

    def bases_of(self, header: SeedHeader) -> Iterator[SeedHeader]:
        """Yield the seeds that one stands on, the nearest first, up to one that isn't here or is whole."""
        base = header.base
        while base is not None and (found := self._headers.get(base)) is not None:
            yield found
            base = found.base

    def load(self, header: SeedHeader) -> SeedFile:
        """Return a seed with all of its bytes checked, and with what is known of the memory that it needs.

        A delta's graph and figures are those of its base, if that is here, else those of the whole seed of its version.

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
            return self._with_figures(self._loaded[header.digest])

    def _with_figures(self, seed: SeedFile) -> SeedFile:
        if seed.is_complete:
            return seed
        bases = list(self.bases_of(seed))
        if bases and bases[-1].base is None:
            # What a seed says of itself is checked by then; a base that can't be read is refused where it is sent.
            with contextlib.suppress(SeedError, OSError):
                paths = [each.path for each in reversed(bases)]
                self._loaded[seed.digest] = preflight.with_bases(seed, paths)
                return self._loaded[seed.digest]
        if self.whole is None or self.whole.digest == seed.digest:
            return seed
        whole = self.load(self.whole)
        return replace(seed, session=whole.session, library=whole.library)


def find_candidates(given: SeedFile, deltas: Iterable[Path] = (), whole: Path | None = None) -> Candidates:
    """Find the seeds that a push may send.

    Args:
        given: the seed that is to run.
        deltas: files that the user named to be sent in its place, which stand on other seeds.
        whole: the whole seed that the user named to be sent in place of a delta.

    Raises:
        UsageError: a named file is of another version, or of the wrong kind.
        SeedError: a named file can't be used.
    """
    if whole is not None and given.base is None:
        raise UsageError(f"{given.path} is whole itself; --whole names a seed to send in place of a delta")
    named = []
    for option, path in [*(("--delta", path) for path in deltas), *([("--whole", whole)] if whole else [])]:
        header = _named_header(path)
        if (header.base is None) != (option == "--whole"):
            kind = "whole" if header.base is None else "a delta"
            raise UsageError(f"{path} is {kind}; give it with {'--whole' if header.base is None else '--delta'}")
        if _version_of(header) != _version_of(given):
            raise UsageError(
                f"{path} is {header.title} and {given.path} is {given.title}; {option} names a seed of the same "
                f"version: leave it out, or push it by itself"
            )
        named.append(header)
    candidates = [given, *named]
    folders: dict[Path, None] = dict.fromkeys(each.path.parent for each in candidates if each.base is not None)
    return Candidates(given, named, (header for folder in folders for header in _headers_in(folder)))


def _version_of(header: SeedHeader) -> tuple[str, int]:
    return header.model.model_id, header.model.version


def _named_header(path: Path) -> SeedHeader:
    """Return the header of a file that the user named; as any file of a command line, it may be a link."""
    try:
        return preflight.read_header(Path(os.path.realpath(path)))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; give the path of a seed") from None


def _headers_in(folder: Path) -> list[SeedHeader]:
    """Read the headers of the seeds in a folder; what is no seed is passed over."""
    paths: list[tuple[float, Path]] = []
    for each in folder.glob("*.seed"):
        with contextlib.suppress(OSError):
            paths.append((each.stat().st_mtime, each))
    found = []
    for _, each in sorted(paths, reverse=True)[:FOLDER_MAX]:
        with contextlib.suppress(SeedError, OSError):
            found.append(preflight.read_header(each))
    return found
