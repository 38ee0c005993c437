"""PP-OCR direction: whether a line of text is upside down. ONNX as shipped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from . import metrics, rapidocr, textlines
from .base import Feeds, PublicModel, Run, Score, batches

WIDTH = 192  # [pixel]
BATCH = 16
SAMPLES = 800


def prepare(cache: Path) -> Path:
    """Copy the model out of the wheel and fetch fonts and texts."""
    return rapidocr.prepare(cache, "ppcls", "ch_ppocr_mobile_v2.0_cls_infer.onnx")


def inputs(cache: Path, n: int, split: str) -> list[Feeds]:
    """Return n lines, every second one turned by 180 degrees, `x` of shape `(1, 3, 48, 192)`."""
    return [{"x": image[None]} for image, _ in _turned(cache, n, split)]


def score(cache: Path, run: Run, limit: int | None = None) -> Score:
    """Return the share of lines whose direction is right."""
    drawn = list(_turned(cache, limit or SAMPLES, "test"))
    parts = batches(drawn, BATCH)
    probabilities = np.concatenate([run({"x": np.stack([x for x, _ in part])})[0] for part in parts])
    truth = np.array([turned for _, turned in drawn])
    return {
        "metric": "accuracy",
        "better": "higher",
        "value": float(np.mean(probabilities.argmax(axis=1) == truth)),
        "n": len(drawn),
        "outputs": {"probabilities": probabilities.astype(np.float32)},
    }


def compare(original: Score, candidate: Score) -> dict[str, Any]:
    """Return agreement on the direction and KL of the probabilities."""
    p, q = metrics.paired(original, candidate, "probabilities")
    return metrics.summary(original, candidate, agreement=metrics.agreement(p, q), kl=metrics.kl(p, q))


def _turned(cache: Path, n: int, split: str) -> Iterator[tuple[np.ndarray, int]]:
    # Lines of the recogniser's width, squeezed as the package does: harder than short ones.
    for index, (image, _) in enumerate(textlines.lines(cache, n, split, 320)):
        turned = index % 2
        yield textlines.padded(image[::-1, ::-1] if turned else image, WIDTH), turned


MODEL = PublicModel("ppcls", "PP-OCR text direction, 0.13 M parameters", prepare, inputs, score, compare)
