"""`seed-run model.seed --prompt TEXT`: tokens as they come, by what the seed says of text generation."""

from __future__ import annotations

import contextlib
import sys
import time
from dataclasses import replace

from seed_runtime.cli.arguments import Job
from seed_runtime.cli.common import open_cache, open_seed, open_session
from seed_runtime.cli.entrypoint import is_interrupt
from seed_runtime.cli.terminal import Terminal, print_json
from seed_runtime.errors import UnsupportedError
from seed_runtime.format.primitives import printable
from seed_runtime.memory.mapped_files import release_pages
from seed_runtime.memory.process import peak_rss, release_heap
from seed_runtime.processing.generation import Generation, Generator, Sampling, Tokenizer
from seed_runtime.seed import Seed
from seed_runtime.session import Session
from seed_runtime.units import mib


def generate(job: Job, terminal: Terminal) -> int:
    """Write the answer to a prompt, piece by piece; return the exit code."""
    asked = job.prompted
    assert asked is not None
    with contextlib.ExitStack() as stack:
        seed = stack.enter_context(open_seed(job))
        generation = _generation(seed)
        # Before the session is planned: a tokenizer takes tens of megabytes, and is used once.
        tokenizer = Tokenizer(generation.tokenizer, job.max_memory)
        generation = replace(generation, tokenizer=b"")
        generator = Generator(
            generation,
            tokenizer,
            asked.prompt,
            sampling=_sampling(generation, job),
            max_tokens=asked.max_tokens,
            rng_seed=asked.rng_seed,
        )
        del tokenizer
        release_heap()
        cache = stack.enter_context(open_cache(job))
        session = stack.enter_context(open_session(job, seed, cache, terminal, generator.largest_feeds()))
        for feeds in generator.planned_feeds():
            session.admit(feeds)  # before the first word is printed
        # No other thread opens or closes a model in this process.
        release_pages(session.folder)
        return _write(job, terminal, generator, session)


def _write(job: Job, terminal: Terminal, generator: Generator, session: Session) -> int:
    pieces: list[str] = []
    stopped: BaseException | None = None
    terminal.clear()
    start = first = time.perf_counter()
    try:
        for piece in generator.run(session.run_into):
            if not pieces:
                first = time.perf_counter()
            pieces.append(piece)
            if not job.json:
                print(_shown(piece), end="", flush=True)
    except BaseException as error:
        if not is_interrupt(error):
            raise
        stopped = error
    end = time.perf_counter()
    if job.json:
        following, count = end - first, len(generator.tokens)
        print_json(
            {
                "text": "".join(pieces),
                "tokens": generator.tokens,
                "prompt_tokens": len(generator.prompt_tokens),
                "stop": generator.stop,
                "tokens_per_second": round((count - 1) / following, 2) if count > 1 and following > 0 else None,
                "seconds": {
                    "assembly": round(session.assembly_seconds, 4),
                    "opening": round(session.opening_seconds, 4),
                    "first_token": round(first - start, 4),
                    "run": round(end - start, 4),
                },
                "mode": session.plan.mode,
                "planned_mib": mib(session.needed_bytes),
                "peak_rss_mib": mib(peak_rss()),
            }
        )
    elif pieces:
        print(flush=True)
    # An assembled model may still be on its way to the disk, which the session's end waits for.
    sys.stdout.flush()
    if stopped is not None:
        raise stopped
    return 0


def _generation(seed: Seed) -> Generation:
    steps = seed.processing()
    if steps is None or steps.generation is None:
        raise UnsupportedError(
            f"{seed.name} doesn't say how its model is asked for text; export it again with a description of "
            f"generation (docs/generation.md)"
        )
    return steps.generation


def _sampling(generation: Generation, job: Job) -> Sampling:
    """Return how tokens are chosen: as the command line says, else as the seed does."""
    asked = job.prompted
    assert asked is not None
    given = {
        name: value
        for name in ("temperature", "top_k", "top_p", "repetition_penalty")
        if (value := getattr(asked, name)) is not None
    }
    return replace(generation.sampling, **given)


def _shown(text: str) -> str:
    """Return a piece of an answer in which nothing but line feeds and tabs moves a terminal's cursor."""
    if printable(text):
        return text
    return "".join(
        char if char in "\n\t" or printable(char) else char.encode("unicode_escape").decode() for char in text
    )
