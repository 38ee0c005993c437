"""`python -m bench.claims.sides`: where a network of glyphs is right, on fonts it was trained on and on others.

For each seed or checkpoint: accuracy on the training part, on the part that validates and on the held-out side, whole
and by kind of character. What is lost on the training fonts as well isn't a matter of fonts.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

import seed_runtime
from seed_runtime.errors import SeedError

from .data.characters import kind_of
from .data.files import read_arrays
from .data.validation import validating
from .inputs import glyph_inputs

DATA_ERROR = 3
BATCH = 100

Answers = Callable[[np.ndarray], np.ndarray]
"""Computes logits of `(n, 3, 64, 64)`."""


def main(arguments: list[str] | None = None) -> int:
    """Print a line of JSON for each network."""
    parser = argparse.ArgumentParser(prog="python -m bench.claims.sides", description=__doc__)
    parser.add_argument("networks", type=Path, nargs="+", help="seeds, and folders of checkpoints")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data")
    parser.add_argument("--count", type=int, default=2400, help="images of each part, evenly spread (default: 2400)")
    options = parser.parse_args(arguments)
    try:
        parts = parts_of(options.data, options.count)
        for path in options.networks:
            print(json.dumps({"network": str(path)} | measured(path, parts)), flush=True)
    except (OSError, ValueError, SeedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return DATA_ERROR
    return 0


def parts_of(folder: Path, count: int) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return stored images, classes and kinds of each part, at most so many and evenly spread over classes."""
    train, held = (read_arrays(folder / f"glyphs-{side}.npz.xz") for side in ("train", "held"))
    kinds = np.array([kind_of(int(point)) or "symbol" for point in train["classes"]])
    validates = validating(train)
    found = {}
    for name, arrays, rows in (
        ("training", train, np.flatnonzero(~validates)),
        ("validation", train, np.flatnonzero(validates)),
        ("held out", held, np.arange(len(held["y"]))),
    ):
        most = min(count, len(rows))
        chosen = rows[np.arange(most) * len(rows) // most]
        found[name] = arrays["x"][chosen], arrays["y"][chosen], kinds[arrays["y"][chosen]]
    return found


def measured(
    path: Path, parts: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
) -> dict[str, dict[str, float | int]]:
    """Return the accuracy of a seed or a checkpoint on each part, whole and by kind."""
    answer, found = answers_of(path), {}
    for name, (images, classes, kinds) in parts.items():
        right = np.concatenate([
            answer(glyph_inputs(images[first : first + BATCH])).argmax(1) == classes[first : first + BATCH]
            for first in range(0, len(images), BATCH)
        ])  # fmt: skip
        by_kind = {str(kind): round(float(right[kinds == kind].mean()), 4) for kind in np.unique(kinds)}
        found[name] = {"accuracy": round(float(right.mean()), 4), "n": len(right), **by_kind}
    return found


def answers_of(path: Path) -> Answers:
    """Return what computes the logits of a seed, or of a folder's checkpoint."""
    if path.is_file():
        session = seed_runtime.open(path, enforce=False).session()
        return lambda images: next(iter(session.run({"image": images}).values()))
    import torch

    from . import runs

    model = runs.load(path, torch.device("cpu"))

    def run(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return np.asarray(model(torch.from_numpy(images)).numpy())

    return run


if __name__ == "__main__":
    sys.exit(main())
