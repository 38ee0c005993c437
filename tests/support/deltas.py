"""Seeds on top of others, as the next versions of a model: `write_delta`, and the version's number in its header."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from seed_runtime.assembly.cache import ModelCache
from seed_runtime.delta import write_delta
from seed_runtime.format.header import Tuned
from seed_runtime.format.reader import SeedReader
from seed_runtime.format.writer import write_into
from seed_runtime.golden import Recipe
from seed_runtime.seed import Seed
from tests.support.model_seeds import golden_sample


def delta_on(
    *below: bytes,
    version: int,
    changed: int = -1,
    recipes: Sequence[Recipe] = (),
    golden_error: float = 0.0,
    tuned: Tuned | None = None,
) -> bytes:
    """Return a seed one of whose tensors is the base's plus its version, bit for bit.

    Args:
        below: what it stands on, the whole seed first.
        version: of the model.
        changed: number of the tensor.
        recipes: inputs of its golden sample; none for a seed without one.
        golden_error: what is added to the golden sample's values, so that it fails.
        tuned: section TUNED.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder, base = Path(scratch), None
        cache = ModelCache(folder / "cache", 1 << 30)
        for number, data in enumerate(below):
            (folder / f"{number}.seed").write_bytes(data)
            base = Seed(folder / f"{number}.seed", enforce=False, base=base)
        assert base is not None
        number = changed % len(base.header.holes)
        hole = base.header.holes[number]
        with base.assembled_weights(cache) as weights:
            values = weights.read(number, 0, hole.count) + np.float32(version)
        path = folder / "delta.seed"
        write_delta(base, {number: values.reshape(hole.dims)}, path, step=None, cache=cache)
        with path.open("rb", buffering=0) as file:
            reader = SeedReader(file, path.name)
            header = replace(reader.header, model=replace(reader.header.model, version=version), tuned=tuned)
            chunks = [
                bytes(chunk) for number, each in enumerate(header.streams) for chunk in reader.chunks(number, each)
            ]
        if recipes:
            model = Seed(path, enforce=False, base=base).assemble(folder / "model", cache=cache)
            header = replace(header, golden=golden_sample(model, recipes, golden_error).pack())
    out = io.BytesIO()
    write_into(out, header, [], chunks)
    return out.getvalue()
