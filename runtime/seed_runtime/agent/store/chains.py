"""Which versions of a model stand on which: a version with a base needs that base for as long as it is stored.

What a seed says itself counts. The record of an installation stands in for it where the seed can't be read any more.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from seed_runtime.agent.store import partial
from seed_runtime.agent.store.installed_model import InstalledModel
from seed_runtime.errors import BaseError, FormatError, MissingLinkError, SeedError
from seed_runtime.format.preamble import DIGEST
from seed_runtime.stored_bases import find_bases, read_base

if TYPE_CHECKING:
    from seed_runtime.format.header import BaseInfo

_ADVICE: Final = "push it from a folder that holds its bases as well, or push the whole seed of this version"
"""Next step for a delta that has no base: to push the base by itself would switch to that."""


class Chains:
    """The bases of a model's versions, none of which changes meanwhile; the header of each seed is read once."""

    def __init__(self, model: InstalledModel) -> None:
        """Read nothing yet."""
        self._model = model
        self._bases: dict[str, str | None] = {}

    def below(self, digest: str) -> list[str]:
        """Return the stored versions that a version stands on, the nearest first."""
        found: list[str] = []
        base = self._stored_base(digest)
        # Digests make circles impossible, records that stand in for damaged seeds don't.
        while base is not None and base not in found:
            found.append(base)
            base = self._stored_base(base)
        return found

    def above(self, digest: str) -> list[str]:
        """Return the versions that stand on this one, sorted."""
        return [other for other in self._model.digests() if digest in self.below(other) and other != digest]

    def with_bases(self, digests: Iterable[str | None]) -> set[str]:
        """Return the versions given, without None, and all that they stand on."""
        given = {digest for digest in digests if digest is not None}
        return given.union(*map(self.below, given))

    def last_first(self, digests: Iterable[str]) -> list[str]:
        """Sort versions so that each comes before those that it stands on: the order of their removal."""
        return sorted(digests, key=lambda digest: len(self.below(digest)), reverse=True)

    def _stored_base(self, digest: str) -> str | None:
        """Return the version that a version stands on, if it is stored."""
        if digest not in self._bases:
            base = _base_of(self._model, digest)
            self._bases[digest] = base if base is not None and self._model.has(base) else None
        return self._bases[digest]


def check_bases(model: InstalledModel, digest: str, base: BaseInfo) -> None:
    """Check all bytes of the versions that a seed stands on.

    Args:
        model: the model.
        digest: the seed.
        base: what it says of its base.

    Raises:
        BaseError: one of them isn't stored, or was damaged.
    """
    try:
        paths = find_bases(model.versions, digest, base)
    except MissingLinkError as error:
        raise missing_base(error.digest, error.wanted) from None
    except FormatError as error:
        raise _damaged(digest, error.where) from None
    for path in paths:
        if not partial.is_whole(path, path.parent.name):
            raise _damaged(digest, f"version {path.parent.name}")


def missing_base(digest: str, base: str) -> BaseError:
    """Return the error of a seed that is pushed and whose base isn't stored."""
    return BaseError(f"version {digest} stands on version {base}, which is not on this device; {_ADVICE}")


def _damaged(digest: str, base: str) -> BaseError:
    return BaseError(f"version {digest} stands on {base}, which was damaged on this device's disk; {_ADVICE}")


def noted_base(record: dict[str, object]) -> str | None:
    """Return the base that the record of an installation names; None if it names none that can be one."""
    base = record.get("base")
    return base if isinstance(base, str) and DIGEST.fullmatch(base) else None


def _base_of(model: InstalledModel, digest: str) -> str | None:
    """Return the version that a version stands on, be it stored or not; None for a whole one."""
    try:
        base = read_base(model.seed_path(digest))
    except SeedError:
        return noted_base(model.record(digest))
    return None if base is None else base.digest.hex()
