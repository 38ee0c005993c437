"""Magika: a file's type from its first and last bytes. ONNX as shipped, weights in initializers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from . import filetypes, metrics
from .base import Feeds, PublicModel, Run, Score, batches
from .fetch import pypi, whole_file

PACKAGE = ("magika", "1.0.3")
FOLDER = "magika/models/standard_v3_3"
BATCH = 32
SAMPLES = 1000

# From the configuration in the wheel, whose version is pinned: the parts of a file that the model reads.
BLOCK, HALF, PADDING = 4096, 1024, 256


def prepare(cache: Path) -> Path:
    """Copy the model out of the wheel and fetch the files to judge it on."""
    target = cache / "magika" / "model.onnx"
    filetypes.fetch_all(cache)
    if not target.exists():
        with whole_file(target) as path:
            shutil.copyfile(pypi(cache, *PACKAGE) / FOLDER / "model.onnx", path)
    return target


def features(data: bytes) -> np.ndarray:
    """Return `(2048,)` int32: the stripped start and end of a file, padded with 256.

    The start is padded behind and the end before, as the package does it.
    """
    start = data[:BLOCK].lstrip()[:HALF]
    end = data[-BLOCK:].rstrip()[-HALF:]
    row = np.full(2 * HALF, PADDING, np.int32)
    row[: len(start)] = np.frombuffer(start, np.uint8)
    row[2 * HALF - len(end) :] = np.frombuffer(end, np.uint8)
    return row


def inputs(cache: Path, n: int, split: str) -> list[Feeds]:
    """Return n files as the model sees them, `bytes` of shape `(1, 2048)`."""
    files = filetypes.labelled_files(cache, set(_labels(cache)), split)[:n]
    return [{"bytes": features(path.read_bytes())[None]} for path, _ in files]


def score(cache: Path, run: Run, limit: int | None = None) -> Score:
    """Return accuracy against the file's extension."""
    labels = _labels(cache)
    files = filetypes.labelled_files(cache, set(labels), "test")[: limit or SAMPLES]
    truth = np.array([labels.index(label) for _, label in files])
    rows = np.stack([features(path.read_bytes()) for path, _ in files])
    probabilities = np.concatenate([run({"bytes": part})[0] for part in batches(rows, BATCH)])
    return {
        "metric": "accuracy",
        "better": "higher",
        "value": float(np.mean(probabilities.argmax(axis=1) == truth)),
        "n": len(files),
        "outputs": {"probabilities": probabilities.astype(np.float32)},
    }


def compare(original: Score, candidate: Score) -> dict[str, Any]:
    """Return agreement on the type and KL of the probabilities."""
    p, q = metrics.paired(original, candidate, "probabilities")
    return metrics.summary(original, candidate, agreement=metrics.agreement(p, q), kl=metrics.kl(p, q))


def _labels(cache: Path) -> list[str]:
    config = pypi(cache, *PACKAGE) / FOLDER / "config.min.json"
    labels: list[str] = json.loads(config.read_text())["target_labels_space"]
    return labels


MODEL = PublicModel("magika", "file types from bytes, 0.78 M parameters", prepare, inputs, score, compare)
