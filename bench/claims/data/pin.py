"""Choose packages and classes once; the lists are kept, so that the data can be made again when Debian has moved on.

`python -m bench.claims.data.pin fonts` takes a quarter of an hour and downloads 850 MB, `... docs` the same.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from bench.public.fetch import apt_lists, cache_folder, debian_archives, read_list

from . import english, glyphs
from .archives import LISTS
from .characters import Likeness, candidates, choose, kind_of
from .faces import fonts_to_draw, held_packages, marks, probes
from .fonts import faces, images

LARGEST_FONTS, ALSO = 26_000_000, "fonts-noto-cjk"  # packages [B], and one that is larger
DOCS = 50_000, 1_100_000  # packages of documents [B]
DRAWN = 24, 8  # families that draw each candidate, of the training and of the held-out side
WANTED, STYLES = (200, 45), 4  # fonts that draw each class: more than are kept, since some draw it wrong; of a family


def main(arguments: list[str] | None = None) -> int:
    """Write the list that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench.claims.data.pin", description=__doc__)
    parser.add_argument("what", choices=["fonts", "docs"])
    parser.add_argument("--cache", type=Path, default=cache_folder())
    options = parser.parse_args(arguments)
    {"fonts": pin_fonts, "docs": pin_docs}[options.what](options.cache)
    return 0


def available(cache: Path) -> list[tuple[str, str, int]]:
    """Return (package, version, size) of bookworm's main section."""
    (path,) = apt_lists(cache).glob("*_dists_bookworm_main_binary-*_Packages*")
    found = []
    for stanza in read_list(path).split("\n\n"):
        fields = dict(re.findall(r"^(Package|Version|Size): (.*)$", stanza, re.MULTILINE))
        if fields:
            found.append((fields["Package"], fields["Version"], int(fields["Size"])))
    return found


def pin_fonts(cache: Path) -> None:
    """Write `packages/fonts.txt`, `classes.txt` and `fonts.txt`."""
    wanted = [
        (name, version)
        for name, version, size in available(cache)
        if name.startswith(("fonts-", "ttf-", "otf-")) and (size < LARGEST_FONTS or name == ALSO)
    ]
    paths = dict(zip([name for name, _ in wanted], debian_archives(cache, wanted), strict=True))
    fonts, probed, having, points = [], [], [], defaultdict(set)
    by_point: dict[bool, dict[int, set[str]]] = {side: defaultdict(set) for side in (False, True)}
    for number, (name, path) in enumerate(paths.items()):
        _say(f"reading package {number} of {len(paths)}")
        for face in faces(name, path):
            fonts.append((name, face.family, face.path))
            probed.append(probes(face))
            having.append(np.array(sorted(face.points), np.uint32))
            points[name] |= face.points
    families = [(name, family) for name, family, _ in fonts]
    held = held_packages(marks(families, probed), {name: frozenset(held) for name, held in points.items()})
    for (name, family), held_points in zip(families, having, strict=True):
        for point in held_points.tolist():
            by_point[name in held][point].add(family)
    train, test = (glyphs.LEAST_FAMILIES[side] for side in ("train", "held"))
    found = candidates(
        {point: len(names) for point, names in by_point[False].items() if len(by_point[True][point]) >= test}, train
    )
    order = [point for kind in found.values() for point in kind]
    rows = [np.flatnonzero(np.isin(order, held_points)) for held_points in having]
    drawn: dict[str, set[str]] = defaultdict(set)
    for name, _, path in fonts_to_draw(fonts, rows, held, DRAWN, 1, widest=True):
        drawn[name].add(path)
    likeness, usable = _compare({name: (paths[name], wanted) for name, wanted in sorted(drawn.items())}, held, order)
    chosen = choose(
        found, order, likeness.alike(), {p: a >= train + 2 and b >= test + 1 for p, (a, b) in usable.items()}
    )
    glyphs.CLASSES.write_text("".join(f"{point:04X} {chr(point)} {kind_of(point)}\n" for point in chosen))
    rows = [np.flatnonzero(np.isin(chosen, held_points)) for held_points in having]
    kept = fonts_to_draw(fonts, rows, held, WANTED, STYLES, widest=False)
    lines = [f"{'held' if name in held else 'train'}\t{name}\t{family}\t{path}\n" for name, family, path in kept]
    glyphs.FONTS.write_text("".join(lines))
    used = {name for name, _, _ in kept}
    _write("fonts", [pin for pin in wanted if pin[0] in used])


def _compare(
    paths: dict[str, tuple[Path, set[str]]], held: set[str], order: list[int]
) -> tuple[Likeness, dict[int, tuple[int, int]]]:
    """Return likeness on the training side, and for each code point its families of different images on both sides.

    Args:
        paths: packages, with those fonts in them that are drawn.
        held: packages that are held out.
        order: the candidates.
    """
    likeness, seen = Likeness(len(order)), [set[bytes]() for _ in order]
    counts = np.zeros((2, len(order)), int)
    for number, (name, (path, wanted)) in enumerate(paths.items()):
        _say(f"drawing fonts of package {number} of {len(paths)}")
        side = name in held
        for face in faces(name, path, wanted):
            pictures = images(face, order)
            for row in np.flatnonzero(pictures.any((1, 2))):
                data = pictures[row].tobytes()
                if data not in seen[row]:
                    seen[row].add(data)
                    counts[int(side), row] += 1
            if not side:
                likeness.add(pictures)
    return likeness, {point: (int(train), int(test)) for point, (train, test) in zip(order, counts.T, strict=True)}


def pin_docs(cache: Path) -> None:
    """Write `packages/docs.txt`: all packages that hold any prose."""
    wanted = [(name, ver) for name, ver, size in available(cache) if name.endswith("-doc") and DOCS[0] < size < DOCS[1]]
    paths = dict(zip([name for name, _ in wanted], debian_archives(cache, wanted), strict=True))
    holding = {name for name, documents in english.read(paths, _say) if documents}
    _write("docs", [pin for pin in wanted if pin[0] in holding])


def _write(name: str, pins: list[tuple[str, str]]) -> None:
    LISTS.mkdir(exist_ok=True)
    (LISTS / f"{name}.txt").write_text("".join(f"{package}={version}\n" for package, version in sorted(pins)))


def _say(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
