"""Bases of a seed in a store: a folder in which each seed is `<digest>/model.seed`.

A seed in such a folder needs nothing but itself to find what it is assembled on top of: its section BASE holds the
digest, and the digest is the name. So there is no link that could lead elsewhere, and no note that could be wrong. What
stands under a name is believed only if it is a regular file in a real folder and its own digest is that name.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from seed_runtime.errors import FormatError, MissingLinkError
from seed_runtime.format.preamble import DIGEST
from seed_runtime.limits import CHAIN_MAX
from seed_runtime.system.files import open_regular

if TYPE_CHECKING:
    from seed_runtime.format.header import BaseInfo

SEED_FILE: Final = "model.seed"
"""The name of a seed in its folder."""


def resolved(seed: Path) -> Path:
    """Return where a seed is, links of its folder resolved: `current` may lead elsewhere a moment later."""
    return Path(os.path.realpath(seed.parent), SEED_FILE) if seed.name == SEED_FILE else seed


def store_of(seed: Path, digest: bytes) -> Path | None:
    """Return the store that a seed is in; None if it isn't in one.

    Args:
        seed: the file, which was opened, as `resolved` gives it.
        digest: the seed's digest.
    """
    return seed.parent.parent if seed.name == SEED_FILE and seed.parent.name == digest.hex() else None


def find_bases(store: Path, digest: str, base: BaseInfo) -> list[Path]:
    """Return the files of a seed's base and of all that this one stands on, the whole seed first.

    Args:
        store: the folder that holds them.
        digest: the seed's digest, for messages.
        base: what the seed says of its base.

    Raises:
        MissingLinkError: one of them isn't there.
        FormatError: one of them is damaged, or the chain is longer than it may be.
        UnsupportedError: one of them is made for a newer runtime.
    """
    paths: list[Path] = []
    above, info = digest, base
    while True:
        if len(paths) == CHAIN_MAX:
            raise FormatError(digest[:12], f"the chain below it has more than {CHAIN_MAX} seeds")
        wanted = info.digest.hex()
        path = store / wanted / SEED_FILE
        found = read_base(path, above)
        paths.append(path)
        if found is None:
            return paths[::-1]
        above, info = wanted, found


def read_base(path: Path, above: str = "") -> BaseInfo | None:
    """Return what a stored seed says of its base; None for a whole seed.

    Args:
        path: the seed in its folder, whose name is the digest that it must have.
        above: digest of the seed that needs it, for messages.

    Raises:
        MissingLinkError: it isn't there, a link leads to it, or another seed stands there.
        FormatError: it is damaged.
        UnsupportedError: it is made for a newer runtime.
    """
    from seed_runtime.format.reader import SeedReader  # brings NumPy

    digest = path.parent.name
    try:
        with _open_file(path) as file:
            reader = SeedReader(file, path.name)
    except OSError:
        raise MissingLinkError(above, digest, str(path.parent.parent)) from None
    except FormatError as error:
        raise FormatError(f"version {digest[:12]}", error.problem) from None
    if not DIGEST.fullmatch(digest) or reader.digest.hex() != digest:
        raise MissingLinkError(above, digest, str(path.parent.parent))
    return reader.header.base


def _open_file(path: Path) -> BinaryIO:
    """Open a regular file in a real folder, unbuffered; OSError for anything else, a link included."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        return open_regular(path, dir_fd=folder)
    finally:
        os.close(folder)
