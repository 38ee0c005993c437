"""Render lines of text in Debian's fonts, for reading, finding and orienting them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .base import check_split
from .descriptions import descriptions, fetch_descriptions
from .fetch import debian

# Per split, one font file of each of these packages' families; no family stands in both.
FONTS = {
    "test": (
        "fonts-cabin=1.5-3:opentype/cabin/Cabin-Regular.otf",
        "fonts-crosextra-carlito=20220224-1:truetype/crosextra/Carlito-Regular.ttf",
        "fonts-dejavu-core=2.37-6:truetype/dejavu/DejaVuSerif.ttf",
        "fonts-inconsolata=001.010-6:truetype/inconsolata/Inconsolata.otf",
        "fonts-lato=2.0-2.1:truetype/lato/Lato-Regular.ttf",
        "fonts-liberation=1:1.07.4-11:truetype/liberation/LiberationSerif-Italic.ttf",
        "fonts-open-sans=1.11-2:truetype/open-sans/OpenSans-Regular.ttf",
        "fonts-roboto-unhinted=2:0~20170802-3:truetype/roboto/unhinted/RobotoTTF/Roboto-Medium.ttf",
    ),
    "calib": (
        "fonts-cantarell=0.303.1-1:opentype/cantarell/Cantarell-Regular.otf",
        "fonts-crosextra-caladea=20200211-1:truetype/crosextra/Caladea-Regular.ttf",
        "fonts-firacode=6.2-2:truetype/firacode/FiraCode-Regular.ttf",
        "fonts-freefont-ttf=20120503-10:truetype/freefont/FreeSans.ttf",
        "fonts-hack=3.003-3:truetype/hack/Hack-Regular.ttf",
        "fonts-jura=5.103-3:opentype/jura/Jura-Regular.otf",
        "fonts-sil-gentium-basic=1.102-1.1:truetype/gentium-basic/GenBasR.ttf",
        "fonts-tuffy=20120614-2.1:truetype/tuffy/tuffy_regular.ttf",
    ),
}
HEIGHT = 48  # [pixel]
MARGIN = 6  # [pixel]


def fetch_all(cache: Path) -> None:
    """Fetch the fonts and the texts to set."""
    fetch_descriptions(cache)
    for split in FONTS:
        _font_files(cache, split)


def lines(cache: Path, n: int, split: str, width: int) -> Iterator[tuple[np.ndarray, str]]:
    """Yield (image, text): `(48, <= width, 3)` uint8 RGB, words of ASCII that fill the width.

    Ink, paper, size, slope of the light and grain differ from line to line.
    """
    check_split(split)
    fonts = _font_files(cache, split)
    texts = _texts(cache, split)
    draw = np.random.default_rng(1)
    for index in range(n):
        font = ImageFont.truetype(
            str(fonts[index % len(fonts)]), int(draw.integers(26, 36)),
            layout_engine=ImageFont.Layout.BASIC,
        )  # fmt: skip
        text = fitting(next(texts), font, width - 2 * MARGIN)
        while not text:
            text = fitting(next(texts), font, width - 2 * MARGIN)
        yield _render(text, font, draw), text


def fitting(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """Return the first words of a text that fit into a width [pixel]; empty where none does."""
    kept = ""
    for word in text.split():
        longer = f"{kept} {word}".strip()
        if font.getlength(longer) > width:
            break
        kept = longer
    return kept


def padded(image: np.ndarray, width: int) -> np.ndarray:
    """Return `(3, 48, width)` float32 in [-1, 1], BGR, zeros to the right: PP-OCR's input."""
    if image.shape[1] > width:
        squeezed = Image.fromarray(image).resize((width, HEIGHT), Image.Resampling.BILINEAR)
        image = np.asarray(squeezed)
    out = np.zeros((3, HEIGHT, width), np.float32)
    out[:, :, : image.shape[1]] = scaled(image)
    return out


def scaled(image: np.ndarray) -> np.ndarray:
    """Return `(3, rows, columns)` float32 in [-1, 1], BGR, of an RGB image."""
    return (image[:, :, ::-1].astype(np.float32) / 127.5 - 1.0).transpose(2, 0, 1)


def fonts_of(cache: Path, split: str) -> list[Path]:
    """Return the split's font files."""
    check_split(split)
    return _font_files(cache, split)


def texts_of(cache: Path, split: str) -> Iterator[str]:
    """Yield the split's texts without end."""
    check_split(split)
    return _texts(cache, split)


def _font_files(cache: Path, split: str) -> list[Path]:
    files = []
    for entry in FONTS[split]:
        package, file = entry.rsplit(":", 1)
        files.append(debian(cache, *package.split("=", 1)) / "usr/share/fonts" / file)
    return files


def _texts(cache: Path, split: str) -> Iterator[str]:
    short = [text for text, _ in descriptions(cache, split) if text.isascii()]
    while True:
        yield from short


def _render(text: str, font: ImageFont.FreeTypeFont, draw: np.random.Generator) -> np.ndarray:
    ascent, descent = font.getmetrics()
    width = int(font.getlength(text)) + 2 * MARGIN
    ink = Image.new("L", (width, HEIGHT), 0)
    ImageDraw.Draw(ink).text((MARGIN, (HEIGHT - ascent - descent) / 2), text, fill=255, font=font)
    share = np.asarray(ink, np.float32)[:, :, None] / 255.0
    dark, light = draw.uniform(0, 110, 3), draw.uniform(150, 255, 3)
    if draw.random() < 0.25:
        dark, light = light, dark
    slope = np.linspace(-1, 1, width, dtype=np.float32)[None, :, None] * draw.uniform(-20, 20)
    image = light * (1 - share) + dark * share + slope
    image += draw.normal(0.0, draw.uniform(0, 14), image.shape)
    pixels: np.ndarray = np.clip(image, 0, 255).astype(np.uint8)
    return pixels
