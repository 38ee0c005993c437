"""Weights as linear maps: outputs, inputs and groups of every operator that multiplies."""

from __future__ import annotations

import numpy as np
import pytest

from seed_exporter.graph.linear import linear_view, table_axis_is_first
from seed_exporter.graph.model import Use, Weight
from seed_runtime.format.dtypes import BY_NAME


def weight(shape: tuple[int, ...], *uses: Use) -> Weight:
    data = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    return Weight("w", BY_NAME["float32"], shape, data, uses)


@pytest.mark.parametrize(
    ("shape", "use", "expected"),
    [
        ((6, 4), Use("MatMul", 1), (1, 4, 6)),
        ((6, 4), Use("MatMul", 0), (1, 6, 4)),
        ((2, 6, 4), Use("MatMul", 1), (2, 4, 6)),
        ((6, 4), Use("Gemm", 1), (1, 4, 6)),
        ((6, 4), Use("Gemm", 1, {"transB": 1}), (1, 6, 4)),
        ((8, 3, 2, 2), Use("Conv", 1), (1, 8, 12)),
        ((8, 3, 2, 2), Use("Conv", 1, {"group": 4}), (4, 2, 12)),
        ((8, 3, 2, 2), Use("ConvTranspose", 1), (1, 12, 8)),
        ((8, 3, 2, 2), Use("ConvTranspose", 1, {"group": 2}), (2, 12, 4)),
        ((2, 12, 5), Use("LSTM", 1), (2, 12, 5)),
    ],
)
def test_each_operator_has_its_outputs_and_inputs(
    shape: tuple[int, ...], use: Use, expected: tuple[int, int, int]
) -> None:
    subject = weight(shape, use)
    view = linear_view(subject)
    assert view is not None
    assert view.shape == expected
    maps = view.maps_of(subject.data)
    assert maps.shape == expected
    assert np.array_equal(view.stored_of(maps), subject.data.reshape(-1))


def test_a_matmul_gives_the_products_of_its_map() -> None:
    subject = weight((6, 4), Use("MatMul", 1))
    view = linear_view(subject)
    assert view is not None
    x = np.arange(6, dtype=np.float32)
    assert np.allclose(view.maps_of(subject.data)[0] @ x, x @ subject.data)


def test_uses_that_differ_leave_no_view_and_a_tied_table_keeps_its_matrix() -> None:
    assert linear_view(weight((4, 4), Use("MatMul", 1), Use("MatMul", 0))) is None
    assert linear_view(weight((4, 4), Use("Add", 1))) is None
    tied = weight((6, 4), Use("Gather", 0), Use("Gemm", 1, {"transB": 1}))
    view = linear_view(tied)
    assert view is not None
    assert view.shape == (1, 6, 4)
    assert table_axis_is_first(tied)
