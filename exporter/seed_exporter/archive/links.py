"""What an archive's folder holds: one record for each seed, from the index or, where that is old, from the headers."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from seed_runtime.errors import FormatError
from seed_runtime.format.reader import SeedReader
from seed_runtime.limits import CHAIN_MAX
from seed_runtime.system.files import atomic_write

SEEDS, INDEX = "seeds", "index.json"
CHECKPOINT, ONLY_BASE = ".seed", ".base"
"""Suffixes of seeds: of checkpoints, and of what only others need."""
INDEX_BYTES_MAX: Final = 1 << 28
"""Size of the largest index that is read [B]: a million seeds have some 200 bytes each."""
_FORMAT: Final = 1
_NAME: Final = re.compile(r"([0-9a-f]{64})(\.seed|\.base)")


@dataclass(frozen=True)
class Link:
    """A seed of the archive, as its header says."""

    digest: str
    name: str
    """Name of the checkpoint."""
    number: int
    """Place of the checkpoint among all that were added, from 1 on."""
    base: str | None
    """Digest of the seed that it is on top of; None for a key seed, which is whole."""
    depth: int
    """How many seeds it is on top of."""
    bytes: int
    """Size of the file [B]."""
    weights_bytes: int
    """Size of the weights file [B]."""


Held = Mapping[tuple[str, str], Link | None]
"""Links by the digest and the suffix of their files; None for files that are damaged."""


def scan(folder: Path, known: Iterable[Link] = ()) -> Held:
    """List the seeds of an archive; of those that aren't known, headers are read."""
    by_digest = {link.digest: link for link in known}
    return {
        (digest, suffix): by_digest.get(digest) or read_link(folder / SEEDS / f"{digest}{suffix}", digest)
        for digest, suffix in files_of(folder)
    }


def files_of(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield digest and suffix of each file that is named like a seed of an archive."""
    for path in (folder / SEEDS).iterdir():
        if match := _NAME.fullmatch(path.name):
            yield match[1], match[2]


def read_index(folder: Path) -> list[Link]:
    """Return what the index says, nothing where there is none or it can't be read: it is made again."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        path = folder / INDEX
        if path.stat().st_size <= INDEX_BYTES_MAX:
            found = json.loads(path.read_bytes())
            if found["format"] == _FORMAT:
                return [Link(**each) for each in found["seeds"] if _is_record(each)]
    return []


def write_index(folder: Path, links: Iterable[Link]) -> None:
    """Write the index, in one step."""
    rows = sorted({link.digest: link for link in links}.values(), key=lambda link: (link.number, link.digest))
    # One seed a line: people look into it, and it compresses well in backups.
    lines = ",\n".join(json.dumps(asdict(link)) for link in rows)
    with atomic_write(folder / INDEX) as file:
        file.write(f'{{"format": {_FORMAT}, "seeds": [\n{lines}\n]}}\n'.encode())


def _is_record(each: Any) -> bool:
    kinds = {"digest": str, "name": str, "number": int, "depth": int, "bytes": int, "weights_bytes": int}
    base = each.get("base", 0)
    return all(type(each.get(key)) is kind for key, kind in kinds.items()) and (base is None or type(base) is str)


def read_link(path: Path, digest: str) -> Link | None:
    """Read a header; None where the file is damaged, or is another seed than its name says."""
    try:
        with path.open("rb", buffering=0) as file:
            reader = SeedReader(file, path.name)
    except (FormatError, OSError):
        return None
    header = reader.header
    base, depth = (None, 0) if header.base is None else (header.base.digest.hex(), header.base.depth)
    if reader.digest.hex() != digest:
        return None
    return Link(
        digest,
        header.model.model_id,
        header.model.version,
        base,
        depth,
        reader.file_size,
        header.weights.size,
    )


class Chains:
    """The checkpoints of an archive and what each of them is on top of."""

    def __init__(self, held: Held) -> None:
        """Choose one seed for each checkpoint.

        There may be several: a kill during a prune leaves the old one and that on another base. All give the same
        weights, so the one with the fewest bases is taken, and what no chosen one needs is `unneeded`.
        """
        self.damaged = sorted(f"{digest}{suffix}" for (digest, suffix), link in held.items() if link is None)
        """Names of files that are damaged."""
        whole = {key: link for key, link in held.items() if link is not None}
        self.links = {digest: link for (digest, _), link in whole.items()}
        chosen: dict[int, Link] = {}
        self.broken: list[Link] = []
        """Checkpoints that can't be restored: a seed is missing or damaged."""
        for (_, suffix), link in sorted(whole.items(), key=lambda item: (item[1].number, item[1].depth, item[0])):
            if suffix == CHECKPOINT and self.chain(link) is not None:
                chosen.setdefault(link.number, link)
        for (_, suffix), link in whole.items():
            if suffix == CHECKPOINT and link.number not in chosen:
                self.broken.append(link)
        self.checkpoints = [chosen[number] for number in sorted(chosen)]
        """In the order in which they were added."""
        # What is broken may be whole again once a file is copied back: its bases stay.
        needed = {each.digest for link in [*self.checkpoints, *self.broken] for each in self._found(link)}
        files = {link.digest for link in [*self.checkpoints, *self.broken]}
        self.unneeded = [
            (digest, suffix)
            for digest, suffix in whole
            if digest not in needed or (suffix == ONLY_BASE and digest in files)
        ]
        """Digests and suffixes of files that no checkpoint needs."""
        self.demoted = [
            digest for digest, suffix in whole if suffix == CHECKPOINT and digest in needed and digest not in files
        ]
        """Digests of seeds that are no checkpoints any more, and that others need."""

    def chain(self, link: Link) -> list[Link] | None:
        """Return what a link is on top of, the key seed first and itself last; None where one is missing."""
        found = self._found(link)
        return found if found[0].base is None and len(found) <= CHAIN_MAX + 1 else None

    def _found(self, link: Link) -> list[Link]:
        """Return as much of a chain as there is."""
        found = [link]
        while len(found) <= CHAIN_MAX + 1 and (below := self.links.get(found[0].base or "")) is not None:
            found.insert(0, below)
        return found

    def named(self, name: str) -> Link | None:
        """Return the checkpoint of this name."""
        return next((link for link in self.checkpoints if link.name == name), None)
