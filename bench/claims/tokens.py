"""`python -m bench.claims.tokens --data FOLDER`: turn the texts into token ids, once, on all cores.

Written into the folder are `sections-SIDE.npz` (ids `(n, 192)`, labels, sources), `wordpieces.npy` and
`bytepairs-SIDE.npy`, all ids uint16.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from .data.files import BETWEEN, read_text
from .data.splitting import held_out
from .inputs import BLANK, LENGTH, STOP


def main(arguments: list[str] | None = None) -> int:
    """Write the tokens that are missing."""
    parser = argparse.ArgumentParser(prog="python -m bench.claims.tokens", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the texts and vocabularies")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    data: Path = options.data
    last = data / "bytepairs-held.npy"
    if last.is_file():
        return 0
    pieces = sorted(data.glob("english-train-*.txt.xz"))
    # Before this process has used a tokenizer: one that was, and is forked, works in a single thread from then on.
    with ProcessPoolExecutor(options.jobs) as pool:
        words = [pool.submit(_wordpieces, data, piece) for piece in pieces]
        pairs = [pool.submit(_bytepairs, data, piece) for piece in pieces]
        _save(data / "wordpieces.npy", np.concatenate([each.result() for each in words]))
        _save(data / "bytepairs-train.npy", np.concatenate([each.result() for each in pairs]))
    tokenizer = _tokenizer(data, "wordpiece")
    tokenizer.enable_truncation(LENGTH)
    for side in ("held", "train"):
        rows = json.loads(read_text(data / f"sections-{side}.json.xz"))
        ids = np.full((len(rows["text"]), LENGTH), BLANK, np.uint16)
        for row, encoding in zip(ids, tokenizer.encode_batch(rows["text"]), strict=True):
            row[: len(encoding.ids)] = encoding.ids
        names = sorted(set(rows["source"]))
        place = {name: index for index, name in enumerate(names)}
        source = np.array([place[name] for name in rows["source"]], np.uint32)
        validates = np.array([held_out_source(name) for name in rows["source"]])
        np.savez(
            data / f"sections-{side}.npz",
            ids=ids, label=np.array(rows["label"], np.uint8), source=source, validates=validates,
            classes=np.array(rows["classes"]),
        )  # fmt: skip
    _save(last, _bytepairs(data, data / "english-held.txt.xz"))
    for path in sorted(data.glob("*.npy")):
        print(path.name, len(np.load(path, mmap_mode="r")), "tokens")
    return 0


def held_out_source(name: str) -> bool:
    """Return whether a source package of the training side validates."""
    return held_out(name, "validation", 20)


def _tokenizer(data: Path, name: str) -> Any:
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing

    tokenizer = Tokenizer.from_str(read_text(data / f"{name}.json.xz"))
    if name == "wordpiece":
        special = [("[CLS]", tokenizer.token_to_id("[CLS]")), ("[SEP]", tokenizer.token_to_id("[SEP]"))]
        tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=special)
    return tokenizer


def _wordpieces(data: Path, piece: Path) -> np.ndarray:
    """Return a piece's paragraphs as one stream, each ended by [SEP]."""
    tokenizer = _tokenizer(data, "wordpiece")
    texts = [text for document in read_text(piece).split(BETWEEN) for text in document.split("\n")]
    found = [encoding.ids[1:] for encoding in tokenizer.encode_batch(texts)]
    return np.array([token for ids in found for token in (ids or [STOP])], np.uint16)


def _bytepairs(data: Path, piece: Path) -> np.ndarray:
    """Return a piece's documents as one stream, each ended by the last token of the vocabulary."""
    tokenizer = _tokenizer(data, "bytepairs")
    end = tokenizer.get_vocab_size() - 1
    found = [encoding.ids for encoding in tokenizer.encode_batch(read_text(piece).split(BETWEEN))]
    return np.array([token for ids in found for token in [*ids, end]], np.uint16)


def _save(path: Path, array: np.ndarray) -> None:
    # Several programs may begin while this one writes: a file is there when it is whole.
    part = path.with_name(f".{path.name}.part.npy")
    np.save(part, array)
    part.replace(path)


if __name__ == "__main__":
    sys.exit(main())
