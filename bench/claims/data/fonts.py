"""Read characters out of fonts: families, code points, 48 x 48 images of 16 greys, and what is no picture of them."""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .archives import members

SIDE = 48  # [pixel]
INK = 40  # the longer side of a character [pixel]; the rest is margin
GREYS = 16
POINT_SIZE = 80  # drawn larger than it is stored, so that it is averaged, not hinted
SUFFIXES = (".ttf", ".otf", ".ttc")
# Words that tell styles of a family apart, not families.
STYLES = re.compile(
    r"\b(thin|hairline|extra|ultra|semi|demi|light|book|regular|normal|roman|medium|bold|heavy|black|italic|oblique|"
    r"slanted|condensed|cond|compressed|narrow|wide|expanded|mono|caps|sc|tc|jp|kr|hk|[wm]?\d+|outline|shadow)\b"
)


@dataclass(frozen=True)
class Face:
    """A font of a package.

    Attributes:
        package: its Debian package.
        path: the file in the package.
        family: its family's name without words of style, in lower case.
        points: code points that it has glyphs for.
        data: the file.
    """

    package: str
    path: str
    family: str
    points: frozenset[int]
    data: bytes


def family_of(name: str) -> str:
    """Return a family's name without words of style."""
    words = re.sub(r"[-_/]", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)).lower()
    return " ".join(STYLES.sub(" ", words).split()) or words.strip()


def faces(package: str, archive: Path, wanted: Collection[str] | None = None) -> Iterator[Face]:
    """Yield the fonts of a package; of a collection its first, as others share most of their glyphs.

    Args:
        package: its name.
        archive: its file.
        wanted: paths of the fonts to read; None for all.
    """
    from fontTools.ttLib import TTFont

    def chosen(path: str, _: int) -> bool:
        return path.lower().endswith(SUFFIXES) and (wanted is None or path in wanted)

    for path, data in members(archive, chosen):
        try:
            with TTFont(io.BytesIO(data), fontNumber=0, lazy=True) as font:
                points = frozenset(point for point, glyph in (font.getBestCmap() or {}).items() if glyph != ".notdef")
                names = font["name"]
                family = names.getDebugName(16) or names.getDebugName(1) or Path(path).stem
        except Exception:  # fontTools raises whatever a broken table leads to
            continue
        yield Face(package, path, family_of(family), points, data)


def images(face: Face, points: Sequence[int]) -> np.ndarray:
    """Return `(n, 48, 48)` uint8 of 0 to 15, characters centred and of one size; zeros where there is no picture.

    No picture: the font has no glyph, the glyph is empty, it is the one for missing characters, or the renderer fails.
    """
    from PIL import Image, ImageFont

    out = np.zeros((len(points), SIDE, SIDE), np.uint8)
    try:
        font = ImageFont.truetype(io.BytesIO(face.data), POINT_SIZE, layout_engine=ImageFont.Layout.BASIC)
    except OSError:  # FreeType reads fewer fonts than fontTools: bitmaps of other sizes alone, broken tables
        return out
    missing = _drawn(font, "\U0010fffe")
    for row, point in enumerate(points):
        if point not in face.points:
            continue
        picture = _drawn(font, chr(point))
        if picture is None or (missing is not None and picture.tobytes() == missing.tobytes()):
            continue
        height, width = picture.shape
        scale = INK / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        small = np.asarray(
            Image.fromarray(picture).resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR)
        )
        top, left = (SIDE - size[1]) // 2, (SIDE - size[0]) // 2
        out[row, top : top + size[1], left : left + size[0]] = (small.astype(np.uint16) + 8) // 17
    return out


def _drawn(font: Any, text: str) -> np.ndarray | None:
    """Return the ink of a character, cut to its bounds; None where there is none."""
    try:
        mask = font.getmask(text, mode="L")
    except Exception:  # FreeType's errors have several bases
        return None
    width, height = mask.size
    if not width or not height or width > 8 * POINT_SIZE or height > 8 * POINT_SIZE:
        return None
    picture = np.array(mask, np.uint8).reshape(height, width)
    rows, columns = np.flatnonzero(picture.max(1) > 8), np.flatnonzero(picture.max(0) > 8)
    if not len(rows) or not len(columns):
        return None
    return picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
