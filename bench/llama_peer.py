"""Ask llama.cpp for text, in an environment of its own: `PYTHON bench/llama_peer.py GGUF PROMPT TOKENS THREADS`.

Needs llama-cpp-python or xllamacpp, and nothing of this repository. Prints one JSON object: what wrote the text, the
text, tokens per second of the prompt and of the answer as llama.cpp counts them, and the peak memory of the process.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

CONTEXT = 512  # [token]; both programs take it for llama.cpp's cache


class Clock:
    """Times of an answer: of the first token, and of those after it by the clock and by the processor."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.pieces: list[str] = []
        self.marks: list[tuple[float, float]] = []

    def add(self, piece: str) -> None:
        self.pieces.append(piece)
        self.marks.append((time.perf_counter(), time.process_time()))

    def figures(self, following: int | None = None) -> dict[str, Any]:
        """Return the text and its times; `following` tokens came after the first piece, as many as pieces if None."""
        (first, first_cpu), (last, last_cpu) = self.marks[0], self.marks[-1]
        count = len(self.marks) - 1 if following is None else following
        return {
            "text": "".join(self.pieces),
            "first_token_s": first - self.start,
            "tokens_per_second": count / (last - first),
            "tokens_per_cpu_second": count / (last_cpu - first_cpu),
        }


def with_llama_cpp(path: str, prompt: str, tokens: int, threads: int) -> dict[str, Any]:
    from importlib.metadata import version  # here, as it is no part of what bench/seed_peer.py measures

    from llama_cpp import Llama

    model = Llama(path, n_ctx=CONTEXT, n_threads=threads, n_threads_batch=threads, verbose=False)
    clock = Clock()
    for piece in model.create_completion(prompt, max_tokens=tokens, temperature=0, stream=True):
        clock.add(piece["choices"][0]["text"])
    return {"library": f"llama-cpp-python {version('llama-cpp-python')}", **clock.figures()}


def with_xllamacpp(path: str, prompt: str, tokens: int, threads: int) -> dict[str, Any]:
    from importlib.metadata import version

    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_ctx, params.n_parallel, params.warmup, params.ui = CONTEXT, 1, False, False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.cache_ram_mib = 0
    server = xllamacpp.Server(params)
    clock = Clock()

    def add(chunk: Any) -> None:
        for each in chunk if isinstance(chunk, list) else [chunk]:
            choices = each.get("choices") if isinstance(each, dict) else None
            if choices and choices[0].get("text"):
                clock.add(choices[0]["text"])

    server.handle_completions({"prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": True}, add)
    return {"library": f"xllamacpp {version('xllamacpp')}", **clock.figures()}


def main() -> None:
    path, prompt, tokens, threads = sys.argv[1:]
    try:
        found = with_llama_cpp(path, prompt, int(tokens), int(threads))
    except ImportError:
        found = with_xllamacpp(path, prompt, int(tokens), int(threads))
    with open("/proc/self/status") as status:
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    print(json.dumps(found | {"peak_rss_mib": round(peak / 1024, 1)}))


if __name__ == "__main__":
    main()
