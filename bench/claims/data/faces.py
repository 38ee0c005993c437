"""Split fonts: packages that share a family, or draw the same characters in the same way, stay on one side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from .characters import comparable, kind_of
from .fonts import Face, images
from .splitting import draw, groups, stratified

# A few characters of each kind with much shape: two fonts that draw all of them alike have one origin.
PROBES = ("agR&", "ЖдЩ", "Ωξψ", "عشه", "अकह", "한글뷁", "あぬ", "永語")
# The rarest first: a font is of the first kind that it has.
RARITY = ("devanagari", "arabic", "hangul", "kana", "kanji", "greek", "cyrillic", "latin", "symbol")
SALT, ONE_IN = "glyphs", 4
# Larger groups train: 75 packages draw Helvetica, Times and Courier, 16 a few Gothic faces of Japan.
LARGEST_HELD = 6  # packages
NEAR = 0.993  # correlation of all probes; copies that were hinted or scaled otherwise are above it

Font = tuple[str, str, str]
"""Package, family, path."""


def probes(face: Face) -> dict[str, np.ndarray]:
    """Return `(letters * 576,)` float32 of norm 1 for each of `PROBES` that a font draws wholly."""
    found = {}
    for probe in PROBES:
        if all(ord(letter) in face.points for letter in probe):
            pictures = images(face, [ord(letter) for letter in probe])
            if pictures.any((1, 2)).all():
                found[probe] = comparable(pictures).ravel() / np.float32(np.sqrt(len(probe)))
    return found


def designs(rows: np.ndarray) -> np.ndarray:
    """Return a number for each font's probe `(n, values)`; the same for those that correlate by `NEAR` or more."""
    found = np.arange(len(rows))
    for index in range(1, len(rows)):
        near = np.flatnonzero(rows[:index] @ rows[index] >= NEAR)
        if len(near):
            found[np.isin(found, found[near])] = found[index] = found[near].min()
    return found


def marks(families: Sequence[tuple[str, str]], probed: Sequence[Mapping[str, np.ndarray]]) -> dict[str, list[Hashable]]:
    """Return for each package what it must not share across the split: families and designs.

    Args:
        families: (package, family) of each font.
        probed: `probes` of each font.
    """
    found: dict[str, list[Hashable]] = {}
    for package, family in families:
        found.setdefault(package, []).append(family)
    for probe in PROBES:
        having = [index for index, held in enumerate(probed) if probe in held]
        if having:
            for index, design in zip(having, designs(np.stack([probed[i][probe] for i in having])), strict=True):
                found[families[index][0]].append((probe, int(design)))
    return found


def held_packages(marked: Mapping[str, Sequence[Hashable]], points: Mapping[str, frozenset[int]]) -> set[str]:
    """Return the packages that are held out, a fourth of the small groups of each rarest kind.

    Args:
        marked: marks of each package's fonts.
        points: code points of each package's fonts.
    """
    group = groups(marked)
    members: dict[str, set[int]] = {}
    for package, name in group.items():
        members.setdefault(name, set()).update(points[package])
    sizes = Counter(group.values())
    kinds = {name: _rarest(held) for name, held in members.items() if sizes[name] <= LARGEST_HELD}
    held = stratified(kinds, SALT, ONE_IN)
    return {package for package, name in group.items() if name in held}


def fonts_to_draw(
    fonts: Sequence[Font],
    having: Sequence[np.ndarray],
    held: set[str],
    most: tuple[int, int],
    styles: int,
    widest: bool,
) -> list[Font]:
    """Choose fonts so that every character is drawn by enough of them on each side, as far as there are as many.

    Most fonts have Latin alone, and the thousandth of them says nothing new. All families come before any second style.

    Args:
        fonts: all of them.
        having: indices of the characters that each font has.
        held: packages that are held out.
        most: fonts that draw a character, of the training and of the held-out side.
        styles: fonts of a family.
        widest: fonts with most characters first, which are the fewest; else in the order of a draw, the most diverse.
    """
    size = 1 + max((int(rows.max()) for rows in having if len(rows)), default=0)
    counts = np.zeros((2, size), int)
    turns: Counter[tuple[bool, str]] = Counter()
    chosen: list[Font] = []

    def place(index: int) -> tuple[int, int, Font]:
        first = -len(having[index]) if widest else draw("/".join(fonts[index]), "fonts")
        return first, index, fonts[index]

    order = sorted((index for index in range(len(fonts)) if len(having[index])), key=place)
    taken: set[int] = set()
    for turn in range(styles):
        for index in order:
            package, family, _ = fonts[index]
            side = package in held
            short = counts[int(side), having[index]] < most[int(side)]
            if index not in taken and turns[side, family] == turn and short.mean() > 0.1:
                turns[side, family] += 1
                taken.add(index)
                counts[int(side), having[index]] += 1
                chosen.append(fonts[index])
    return sorted(chosen)


def _rarest(points: set[int]) -> str:
    counts = Counter(kind_of(point) for point in points)
    return next((kind for kind in RARITY if counts[kind] >= 20), "symbol")
