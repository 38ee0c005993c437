"""Free dimensions: which they are, which is the batch, and the shapes that sizes give."""

from __future__ import annotations

import pytest

from seed_exporter.evaluate.free_dims import (
    FreeDim,
    Role,
    all_free_dims,
    batch_dims,
    concrete_shape,
    roles,
    scale,
    sizes_from_dims,
    sizes_to_try,
)
from seed_runtime.backends import TensorSpec

IDS = TensorSpec("ids", "int64", ("batch", "length"))
MASK = TensorSpec("mask", "int64", ("batch", "length"))
PICTURE = TensorSpec("pixels", "float32", (None, 3, None, None))


def test_a_dimension_is_its_name_or_else_its_place() -> None:
    assert all_free_dims([IDS, MASK]) == ["batch", "length"] * 2
    assert all_free_dims([PICTURE]) == [("pixels", 0), ("pixels", 2), ("pixels", 3)]


@pytest.mark.parametrize(
    ("specs", "batch"),
    [
        ([IDS, MASK], {"batch"}),
        ([TensorSpec("x", "float32", ("time", "N"))], {"N"}),
        ([PICTURE], {("pixels", 0)}),
        ([TensorSpec("x", "float32", ("rows", "cols")), TensorSpec("v", "float32", ("n_v",))], {"rows"}),
        ([TensorSpec("x", "float32", (None,))], set()),
        ([TensorSpec("x", "float32", (2, None))], set()),
    ],
)
def test_a_batch_is_named_or_else_the_first_axis_of_a_matrix(specs: list[TensorSpec], batch: set[FreeDim]) -> None:
    assert batch_dims(specs) == batch


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        (IDS, ["batch", "sequence"]),
        (PICTURE, ["batch", "height", "width"]),
        (TensorSpec("x", "uint8", (1, "h", "w", 3)), ["height", "width"]),
        (TensorSpec("x", "float32", (None,)), ["batch"]),
        (TensorSpec("x", "float32", ("seq_len", 8)), ["sequence"]),
        (TensorSpec("x", "float32", (8, "batch")), ["batch"]),
        (TensorSpec("x", "float32", (1, 3)), []),
    ],
)
def test_roles_follow_names_and_else_places(spec: TensorSpec, found: list[Role]) -> None:
    assert list(roles([spec]).values()) == found


def test_sizes_grow_together_beside_a_batch_of_one() -> None:
    assert list(sizes_to_try([IDS, MASK], (16, 32))) == [{"batch": 1, "length": 16}, {"batch": 1, "length": 32}]
    assert list(sizes_to_try([TensorSpec("x", "float32", ("batch", 4))], (16, 32))) == [{"batch": 1}]


def test_sizes_under_keys_fill_every_shape_that_has_the_name() -> None:
    sizes = sizes_from_dims([IDS, MASK], {"ids:1": 5})
    assert [concrete_shape(spec, sizes) for spec in (IDS, MASK)] == [(1, 5), (1, 5)]


def test_scaled_sizes_are_one_at_least() -> None:
    assert scale({"x:0": 3, "x:1": 7}, ["x:1"], 0.25) == {"x:0": 3, "x:1": 1}


def decoder(total: str | None, past: str | None = "past") -> list[TensorSpec]:
    return [
        TensorSpec("ids", "int64", ("batch", "sequence")),
        TensorSpec("mask", "int64", ("batch", total)),
        *(TensorSpec(f"past.{layer}", "float32", ("batch", past, 8)) for layer in range(2)),
    ]


def test_a_name_that_is_a_sum_gets_the_size_that_its_terms_make() -> None:
    first = next(sizes_to_try(decoder("past + sequence"), (16, 32)))
    assert first == {"batch": 1, "sequence": 16, "past": 16, "past + sequence": 32}
    assert next(sizes_to_try([TensorSpec("x", "float32", ("2*k", 8))], (16,)))["2*k"] == 32


def test_a_sum_has_no_role_and_is_no_batch() -> None:
    specs = decoder("past + 1")
    assert list(roles(specs)) == ["ids:0", "ids:1", "past.0:1"]
    assert batch_dims([TensorSpec("x", "float32", ("2*batch", 8))]) == {"batch"}


@pytest.mark.parametrize("total", ["past + 1", "total_length", "all", None])
@pytest.mark.parametrize("past", ["past", None])
def test_a_total_is_tried_as_the_sum_of_two_others_whatever_its_name_says(total: str | None, past: str | None) -> None:
    specs = decoder(total, past)

    def fits(sizes: dict[FreeDim, int]) -> bool:
        ids, mask, *pasts = (concrete_shape(spec, sizes) for spec in specs)
        return all(one[1] == pasts[0][1] > 0 for one in pasts) and mask[1] == ids[1] + pasts[0][1]

    assert any(fits(sizes) for sizes in sizes_to_try(specs, (16, 32)))


def test_sizes_of_1_and_0_are_tried_last() -> None:
    tried = list(sizes_to_try(decoder("past + 1"), (16, 32)))
    one = tried.index({"batch": 1, "sequence": 1, "past": 16, "past + 1": 17})
    none = tried.index({"batch": 1, "sequence": 16, "past": 0, "past + 1": 16})
    assert 2 <= one < none


def test_an_empty_dimension_stays_empty_when_sizes_are_scaled() -> None:
    assert scale({"x:0": 0, "x:1": 4}, ["x:0", "x:1"], 0.25) == {"x:0": 0, "x:1": 1}
