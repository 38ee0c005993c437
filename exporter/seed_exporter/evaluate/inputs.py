"""Inputs to compare the original and the seed on: the user's own, or generated ones that the model accepts.

Generated inputs are recipes of the runtime's generator, so that a device can make the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from seed_exporter.graph.model import Graph
from seed_runtime import generator
from seed_runtime.backends import Feeds, TensorSpec
from seed_runtime.data import stored
from seed_runtime.data.calls import bind
from seed_runtime.errors import SeedError, UnsupportedError
from seed_runtime.format.dtypes import BY_NAME
from seed_runtime.golden import Recipe

_SIDES = (16, 32, 48, 64, 96, 128, 224, 256, 320, 640)
"""Sizes to try for free dimensions that are no batch, until the model takes one."""
CALLS_MAX = 64
"""Of a data file are compared: their outputs are held at once."""
_PASSES_INDICES_ON = {"Cast", "Reshape", "Unsqueeze", "Squeeze", "Identity", "Flatten", "Expand", "Slice", "Transpose"}


def from_file(path: Path, specs: Sequence[TensorSpec]) -> list[dict[str, np.ndarray]]:
    """The calls that a data file makes of a model, as `seed-run --input` reads it, at most CALLS_MAX of them.

    InputError where there is no such file, or an input is missing or doesn't fit.
    """
    with stored.opened(str(path)) as arrays:
        calls = bind(arrays, specs)
        return [{name: array.copy() for name, array in call.items()} for call in islice(calls, CALLS_MAX)]


def recipes(graph: Graph, specs: tuple[TensorSpec, ...], runs: Callable[[Feeds], Any]) -> tuple[Recipe, ...]:
    """One recipe per input with which `runs` does not fail, the smallest that was found.

    Raises:
        UnsupportedError: none of the sizes tried works, so inputs must be given.
    """
    tables = _index_limits(graph)
    problem: Exception | None = None
    for sizes in _sizes(specs):
        chosen = tuple(_recipe(spec, sizes, tables) for spec in specs)
        try:
            runs(arrays(specs, chosen, 0))
        except SeedError as error:
            problem = error
        else:
            return chosen
    raise UnsupportedError(f"no generated input suits this model ({problem}); give real ones with --calib x.npz")


def arrays(specs: tuple[TensorSpec, ...], chosen: tuple[Recipe, ...], seed: int) -> dict[str, np.ndarray]:
    """The feeds that these recipes make."""
    return {
        spec.name: recipe.array(seed + index) for index, (spec, recipe) in enumerate(zip(specs, chosen, strict=True))
    }


def _sizes(specs: tuple[TensorSpec, ...]) -> Iterator[Mapping[tuple[str, int] | str, int]]:
    """Sizes by dimension name, or by input and axis where it has none. A batch is one; the rest grow together."""
    keys: list[tuple[str, int] | str] = []
    for spec in specs:
        for axis, size in enumerate(spec.shape):
            if not isinstance(size, int):
                keys.append(size if size is not None else (spec.name, axis))
    batch: set[tuple[str, int] | str] = {
        key for key in keys if isinstance(key, str) and ("batch" in key.lower() or key in ("N", "n"))
    }
    if not batch:
        batch = {
            spec.shape[0] or (spec.name, 0)
            for spec in specs
            if len(spec.shape) > 1 and not isinstance(spec.shape[0], int)
        }
    for side in _SIDES:
        yield {key: 1 if key in batch else side for key in keys}
        if batch == set(keys):
            return


def _recipe(spec: TensorSpec, sizes: Mapping[Any, int], tables: Mapping[str, int]) -> Recipe:
    dims = tuple(
        size if isinstance(size, int) else sizes[size if size is not None else (spec.name, axis)]
        for axis, size in enumerate(spec.shape)
    )
    dtype = BY_NAME[spec.dtype]
    if dtype.name.startswith(("float", "bfloat")):
        return Recipe(generator.NORMAL, dtype, dims, 0.0, 1.0)
    if "mask" in spec.name.lower() or dtype.name == "bool":
        return Recipe(generator.INTEGERS, dtype, dims, 1, 2)
    if prod(dims) == 1 and spec.name not in tables:
        return Recipe(generator.INTEGERS, dtype, dims, 1, 2)
    most = int(np.iinfo(dtype.storage.str).max) + 1
    rows = tables.get(spec.name, 2 if dtype.name != "uint8" else 256)
    # Bytes that are cast to indices reach only part of a longer table.
    return Recipe(generator.INTEGERS, dtype, dims, 0, min(rows, most))


def _index_limits(graph: Graph) -> dict[str, int]:
    """For each input that selects rows of a weight: how many rows there are."""
    limits: dict[str, int] = {}
    names = {value.name for value in graph.model.graph.input}
    origin = {name: name for name in names}
    shapes = {name: weight.shape for name, weight in graph.weights.items()}
    for node in graph.model.graph.node:
        source = next((origin[name] for name in node.input if name in origin), None)
        if node.op_type == "Gather" and node.input[0] in shapes and node.input[1] in origin:
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
            name = origin[node.input[1]]
            limits[name] = min(limits.get(name, 1 << 31), shapes[node.input[0]][axis])
        elif source is not None and node.op_type in _PASSES_INDICES_ON and node.input[0] in origin:
            origin[node.output[0]] = source
    return limits
