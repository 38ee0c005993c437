"""Answer once from a seed, as llama_peer.py does from a GGUF file: `python -m bench.seed_peer SEED PROMPT N THREADS`.

Imports what `seed-run --prompt` does and no more, as its memory is measured.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import seed_runtime
from bench.llama_peer import Clock
from seed_runtime.memory.mapped_files import release_pages
from seed_runtime.memory.process import peak_rss, release_heap
from seed_runtime.processing.generation import Generator, Tokenizer


def main() -> None:
    path, prompt, tokens, threads = sys.argv[1:]
    seed = seed_runtime.open(path)
    steps = seed.processing()
    assert steps is not None
    assert steps.generation is not None
    tokenizer = Tokenizer(steps.generation.tokenizer)
    # Read once: without its text from here on, as in `seed-run`. A token that ends a text would end what is timed.
    generation, steps = replace(steps.generation, tokenizer=b"", stop=frozenset()), None
    generator = Generator(generation, tokenizer, prompt, max_tokens=int(tokens))
    del tokenizer
    release_heap()
    with seed.session(threads=int(threads), feeds=generator.largest_feeds()) as session:
        release_pages(session.folder)
        clock, made = Clock(), []
        for piece in generator.run(session.run_into):
            clock.add(piece)
            made.append(len(generator.tokens))
    size = {"file_mb": seed.file_size / 1e6, "peak_rss_mib": peak_rss() / (1 << 20)}
    print(json.dumps({"library": "seed-run"} | clock.figures(made[-1] - made[0]) | size))


if __name__ == "__main__":
    main()
