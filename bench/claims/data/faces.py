"""Split fonts: packages that share a family, or draw the same characters in the same way, stay on one side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from .characters import comparable, kind_of
from .fonts import Face, images
from .splitting import groups, stratified

# A few characters of each kind with much shape: two fonts that draw all of them alike have one origin.
PROBES = ("agR&", "ЖдЩ", "Ωξψ", "عشه", "अकह", "한글뷁", "あぬ", "永語")
# The rarest first: a font is of the first kind that it has.
RARITY = ("devanagari", "arabic", "hangul", "kana", "kanji", "greek", "cyrillic", "latin", "symbol")
SALT, ONE_IN = "glyphs", 4
# Larger groups train: 75 packages draw Helvetica, Times and Courier, 16 a few Gothic faces of Japan.
LARGEST_HELD = 6  # packages
NEAR = 0.993  # correlation of all probes; copies that were hinted or scaled otherwise are above it


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


def _rarest(points: set[int]) -> str:
    counts = Counter(kind_of(point) for point in points)
    return next((kind for kind in RARITY if counts[kind] >= 20), "symbol")
