"""Documents of English prose from Debian's documentation packages, held out by package.

Written are `english-held.txt.xz` and `english-train-N.txt.xz`: documents, a NUL character between two of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from .archives import archives, members
from .files import BETWEEN, Said, write_text
from .prose import is_page, paragraphs, stem
from .splitting import draw, held_out

SALT, ONE_IN = "english", 40
MOST = 1_200_000  # of one package [characters], so that no project's manual is the language
LEAST = 400  # of one document [characters]
PIECE = 40_000_000  # of one file [characters]


def make(cache: Path, out: Path, say: Said, jobs: int = 1) -> dict[str, int]:
    """Write the documents and return counts."""
    held, train = split(read(archives(cache, "docs"), say, jobs))
    write_text(out / "english-held.txt.xz", BETWEEN.join(held))
    for number, part in enumerate(pieces(train, PIECE)):
        write_text(out / f"english-train-{number}.txt.xz", BETWEEN.join(part))
        say(f"wrote training piece {number}")
    counts = {"held documents": len(held), "training documents": len(train)}
    return counts | {"held characters": sum(map(len, held)), "training characters": sum(map(len, train))}


def read(found: dict[str, Path], say: Said, jobs: int = 1) -> Iterator[tuple[str, list[list[str]]]]:
    """Yield packages with the paragraphs of their documents: packages that are held out first."""
    names = sorted(found, key=lambda name: (not is_held(name), draw(name, SALT)))
    with ProcessPoolExecutor(jobs) as pool:
        results: Iterator[list[list[str]]] = pool.map(_documents, [found[name] for name in names], chunksize=4)
        for number, (name, documents) in enumerate(zip(names, results, strict=True)):
            if number % 100 == 0:
                say(f"package {number} of {len(names)}")
            yield name, documents


def is_held(package: str) -> bool:
    """Return whether a package is held out: with all others of its stem."""
    return held_out(stem(package), SALT, ONE_IN)


def split(packages: Iterator[tuple[str, list[list[str]]]]) -> tuple[list[str], list[str]]:
    """Return held-out and training documents, shuffled, no paragraph twice on either side or on both.

    Packages that are held out come first, so what both sides have is taken from the training side.
    """
    seen: set[bytes] = set()
    sides: tuple[list[str], list[str]] = ([], [])
    for name, documents in packages:
        size = 0
        for document in documents:
            fresh = []
            for paragraph in document:
                # By its beginning: copies of a paragraph often differ in a version or a date at their end.
                digest = hashlib.sha256(paragraph[:200].encode()).digest()[:12]
                if digest not in seen:
                    seen.add(digest)
                    fresh.append(paragraph)
            text = "\n".join(fresh)
            if len(text) >= LEAST and size < MOST:
                sides[not is_held(name)].append(text[: MOST - size])
                size += len(text)
    for side in sides:
        side.sort(key=lambda text: draw(text, SALT))
    return sides


def pieces(documents: Sequence[str], most: int) -> Iterator[list[str]]:
    """Cut documents into lists of at most so many characters each; a longer document makes one of its own."""
    part: list[str] = []
    size = 0
    for document in documents:
        if part and size + len(document) > most:
            yield part
            part, size = [], 0
        part.append(document)
        size += len(document)
    if part:
        yield part


def _documents(archive: Path, enough: int = 3 * MOST) -> list[list[str]]:
    found, size = [], 0
    for path, data in members(archive, is_page):
        texts = paragraphs(path, data)
        if texts:
            found.append(texts)
            size += sum(map(len, texts))
        if size > enough:  # some of it will turn out to be repetition
            break
    return found
