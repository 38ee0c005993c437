"""Generated inputs that a model accepts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from seed_exporter import loaders
from seed_exporter.evaluate import inputs
from seed_runtime.backends import Feeds, TensorSpec
from seed_runtime.errors import InputError, UnsupportedError
from seed_runtime.golden import Golden, Recipe
from tests.exporter.support.exporting import layers, of_nodes

X = TensorSpec("x", "float32", ("batch", 4))


def table(rows: int, code: int = TensorProto.INT64) -> onnx.ModelProto:
    """ids -> rows of a table, cast on the way."""
    nodes = [
        helper.make_node("Cast", ["ids"], ["wide"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "wide"], ["y"]),
    ]
    weights = [numpy_helper.from_array(np.ones((rows, 16), np.float32), "table")]
    return of_nodes(
        nodes,
        weights,
        [helper.make_tensor_value_info("ids", code, ["batch", "length"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "length", 16])],
    )


def accepting(suits: Callable[[Feeds], bool]) -> Callable[[Feeds], Any]:
    def runs(feeds: Feeds) -> None:
        if not suits(feeds):
            raise InputError("this doesn't suit")

    return runs


def found(
    model: onnx.ModelProto, *specs: TensorSpec, suits: Callable[[Feeds], bool] = lambda _: True
) -> tuple[Recipe, ...]:
    return inputs.find_recipes(loaders.load(model), specs, accepting(suits))


def readable(recipes: tuple[Recipe, ...]) -> bool:
    """Whether a device accepts them as a golden sample's."""
    return Golden.unpack(Golden(1, recipes, ()).pack()).inputs == recipes


def test_a_free_batch_is_one_and_floats_are_normal(rng: np.random.Generator) -> None:
    (recipe,) = found(layers(rng, 4, 8), X)
    values = recipe.array(1)
    assert (values.dtype, values.shape) == (np.float32, (1, 4))
    assert readable((recipe,))


def test_free_sizes_grow_together_until_the_model_takes_them(rng: np.random.Generator) -> None:
    spec = TensorSpec("x", "float32", ("batch", 3, "height", None))
    (recipe,) = found(layers(rng, 4, 8), spec, suits=lambda feeds: feeds["x"].shape[2] >= 60)
    assert recipe.dims == (1, 3, 64, 64)


def test_equal_names_get_equal_sizes(rng: np.random.Generator) -> None:
    specs = (TensorSpec("a", "int64", ("N", "length")), TensorSpec("mask", "int64", ("N", "length")))
    first, mask = found(layers(rng, 4, 8), *specs)
    assert first.dims == mask.dims == (1, 16)
    assert set(mask.array(1).ravel().tolist()) == {1}


@pytest.mark.parametrize(
    ("code", "dtype", "rows", "most"),
    [
        (TensorProto.INT64, "int64", 300, 300),
        (TensorProto.INT32, "int32", 50_000, 50_000),
        (TensorProto.UINT8, "uint8", 257, 256),
        (TensorProto.INT8, "int8", 1000, 128),
        (TensorProto.UINT8, "uint8", 100, 100),
    ],
)
def test_indices_stay_within_their_table_and_their_type(code: int, dtype: str, rows: int, most: int) -> None:
    (recipe,) = found(table(rows, code), TensorSpec("ids", dtype, ("batch", "length")))
    assert (recipe.a, recipe.b) == (0, most)
    assert readable((recipe,))
    wide = Recipe(recipe.kind, recipe.dtype, (4096,), recipe.a, recipe.b).array(3)
    assert wide.min() >= 0
    assert most * 0.8 < int(wide.max()) < most


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "bool"])
@pytest.mark.parametrize("shape", [(), (1,), (2, 3), ("batch", "n")])
def test_every_integer_type_gets_a_recipe_that_a_device_can_make(
    dtype: str, shape: tuple[Any, ...], rng: np.random.Generator
) -> None:
    recipes = found(layers(rng, 4, 8), TensorSpec("v", dtype, shape))
    assert readable(recipes)
    assert recipes[0].array(5).dtype == np.dtype(dtype)


def test_a_model_that_no_generated_input_suits_asks_for_real_ones(rng: np.random.Generator) -> None:
    with pytest.raises(UnsupportedError, match="give real ones with --calib"):
        found(layers(rng, 4, 8), X, suits=lambda _: False)


def test_the_same_rng_seed_gives_the_same_feeds(rng: np.random.Generator) -> None:
    specs = (X, TensorSpec("z", "float32", (1, 4)))
    recipes = found(layers(rng, 4, 8), *specs)
    one, two, three = (inputs.make_feeds(specs, recipes, rng_seed) for rng_seed in (1, 1, 2))
    assert np.array_equal(one["x"], two["x"])
    assert not np.array_equal(one["x"], three["x"])
    assert not np.array_equal(one["x"], one["z"])


@pytest.mark.parametrize("rank", [0, 1, 2, 3, 4])
def test_inputs_without_a_shape_are_tried_with_several(rank: int, rng: np.random.Generator) -> None:
    (recipe,) = found(layers(rng, 4, 8), TensorSpec("x", "float32", None), suits=lambda feeds: feeds["x"].ndim == rank)
    assert len(recipe.dims) == rank
