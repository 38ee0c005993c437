"""Runs decoders on the conformance vectors: the runtime in this process, or any command line."""

from __future__ import annotations

import hashlib
import json
import shlex
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import seed_runtime
from seed_runtime.errors import SeedError

Record = dict[str, Any]
"""One vector of vectors.json."""
Decoder = Callable[[Path, Path, Sequence[Path]], tuple[int, str]]
"""Decodes a seed to a folder that does not exist, with its base, that one's own and so on.

Returns the exit code, and the last line of the error."""
FILES = ("model.onnx", "model.weights", "model.tflite")
"""Files of models, those of one kind in each vector."""
TIMEOUT_S = 120
"""Longest time that a command may take for a seed [s]; the largest takes some seconds in pure Python."""


def load(path: Path) -> list[Record]:
    """Return the vectors of a list."""
    vectors: list[Record] = json.loads(path.read_text())["vectors"]
    return vectors


def runtime(seed: Path, folder: Path, bases: Sequence[Path] = ()) -> tuple[int, str]:
    """Decode with seed_runtime, whatever signers this machine allows."""
    try:
        seed_runtime.open(seed, enforce=False, base=base_of(bases)).assemble(folder)
    except SeedError as error:
        return error.exit_code, str(error)
    return 0, ""


def base_of(bases: Sequence[Path]) -> seed_runtime.Seed | None:
    """Open a chain of bases, the first one of a seed first; None for none."""
    base = None
    for path in reversed(bases):
        base = seed_runtime.open(path, enforce=False, base=base)
    return base


def command(line: str) -> Decoder:
    """Return a decoder that is run as `LINE SEED FOLDER BASE ...`, or with words in the line replaced.

    `{seed}` and `{folder}` are replaced within words, `{bases}` is a word of its own.
    """
    words = shlex.split(line)
    if not any("{seed}" in word for word in words):
        words += ["{seed}", "{folder}", "{bases}"]

    def decode(seed: Path, folder: Path, bases: Sequence[Path] = ()) -> tuple[int, str]:
        filled = []
        for word in words:
            filled += map(str, bases) if word == "{bases}" else [word.format(seed=seed, folder=folder)]
        done = subprocess.run(filled, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S, check=False)
        return done.returncode, (done.stderr.strip().splitlines() or [""])[-1]

    return decode


def problem(vector: Record, seeds: Path, decode: Decoder, scratch: Path) -> str | None:
    """Return what a decoder does wrong with one vector, None for nothing.

    Args:
        vector: of the list.
        seeds: the folder of the seeds.
        decode: the decoder.
        scratch: a folder that is empty, for its files.
    """
    folder = scratch / "out"
    try:
        bases = [seeds / f"{name}.seed" for name in vector.get("bases", [])]
        code, text = decode(seeds / f"{vector['name']}.seed", folder, bases)
    except subprocess.TimeoutExpired:
        return f"it took more than {TIMEOUT_S} s"
    if code != vector["exit_code"]:
        return f"exit code {code} instead of {vector['exit_code']}" + (f" ({text})" if text else "")
    left = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    if code:
        return f"it left {', '.join(left)}" if left else None
    for name in FILES:
        if name not in vector:
            continue
        if name not in left:
            return f"it made no {name}"
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != vector[name]:
            return f"{name} has {(folder / name).stat().st_size:,} bytes, and another digest than {vector[name][:12]}"
    return None
