"""Pictures of 1,000 characters of nine kinds in Debian's fonts, held out by package, family and design.

Written are `glyphs-train.npz.xz` and `glyphs-held.npz.xz`, each with
`x` `(n, 48, 24)` uint8, two pixels of 16 greys a byte, the left one in the upper half;
`y` `(n,)` uint16, the class; `font` `(n,)` uint16, the line of `fonts` it was drawn by;
`fonts` one text, a line `package<TAB>family<TAB>path` for each; `classes` `(1000,)` uint32, code points.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.claims.inputs import unpacked

from .archives import archives
from .characters import faithful, templates
from .files import Said, write_arrays
from .fonts import faces, images
from .splitting import spread

CLASSES = Path(__file__).parent / "classes.txt"
FONTS = Path(__file__).parent / "fonts.txt"
MOST = {"train": 150, "held": 30}  # images a class
LEAST_FAMILIES = {"train": 12, "held": 2}  # a class
LEAST_OF_FONT = 5  # a font with fewer classes is not worth reading


@dataclass
class Drawn:
    """What a font draws: rows of `x`, and their classes."""

    side: str
    package: str
    family: str
    path: str
    x: np.ndarray
    y: np.ndarray


def classes() -> list[int]:
    """Return the code points of the classes in their order."""
    return [int(line.split()[0], 16) for line in CLASSES.read_text().splitlines()]


def fonts() -> list[tuple[str, str, str, str]]:
    """Return side, package, family and path of each font that is drawn."""
    rows = [line.split("\t") for line in FONTS.read_text().splitlines()]
    return [(side, package, family, path) for side, package, family, path in rows]


def make(cache: Path, out: Path, say: Said, jobs: int = 1) -> dict[str, int]:
    """Write both sides and return counts. One process whatever `jobs`: reading packages takes most of the time."""
    points = classes()
    sides: dict[str, list[Drawn]] = {"held": [], "train": []}
    for font in drawn(archives(cache, "fonts"), points, say):
        sides[font.side].append(font)
    say("dropping what is no picture of its class")
    _drop_unfaithful(sides, len(points))
    counts = {}
    taken: set[bytes] = set()
    # Held-out images first: what both sides draw alike, pixel by pixel, is taken from the training side.
    for side in ("held", "train"):
        counts |= _write(out / f"glyphs-{side}.npz.xz", sides[side], points, side, taken)
        say(f"wrote {side}")
    return counts


def drawn(found: dict[str, Path], points: Sequence[int], say: Said) -> Iterator[Drawn]:
    """Yield what each of the listed fonts draws of the code points."""
    listed: dict[str, dict[str, tuple[str, str]]] = {}
    for side, package, family, path in fonts():
        listed.setdefault(package, {})[path] = side, family
    for number, (package, archive) in enumerate(found.items()):
        if number % 20 == 0:
            say(f"package {number} of {len(found)}")
        for face in faces(package, archive, listed[package].keys()):
            side, family = listed[package][face.path]
            labels = np.flatnonzero([point in face.points for point in points])
            pictures = images(face, [points[label] for label in labels])
            kept = pictures.any((1, 2))
            if kept.sum() >= LEAST_OF_FONT:
                yield Drawn(side, package, family, face.path, packed(pictures[kept]), labels[kept])


def packed(pictures: np.ndarray) -> np.ndarray:
    """Return `(n, 48, 24)`, two pixels a byte."""
    return np.asarray(pictures[..., 0::2] << 4 | pictures[..., 1::2], np.uint8)


def _drop_unfaithful(sides: dict[str, list[Drawn]], count: int) -> None:
    """Remove images that are no picture of their class, as the training side's means tell."""
    means = np.zeros((count, 576), np.float32)
    for font in sides["train"]:
        means += templates(unpacked(font.x), font.y, count)
    means /= np.maximum(np.sqrt(np.square(means).sum(1, keepdims=True)), 1e-6)
    for fonts in sides.values():
        for font in fonts:
            kept = faithful(unpacked(font.x), font.y, means)
            font.x, font.y = font.x[kept], font.y[kept]


def _write(path: Path, fonts: Sequence[Drawn], points: Sequence[int], side: str, taken: set[bytes]) -> dict[str, int]:
    x = np.concatenate([font.x for font in fonts])
    y = np.concatenate([font.y for font in fonts])
    font = np.repeat(np.arange(len(fonts)), [len(item.y) for item in fonts])
    names = sorted({item.family for item in fonts})
    family = np.array([names.index(item.family) for item in fonts])[font]
    fresh = np.zeros(len(x), bool)
    for index, picture in enumerate(x):
        digest = hashlib.sha256(picture.tobytes()).digest()[:12]
        if digest not in taken:
            taken.add(digest)
            fresh[index] = True
    chosen = []
    for label in range(len(points)):
        rows = np.flatnonzero(fresh & (y == label))
        if (count := len(np.unique(family[rows]))) < LEAST_FAMILIES[side]:
            raise ValueError(f"U+{points[label]:04X} has {count} families on the {side} side; choose other classes")
        chosen.append(rows[spread(family[rows], MOST[side])])
    rows = np.concatenate(chosen)
    used, new = np.unique(font[rows], return_inverse=True)
    lines = [f"{fonts[index].package}\t{fonts[index].family}\t{fonts[index].path}" for index in used]
    write_arrays(
        path,
        {
            "x": x[rows],
            "y": y[rows].astype(np.uint16),
            "font": new.astype(np.uint16),
            "fonts": np.array("\n".join(lines)),
            "classes": np.array(points, np.uint32),
        },
    )
    families = len({fonts[index].family for index in used})
    return {
        f"{side} images": len(rows),
        f"{side} fonts": len(used),
        f"{side} families": families,
        f"{side} packages": len({fonts[index].package for index in used}),
        f"{side} fewest of a class": min(map(len, chosen)),
    }
