"""Which section of Debian a package is in, from its description: 32 classes, held out by source package.

Written are `sections-train.json.xz` and `sections-held.json.xz`: `classes`, and `text`, `label`, `source` of each text.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .files import Said, write_text
from .splitting import draw, held_out

SALT, ONE_IN = "sections", 5
LEAST = 300  # descriptions of a class
SHORTEST = 60  # of a description [characters]
# They say how a package is used, not what it is about.
SKIPPED = frozenset({"oldlibs", "debug", "metapackages", "misc", "localization", "introspection"})


@dataclass(frozen=True)
class Description:
    """A package's description in English, on one line."""

    source: str
    section: str
    text: str


def make(cache: Path, out: Path, say: Said, jobs: int = 1) -> dict[str, int]:
    """Write both sides and return counts. Needs no package, only apt's lists of bookworm's main section."""
    # Imported here: it brings Pillow along, which tests do without.
    from bench.public.fetch import apt_lists, read_list

    lists = apt_lists(cache)
    say("reading apt's lists")
    packages = _only(lists.glob("*_dists_bookworm_main_binary-*_Packages*"))
    texts = _only(lists.glob("*_dists_bookworm_main_i18n_Translation-en*"))
    found, names = select(join(read_list(packages), read_list(texts)))
    counts = {"classes": len(names)}
    for side, chosen in (("held", True), ("train", False)):
        rows = [item for item in found if held_out(item.source, SALT, ONE_IN) == chosen]
        write_text(
            out / f"sections-{side}.json.xz",
            json.dumps(
                {
                    "classes": names,
                    "text": [item.text for item in rows],
                    "label": [names.index(item.section) for item in rows],
                    "source": [item.source for item in rows],
                },
                ensure_ascii=False,
                indent=0,
            ),
        )
        counts[f"{side} texts"] = len(rows)
    return counts


def join(packages: str, translations: str) -> list[Description]:
    """Return the descriptions of a list of packages and the list of its translations."""
    long = {}
    for stanza in translations.split("\n\n"):
        head, _, body = stanza.partition("Description-en: ")
        if head.startswith("Package: ") and body:
            # A line with a single dot separates paragraphs.
            long[head.split()[1]] = " ".join(line.strip() for line in body.splitlines() if line != " .")
    found = []
    for stanza in packages.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Source|Section): (\S+)", stanza, re.MULTILINE))
        if "Package" in fields and fields["Package"] in long:
            name = fields["Package"]
            section = fields.get("Section", "misc").rsplit("/", 1)[-1]
            found.append(Description(fields.get("Source", name), section, long[name]))
    return found


def select(descriptions: Iterable[Description]) -> tuple[list[Description], list[str]]:
    """Return distinct descriptions in a fixed shuffled order, and the classes in alphabetical order.

    Plugins of one family share a text: the first of it is kept, wherever it would stand.
    """
    seen: set[str] = set()
    kept = []
    for item in sorted(descriptions, key=lambda item: (item.source, item.section, item.text)):
        if len(item.text) >= SHORTEST and item.text[:300] not in seen and item.section not in SKIPPED:
            seen.add(item.text[:300])
            kept.append(item)
    count = Counter(item.section for item in kept)
    names = sorted(name for name in count if count[name] >= LEAST)
    rows = [item for item in kept if item.section in names]
    return sorted(rows, key=lambda item: draw(item.source + item.text, SALT)), names


def _only(found: Iterable[Path]) -> Path:
    path = next(iter(sorted(found)), None)
    if path is None:
        raise FileNotFoundError("apt has no list of bookworm's main section; add it to the package sources")
    return path
