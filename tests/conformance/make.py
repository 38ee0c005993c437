"""Make the conformance vectors from SPEC.md: `python -m tests.conformance.make` writes seeds/ and vectors.json anew.

Nothing here depends on the versions of zlib and liblzma: what is packed was written by hand, or packed once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from itertools import chain
from pathlib import Path

from tests.conformance.support import (
    bounds,
    hostile,
    hostile_delta,
    order,
    tflite,
    valid_adaptive,
    valid_delta,
    valid_exact,
    valid_files,
    valid_integers,
    valid_quantized,
)
from tests.conformance.support.vector import Vector

FOLDER = Path(__file__).parent
LIST = FOLDER / "vectors.json"
SEEDS = FOLDER / "seeds"


@cache
def small_vectors() -> tuple[Vector, ...]:
    """Return all vectors but those with more than one data chunk."""
    modules = (
        valid_exact,
        valid_quantized,
        valid_adaptive,
        valid_integers,
        valid_files,
        valid_delta,
        hostile,
        hostile_delta,
        order,
        bounds,
        tflite,
    )
    return tuple(chain.from_iterable(module.vectors() for module in modules))


@cache
def vectors() -> tuple[Vector, ...]:
    """Return all vectors, whose names differ."""
    found = (*small_vectors(), *valid_exact.large_vectors())
    assert len({vector.name for vector in found}) == len(found)
    return found


def listing(vectors: Sequence[Vector]) -> str:
    """Return the text of vectors.json, a vector a line."""
    lines = ",\n".join(json.dumps(vector.record()) for vector in vectors)
    return f'{{\n"format_version": 1,\n"feature_level": 1,\n"vectors": [\n{lines}\n]\n}}\n'


def main() -> None:
    """Write all files, and remove seeds that are no longer made."""
    SEEDS.mkdir(exist_ok=True)
    made = {f"{vector.name}.seed": vector.seed for vector in vectors()}
    for path in SEEDS.iterdir():
        if path.name not in made:
            path.unlink()
    for name, seed in made.items():
        (SEEDS / name).write_bytes(seed)
    LIST.write_text(listing(vectors()))
    size = LIST.stat().st_size + sum(map(len, made.values()))
    print(f"{len(made)} vectors, {size:,} bytes")


if __name__ == "__main__":
    main()
