"""Which images of the training side validate: all of some font packages, so that every kind of character is judged.

Fonts of one family stand on one side. A draw of packages alone, one in twelve, had no Hangul, no kana and no kanji,
which are half of the classes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .characters import kind_of
from .faces import RARITY
from .splitting import groups, stratified

ONE_IN = 12
"""One in so many groups of packages of a kind validates."""
LARGEST = 500
"""Most images of a group that validates: what many fonts draw is worth more in training."""
LEAST = 20
"""Images of a kind from which on a group is of that kind; the rarest counts."""


def validating(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return `(n,)` bool: whether each image of the training side validates.

    Args:
        arrays: of `glyphs-train.npz.xz`. Where packages are so few that none is drawn, the last font validates.
    """
    lines = [line.split("\t") for line in str(arrays["fonts"]).split("\n")]
    families: dict[str, list[str]] = {}
    for package, family, *_ in lines:
        families.setdefault(package, []).append(family)
    group = groups(families)
    names, of_font = np.unique([group[package] for package, *_ in lines], return_inverse=True)
    of_image = of_font[arrays["font"]]
    kinds = np.array([kind_of(int(point)) or "symbol" for point in arrays["classes"]])[arrays["y"]]
    counts = {kind: np.bincount(of_image, kinds == kind, len(names)) for kind in RARITY}
    small = {
        str(name): next((kind for kind in RARITY if counts[kind][index] >= LEAST), "symbol")
        for index, (name, count) in enumerate(zip(names, np.bincount(of_image, minlength=len(names)), strict=True))
        if count <= LARGEST
    }
    validates = np.isin(names, sorted(stratified(small, "validation", ONE_IN)))[of_image]
    if validates.all() or not validates.any():
        return np.asarray(arrays["font"] == arrays["font"].max())
    return np.asarray(validates)
