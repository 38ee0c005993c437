"""Draw boxes and labels into a picture, by Pillow."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from seed_runtime.data.pictures import decode
from seed_runtime.format.primitives import printable
from seed_runtime.processing.answers import SampleAnswer
from seed_runtime.processing.items import Item
from seed_runtime.system.files import atomic_write

_COLORS: Final = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000")
_TEXT_MAX: Final = 60
"""Characters of a text that are drawn."""
_FORMATS: Final = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


def draw(item: Item, sample: SampleAnswer, path: Path, limit: int | None) -> None:
    """Write a picture with what was found in it.

    Args:
        item: the picture.
        sample: what was found.
        path: a .png or a .jpg, which is replaced in one step.
        limit: of --max-memory; None for none [B].

    Raises:
        InputError: the picture can't be read.
        UsageError: no file can be put there.
    """
    from PIL import ImageDraw, ImageFont

    with item.open() as file:
        picture = decode(file, item.name, "RGB", limit)
    pen = ImageDraw.Draw(picture)
    size = max(10, min(picture.size) // 40)
    font = ImageFont.load_default(size)
    top = size // 2
    for number, mark in enumerate(mark for answer in sample.answers for mark in answer.marks()):
        color = _COLORS[number % len(_COLORS)]
        if mark.corners:
            pen.polygon([*mark.corners], outline=color, width=max(2, size // 6))
            left, above = mark.corners[0][0], max(0.0, mark.corners[0][1] - size - 4)
        else:
            left, above, top = size // 2, top, top + size + 6
        text = "".join(char if printable(char) else "?" for char in mark.text[:_TEXT_MAX])
        pen.rectangle(pen.textbbox((left + 2, above), text, font=font), fill=color)
        pen.text((left + 2, above), text, fill="white", font=font)
    with atomic_write(path) as target:
        picture.save(target, _FORMATS[path.suffix.lower()])
