"""Debian's package descriptions: a short and a long text about the same thing, in English."""

from __future__ import annotations

import json
import re
from pathlib import Path

from .base import check_split, shuffled
from .fetch import FetchError, apt_lists, read_list, whole_file

# Shorter texts don't distinguish a package from others of its kind.
SHORT_LEAST, LONG_LEAST = 35, 200  # [characters]


def fetch_descriptions(cache: Path) -> Path:
    """Return a JSON file of {package: [short, long]}, made from bookworm's main list."""
    target = cache / "data" / "descriptions.json"
    if not target.exists():
        lists = sorted(apt_lists(cache).glob("*_dists_bookworm_main_i18n_Translation-en*"))
        if not lists:
            raise FetchError("the English descriptions", "no bookworm main list is configured")
        texts = _parse(read_list(lists[0]))
        with whole_file(target) as path:
            path.write_text(json.dumps(texts, indent=0, sort_keys=True))
    return target


def descriptions(cache: Path, split: str) -> list[tuple[str, str]]:
    """Return (short, long) of distinct packages in a fixed shuffled order.

    One package is kept of each family, told by the first letters of the name: a source's
    siblings (`libfoo-dev`, `libfoo-doc`) say the same and must not stand on both sides.
    """
    check_split(split)
    texts = json.loads(fetch_descriptions(cache).read_text())
    families: dict[str, str] = {}
    for name in shuffled(list(texts), "descriptions"):
        families.setdefault(_family(name), name)
    chosen = shuffled(list(families), "split")
    half = len(chosen) // 2
    kept = chosen[:half] if split == "test" else chosen[half:]
    return [tuple(texts[families[family]]) for family in kept]


def _family(name: str) -> str:
    stem = re.sub(r"^(lib|python3-|ruby-|golang-|node-|r-cran-|elpa-|fonts-)", "", name)
    return stem[:5]


def _parse(text: str) -> dict[str, list[str]]:
    texts: dict[str, list[str]] = {}
    seen: set[str] = set()
    for stanza in text.split("\n\n"):
        match = re.match(r"Package: (\S+)\n(?:.*\n)*?Description-en: (.*)\n((?: .*(?:\n|$))*)", stanza)
        if not match:
            continue
        name, short, body = match.groups()
        # A line with a single dot separates paragraphs.
        long = " ".join(line.strip() for line in body.splitlines() if line.strip() != ".")
        if len(short) < SHORT_LEAST or len(long) < LONG_LEAST:
            continue
        # Families of plugins share a text; it would find many packages, on both sides.
        if seen.isdisjoint((short, long)):
            seen.update((short, long))
            texts[name] = [short, long]
    return texts
