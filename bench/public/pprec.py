"""PP-OCRv4 recognition: the text of an image of one line. ONNX as shipped."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import numpy as np

from . import metrics, rapidocr, textlines
from .base import Feeds, PublicModel, Run, Score, batches

WIDTH = 320  # [pixel]
BATCH = 8
SAMPLES = 500
# Number of classes whose probabilities are stored separately; those of the other 6,500 are summed. The KL of that is a
# lower bound of the full one, and takes a hundredth of the memory.
KEPT = string.printable[:95]


def prepare(cache: Path) -> Path:
    """Copy the model out of the wheel and fetch fonts and texts."""
    return rapidocr.prepare(cache, "pprec", "ch_PP-OCRv4_rec_infer.onnx")


def inputs(cache: Path, n: int, split: str) -> list[Feeds]:
    """Return n lines, `x` of shape `(1, 3, 48, 320)`."""
    drawn = textlines.lines(cache, n, split, WIDTH)
    return [{"x": textlines.padded(image, WIDTH)[None]} for image, _ in drawn]


def score(cache: Path, run: Run, limit: int | None = None) -> Score:
    """Return the share of characters read right: 1 - edit distance / length."""
    classes = rapidocr.characters(prepare(cache))
    columns = [index for index, char in enumerate(classes) if index == 0 or char in KEPT]
    drawn = list(textlines.lines(cache, limit or SAMPLES, "test", WIDTH))
    read: list[str] = []
    kept = []
    for part in batches(drawn, BATCH):
        probabilities = run({"x": np.stack([textlines.padded(image, WIDTH) for image, _ in part])})[0]
        read += [_decode(best, classes) for best in probabilities.argmax(axis=2)]
        some = probabilities[:, :, columns]
        rest = np.maximum(1.0 - some.sum(axis=2, keepdims=True), 0.0)
        kept.append(np.concatenate([some, rest], axis=2).astype(np.float32))
    errors = sum(_distance(text, seen) for (_, text), seen in zip(drawn, read, strict=True))
    return {
        "metric": "characters",
        "better": "higher",
        "value": 1.0 - errors / sum(len(text) for _, text in drawn),
        "n": len(drawn),
        "outputs": {"probabilities": np.concatenate(kept), "read": np.array(read)},
    }


def compare(original: Score, candidate: Score) -> dict[str, Any]:
    """Return the share of lines read alike and the KL per time step."""
    p, q = metrics.paired(original, candidate, "probabilities")
    alike = np.mean(original["outputs"]["read"] == candidate["outputs"]["read"])
    return metrics.summary(original, candidate, agreement=alike, kl=metrics.kl(p, q))


def _decode(best: np.ndarray, classes: list[str]) -> str:
    # CTC: repeats are one character, and blanks separate repeated characters.
    firsts = best[np.concatenate([[True], best[1:] != best[:-1]])]
    return "".join(classes[index] for index in firsts)


def _distance(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, right in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (left != right))
    return row[-1]


MODEL = PublicModel("pprec", "PP-OCRv4 text recognition, 2.7 M parameters", prepare, inputs, score, compare)
