"""Inputs that are generated because the model accepts them, for users who give none of their own.

They are recipes of the runtime's generator, so that a device can make the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any, Final

import numpy as np

from seed_exporter.evaluate.free_dims import FreeDim, concrete_shape, sizes_to_try
from seed_exporter.evaluate.words import Words, words_of
from seed_exporter.graph.index import GraphIndex
from seed_exporter.graph.model import Graph
from seed_runtime import generator
from seed_runtime.backends import Feeds, TensorSpec
from seed_runtime.errors import SeedError, UnsupportedError
from seed_runtime.format.dtypes import BY_NAME, STRING
from seed_runtime.golden import Recipe
from seed_runtime.skeletons.info import BREAKING_OPERATORS

_SIDES: Final = (16, 32, 48, 64, 96, 128, 224, 256, 320, 640)
"""Sizes to try for free dimensions that are no batch, until the model accepts one."""
_SHAPES: Final = ((None, None), (None, 3, None, None), (None, None, None), (None, 1, None, None), (None,), ())
"""Shapes to try for inputs that state none, all of them alike."""
_PASSES_INDICES_ON: Final = frozenset(
    {"Cast", "Reshape", "Unsqueeze", "Squeeze", "Identity", "Flatten", "Expand", "Slice", "Transpose"}
)
"""Operators whose result holds no other integers than their first input."""


def find_recipes(
    graph: Graph, specs: Sequence[TensorSpec], run: Callable[[Feeds], Any], sides: Sequence[int] = _SIDES
) -> tuple[Recipe, ...]:
    """Find inputs that the model accepts, the first of those tried.

    Args:
        graph: the model.
        specs: its inputs.
        run: runs the model on feeds; raises SeedError where it can't.
        sides: sizes of free dimensions that are no batch, the first one preferred.

    Returns:
        One recipe per input.

    Raises:
        UnsupportedError: the model accepts none of the sizes tried, so inputs must be given.
    """
    limits, words = index_limits(graph), words_of(graph)
    breaks_on_empty = any(node.op_type in BREAKING_OPERATORS for node in GraphIndex(graph).nodes)
    problem: Exception | None = None
    for shaped in _with_shapes(specs):
        for sizes in sizes_to_try(shaped, sides):
            if breaks_on_empty and 0 in sizes.values():
                continue
            recipes = tuple(_recipe(spec, sizes, limits, words) for spec in shaped)
            try:
                run(make_feeds(specs, recipes, 0))
            except SeedError as error:
                # What the plainest sizes meet with says most about the model.
                problem = problem or error
            else:
                return recipes
    raise UnsupportedError(f"no generated input suits this model ({problem}); give real ones with --calib x.npz")


def make_feeds(specs: Sequence[TensorSpec], recipes: Sequence[Recipe], rng_seed: int) -> dict[str, np.ndarray]:
    """Make the feeds of these recipes; each input has a random state of its own, from `rng_seed` on."""
    return {
        spec.name: recipe.array(rng_seed + index)
        for index, (spec, recipe) in enumerate(zip(specs, recipes, strict=True))
    }


def _with_shapes(specs: Sequence[TensorSpec]) -> Iterator[tuple[TensorSpec, ...]]:
    """Yield the inputs with a shape for those that state none; once where all do."""
    shapes = _SHAPES if any(spec.shape is None for spec in specs) else ((),)
    for shape in shapes:
        yield tuple(replace(spec, shape=shape) if spec.shape is None else spec for spec in specs)


def _recipe(spec: TensorSpec, sizes: Mapping[FreeDim, int], limits: Mapping[str, int], words: Words) -> Recipe:
    """Choose how to generate one input of these sizes; `limits` has the rows of tables by input name."""
    dims = concrete_shape(spec, sizes)
    if spec.dtype == STRING.name:
        return replace(words, dims=dims)
    dtype = BY_NAME[spec.dtype]
    if dtype.name.startswith(("float", "bfloat")):
        return Recipe(generator.NORMAL, dtype, dims, 0.0, 1.0)
    if "mask" in spec.name.lower() or dtype.name == "bool":
        return Recipe(generator.INTEGERS, dtype, dims, 1, 2)
    if prod(dims) == 1 and spec.name not in limits:
        return Recipe(generator.INTEGERS, dtype, dims, 1, 2)
    if dtype.name == "int8" and spec.name not in limits:
        return Recipe(generator.INTEGERS, dtype, dims, -128, 128)  # of a quantized model
    end = int(np.iinfo(dtype.storage.str).max) + 1
    rows = limits.get(spec.name, 2 if dtype.name != "uint8" else 256)
    # Bytes that are cast to indices reach only part of a longer table.
    return Recipe(generator.INTEGERS, dtype, dims, 0, min(rows, end))


def index_limits(graph: Graph) -> dict[str, int]:
    """Return the number of rows for each input that selects rows of a weight."""
    limits: dict[str, int] = {}
    origin = {value.name: value.name for value in graph.model.graph.input}
    for node in graph.model.graph.node:
        source = next((origin[name] for name in node.input if name in origin), None)
        if node.op_type == "Gather" and node.input[0] in graph.weights and node.input[1] in origin:
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
            name = origin[node.input[1]]
            limits[name] = min(limits.get(name, 1 << 31), graph.weights[node.input[0]].shape[axis])
        elif source is not None and node.op_type in _PASSES_INDICES_ON and node.input[0] in origin:
            origin[node.output[0]] = source
    return limits
