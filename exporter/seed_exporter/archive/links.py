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
_FORMAT: Final = 2
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
    weights_digest: str
    """Digest of the weights file."""

    @property
    def identity(self) -> tuple[str, int, str, int]:
        """What two seeds of one checkpoint have in common, on top of whatever base each is."""
        return self.name, self.number, self.weights_digest, self.weights_bytes


Held = Mapping[tuple[str, str], Link | None]
"""Links by the digest and the suffix of their files; None for files that are damaged."""


def is_archive(folder: Path) -> bool:
    """Return whether a folder is an archive."""
    return (folder / SEEDS).is_dir()


def scan(folder: Path, known: Iterable[Link] = ()) -> Held:
    """List the seeds of an archive; of those that aren't known, headers are read.

    Raises:
        OSError: a file can't be read, which doesn't say that it is damaged.
    """
    by_digest = {link.digest: link for link in known}
    found: dict[tuple[str, str], Link | None] = {}
    for digest, suffix in files_of(folder):
        # A writer may remove a file after it was listed.
        with contextlib.suppress(FileNotFoundError):
            path, link = folder / SEEDS / f"{digest}{suffix}", by_digest.get(digest)
            found[digest, suffix] = link if link and link.bytes == path.stat().st_size else read_link(path, digest)
    return found


def files_of(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield digest and suffix of each file that is named like a seed of an archive."""
    for path in (folder / SEEDS).iterdir():
        if match := _NAME.fullmatch(path.name):
            yield match[1], match[2]


def size_of(folder: Path) -> int:
    """Return the size of all seeds of an archive [B]."""
    total = 0
    for digest, suffix in files_of(folder):
        with contextlib.suppress(FileNotFoundError):
            total += (folder / SEEDS / f"{digest}{suffix}").stat().st_size
    return total


def read_index(folder: Path) -> list[Link]:
    """Return what the index says, nothing where there is none or it can't be read: it is made again."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
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
    if not isinstance(each, dict):
        return False
    texts, numbers = ("digest", "name", "weights_digest"), ("number", "depth", "bytes", "weights_bytes")
    kinds = {**dict.fromkeys(texts, str), **dict.fromkeys(numbers, int)}
    base = each.get("base", 0)
    return all(type(each.get(key)) is kind for key, kind in kinds.items()) and (base is None or type(base) is str)


def read_link(path: Path, digest: str) -> Link | None:
    """Read a header; None where the file is damaged, or is another seed than its name says.

    Raises:
        OSError: it can't be read.
    """
    try:
        with path.open("rb", buffering=0) as file:
            reader = SeedReader(file, path.name)
    except FormatError:
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
        header.weights.digest.hex(),
    )


def is_whole(path: Path, digest: str) -> bool:
    """Read a whole file, and return whether all its digests are right and it is the seed of this digest."""
    try:
        with path.open("rb", buffering=0) as file:
            reader = SeedReader(file, path.name)
            for part in reader.header.parts:
                reader.skip_part(part)
            for number, stream in enumerate(reader.header.streams):
                for _ in reader.chunks(number, stream):
                    pass
            reader.finish()
    except FormatError:
        return False
    return reader.digest.hex() == digest


class Chains:
    """The checkpoints of an archive and what each of them is on top of."""

    def __init__(self, held: Held) -> None:
        """Choose one seed for each checkpoint.

        There may be several: a kill during a prune leaves the old one and that on another base. They are taken as one
        checkpoint only if name, number and weights are the same; the one with the fewest bases is chosen then.
        """
        self.damaged = sorted(f"{digest}{suffix}" for (digest, suffix), link in held.items() if link is None)
        """Names of files that are damaged."""
        whole = {key: link for key, link in held.items() if link is not None}
        self.links = {digest: link for (digest, _), link in whole.items()}
        chosen: dict[tuple[str, int, str, int], Link] = {}
        found = [link for (_, suffix), link in whole.items() if suffix == CHECKPOINT]
        found.sort(key=lambda link: (link.number, link.depth, link.digest))
        incomplete = [link for link in found if self.chain(link) is None]
        for link in found:
            if link not in incomplete:
                chosen.setdefault(link.identity, link)
        self.doubled = [chosen[link.identity] for link in found if chosen.get(link.identity, link) is not link]
        self.doubled += [link for link in found if (link.digest, ONLY_BASE) in whole]
        """Checkpoints of which there is another seed, or the same one twice."""
        self.broken = [link for link in incomplete if link.identity not in chosen]
        """Checkpoints that can't be restored: a seed is missing or damaged."""
        self.checkpoints = sorted(chosen.values(), key=lambda link: (link.number, link.digest))
        """In the order in which they were added."""
        self.next_number = 1 + max((link.number for link in self.links.values()), default=0)
        """Number of the next checkpoint."""
        self.unneeded: list[tuple[str, str]] = []
        """Digests and suffixes of files that no checkpoint needs."""
        self.demoted: list[str] = []
        """Digests of seeds that are no checkpoints any more, and that others need."""
        # What is damaged or missing may be copied back, so until then nothing is removed.
        self.is_whole = not self.damaged and not incomplete
        if self.is_whole:
            self._sort_out(whole)

    def _sort_out(self, whole: Mapping[tuple[str, str], Link]) -> None:
        needed = {each.digest for link in self.checkpoints for each in self._found(link)}
        files = {link.digest for link in self.checkpoints}
        # The last number that was given is known from its seed alone, which stays until a later one is there.
        last = [link for link in whole.values() if link.number == self.next_number - 1]
        if last and not files & {link.digest for link in last}:
            needed.add(min(last, key=lambda link: (link.bytes, link.digest)).digest)
        self.unneeded = [
            (digest, suffix)
            for digest, suffix in whole
            if digest not in needed or (suffix == ONLY_BASE and digest in files)
        ]
        self.demoted = [
            digest for digest, suffix in whole if suffix == CHECKPOINT and digest in needed and digest not in files
        ]

    def twins(self) -> list[tuple[Link, Link]]:
        """Return pairs of checkpoints of one name and number, the one with fewer bases first."""
        groups: dict[tuple[str, int], list[Link]] = {}
        for link in sorted(self.checkpoints, key=lambda link: (link.depth, link.digest)):
            groups.setdefault((link.name, link.number), []).append(link)
        return [(group[0], other) for group in groups.values() for other in group[1:]]

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

    def named(self, name: str) -> list[Link]:
        """Return the checkpoints of this name, broken ones included; several only where files were copied together."""
        return [link for link in [*self.checkpoints, *self.broken] if link.name == name]
