"""Choose the classes: characters of nine kinds, none of which looks like another.

Pure: takes images and counts, reads no fonts. `pin` calls it once; its result is kept in `classes.txt`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np

from .splitting import draw

# Code points of each kind, and how many classes it gets; earlier kinds keep a shape that later ones have as well.
KINDS: dict[str, tuple[int, tuple[tuple[int, int], ...]]] = {
    "latin": (190, ((0x30, 0x39), (0x41, 0x5A), (0x61, 0x7A), (0xC0, 0x24F), (0x1E00, 0x1EFF))),
    "greek": (50, ((0x370, 0x3FF), (0x1F00, 0x1FFF))),
    "cyrillic": (70, ((0x400, 0x52F),)),
    "arabic": (50, ((0x620, 0x64A), (0x660, 0x6D5), (0x6EE, 0x6FF))),
    "devanagari": (55, ((0x904, 0x939), (0x958, 0x961), (0x966, 0x96F), (0x97B, 0x97F))),
    "hangul": (160, ((0xAC00, 0xD7A3),)),
    "kana": (120, ((0x3041, 0x3096), (0x30A1, 0x30FA))),
    "kanji": (230, ((0x4E00, 0x9FFF),)),
    "symbol": (75, ((0x21, 0x2F), (0x3A, 0x40), (0x5B, 0x60), (0x7B, 0x7E), (0xA1, 0xBF), (0x2010, 0x2BFF))),
}
POOL = 3  # candidates a class
ALIKE = 0.9  # mean correlation over fonts from which on two characters count as one shape
SMALL = 24  # images are compared at this side [pixel]


def kind_of(point: int) -> str | None:
    """Return the kind of a code point, None for marks, blanks and other scripts."""
    if unicodedata.category(chr(point))[0] not in "LNPS":
        return None
    for kind, (_, spans) in KINDS.items():
        if any(first <= point <= last for first, last in spans):
            return kind
    return None


def candidates(families: Mapping[int, int], least: int) -> dict[str, list[int]]:
    """Return for each kind the code points that most families have, `POOL` a class, the best first.

    Args:
        families: number of families that have a code point.
        least: fewer families than that are too few.
    """
    found: dict[str, list[int]] = {kind: [] for kind in KINDS}
    for point, count in families.items():
        kind = kind_of(point)
        if kind is not None and count >= least:
            found[kind].append(point)
    for kind, points in found.items():
        # Thousands of kanji stand in as many fonts: counts within an eighth of a doubling are level, a draw decides.
        points.sort(
            key=lambda point: (
                -int(8 * np.log2(families[point])) if point > 0x7E else -99,
                draw(str(point), "candidates"),
            )
        )
        del points[POOL * KINDS[kind][0] :]
    return found


def comparable(pictures: np.ndarray) -> np.ndarray:
    """Return `(n, 576)` float32 of images `(n, 48, 48)`: half the size, blurred, of mean 0 and norm 1; zeros stay."""
    small = pictures.reshape(len(pictures), SMALL, 2, SMALL, 2).sum((2, 4), dtype=np.float32)
    padded = np.pad(small, ((0, 0), (1, 1), (1, 1)))
    blurred = sum(padded[:, row : row + SMALL, column : column + SMALL] for row in range(3) for column in range(3))
    flat = np.asarray(blurred).reshape(len(pictures), -1)
    flat = np.where(pictures.any((1, 2))[:, None], flat - flat.mean(1, keepdims=True), 0.0)
    norm = np.sqrt(np.square(flat).sum(1, keepdims=True))
    return np.asarray(flat / np.maximum(norm, 1e-6), np.float32)


class Likeness:
    """Mean correlation of each pair of characters over the fonts that have both."""

    def __init__(self, count: int) -> None:
        self.sum = np.zeros((count, count), np.float32)
        self.fonts = np.zeros((count, count), np.float32)

    def add(self, pictures: np.ndarray) -> None:
        """Add one font's images `(count, 48, 48)`; an empty one is a character that it hasn't."""
        held = np.flatnonzero(pictures.any((1, 2)))
        rows = comparable(pictures[held])
        self.sum[np.ix_(held, held)] += rows @ rows.T
        self.fonts[np.ix_(held, held)] += 1

    def alike(self) -> np.ndarray:
        """Return a boolean matrix: which pairs count as one shape."""
        return self.sum >= ALIKE * np.maximum(self.fonts, 1)


def choose(
    found: Mapping[str, Sequence[int]], order: Sequence[int], alike: np.ndarray, usable: Mapping[int, bool]
) -> list[int]:
    """Return the classes: of each kind the first ones that are usable and look like none that was chosen before.

    Args:
        found: candidates of each kind, the best first.
        order: the code points that rows of `alike` stand for.
        alike: `(n, n)` which pairs look the same.
        usable: whether enough families of both sides of the split really draw it.

    Raises:
        ValueError: a kind has too few.
    """
    row = {point: index for index, point in enumerate(order)}
    chosen: list[int] = []
    taken = np.zeros(len(order), bool)
    for kind, (wanted, _) in KINDS.items():
        before = len(chosen)
        for point in found[kind]:
            if len(chosen) - before == wanted:
                break
            if usable[point] and not alike[row[point]][taken].any():
                chosen.append(point)
                taken[row[point]] = True
        if len(chosen) - before < wanted:
            raise ValueError(
                f"{kind}: {len(chosen) - before} characters differ enough, {wanted} are wanted; lower its share"
            )
    return chosen


def templates(pictures: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Return `(classes, 576)`: the mean of each class' comparable images, of norm 1."""
    total = np.zeros((classes, SMALL * SMALL), np.float32)
    for first in range(0, len(pictures), 4096):
        np.add.at(total, labels[first : first + 4096], comparable(pictures[first : first + 4096]))
    return total / np.maximum(np.sqrt(np.square(total).sum(1, keepdims=True)), 1e-6)


def faithful(pictures: np.ndarray, labels: np.ndarray, means: np.ndarray, margin: float = 0.3) -> np.ndarray:
    """Return which images of one font are pictures of their classes.

    Dropped are those that are equal within the font (capitals for small letters, boxes for what is missing), and those
    that are far nearer to another class' mean. A font of which most are dropped (pictures on the keys of letters, bars,
    another encoding) is dropped whole.

    Args:
        pictures: `(n, 48, 48)` of one font.
        labels: `(n,)` their classes.
        means: `(classes, 576)` of `templates`.
        margin: of correlation.
    """
    digests = [picture.tobytes() for picture in pictures]
    seen: dict[bytes, int] = {}
    for digest in digests:
        seen[digest] = seen.get(digest, 0) + 1
    kept = np.array([seen[digest] == 1 for digest in digests], bool) & pictures.any((1, 2))
    scores = comparable(pictures) @ means.T
    own = scores[np.arange(len(labels)), labels]
    kept &= own > scores.max(1, initial=-1) - margin
    return kept if kept.mean() >= 0.5 else np.zeros(len(kept), bool)
