"""PP-OCRv4 detection: which pixels of a page are text. ONNX as shipped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from . import metrics, rapidocr, textlines
from .base import Feeds, PublicModel, Run, Score

SIDE = 640  # [pixel]
SAMPLES = 60  # pages, of some 12 lines each
STRIDE = 4  # outputs are stored as means of 4 x 4 pixels
THRESHOLD = 0.3  # the package's own
# A line counts as found where this much of its middle band is marked and at most so much of the
# gap above and below it: marking the whole page finds nothing.
MARKED, SPILLED = 0.6, 0.4

Box = tuple[int, int, int, int]  # left, top, right, bottom of a line's ink [pixel]


def prepare(cache: Path) -> Path:
    """Copy the model out of the wheel and fetch fonts and texts."""
    return rapidocr.prepare(cache, "ppdet", "ch_PP-OCRv4_det_infer.onnx")


def inputs(cache: Path, n: int, split: str) -> list[Feeds]:
    """Return n pages, `x` of shape `(1, 3, 640, 640)`."""
    return [{"x": textlines.scaled(page)[None]} for page, _ in pages(cache, n, split)]


def score(cache: Path, run: Run, limit: int | None = None) -> Score:
    """Return the share of text lines found; `n` counts lines."""
    found: list[bool] = []
    maps = []
    for page, boxes in pages(cache, limit or SAMPLES, "test"):
        probability = run({"x": textlines.scaled(page)[None]})[0][0, 0]
        mask = probability > THRESHOLD
        found += [_is_found(mask, box) for box in boxes]
        blocks = probability.reshape(SIDE // STRIDE, STRIDE, SIDE // STRIDE, STRIDE)
        maps.append(blocks.mean(axis=(1, 3)).astype(np.float16))
    return {
        "metric": "lines found",
        "better": "higher",
        "value": float(np.mean(found)),
        "n": len(found),
        "outputs": {"maps": np.stack(maps), "found": np.array(found)},
    }


def compare(original: Score, candidate: Score) -> dict[str, Any]:
    """Return agreement on lines, overlap of the text masks and KL per pixel."""
    p, q = metrics.paired(original, candidate, "maps")
    found = np.mean(original["outputs"]["found"] == candidate["outputs"]["found"])
    return metrics.summary(
        original,
        candidate,
        agreement=found,
        iou=metrics.overlap(p > THRESHOLD, q > THRESHOLD),
        kl=metrics.kl_bernoulli(p, q),
    )


def pages(cache: Path, n: int, split: str) -> Iterator[tuple[np.ndarray, list[Box]]]:
    """Yield (page, boxes): `(640, 640, 3)` uint8 RGB, with a box around each line's ink."""
    fonts, texts = textlines.fonts_of(cache, split), textlines.texts_of(cache, split)
    draw = np.random.default_rng(2)
    for _ in range(n):
        light = draw.uniform(140, 255, 3)
        page = Image.new("RGB", (SIDE, SIDE), tuple(int(level) for level in light))
        pen = ImageDraw.Draw(page)
        boxes: list[Box] = []
        top = int(draw.integers(10, 40))
        while top < SIDE - 50:
            font = ImageFont.truetype(
                str(fonts[int(draw.integers(len(fonts)))]), int(draw.integers(12, 34)),
                layout_engine=ImageFont.Layout.BASIC,
            )  # fmt: skip
            left = int(draw.integers(8, 200))
            text = textlines.fitting(next(texts), font, SIDE - 8 - left)
            if not text:
                continue
            # Contrast from plain to faint, so that some lines are hard.
            ink = tuple(int(level) for level in light * draw.uniform(0.0, 0.85))
            pen.text((left, top), text, fill=ink, font=font)
            box = pen.textbbox((left, top), text, font=font)
            boxes.append((int(box[0]), int(box[1]), int(box[2]), int(box[3])))
            top = boxes[-1][3] + int(draw.integers(8, 40))
        image = np.asarray(page, np.float32) + draw.normal(0, draw.uniform(0, 16), (SIDE, SIDE, 1))
        yield np.clip(image, 0, 255).astype(np.uint8), boxes


def _is_found(mask: np.ndarray, box: Box) -> bool:
    left, top, right, bottom = box
    height = bottom - top
    middle = mask[top + height // 3 : bottom - height // 3 + 1, left:right]
    above, below = mask[max(top - 5, 0) : top - 3, left:right], mask[bottom + 3 : bottom + 5, left:right]
    gap = np.concatenate([above, below])
    return bool(middle.mean() >= MARKED and gap.mean() <= SPILLED)


MODEL = PublicModel("ppdet", "PP-OCRv4 text detection, 1.2 M parameters", prepare, inputs, score, compare)
