"""Rows and columns of weights follow their use."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from seed_exporter.graph.matrix import kernel_of, matrix_view, output_axis
from seed_exporter.loaders import load
from tests.exporter.support.onnx_models import make, tensor


@pytest.mark.parametrize(
    ("op", "inputs", "shape", "attributes", "view", "axis"),
    [
        ("Conv", ["x", "w"], (8, 4, 3, 3), {}, (8, 36), 0),
        ("ConvTranspose", ["x", "w"], (8, 4, 3, 3), {}, (8, 36), 1),
        ("Gemm", ["x", "w"], (8, 32), {"transB": 1}, (8, 32), 0),
        ("Gemm", ["x", "w"], (8, 32), {}, (8, 32), 1),
        ("MatMul", ["x", "w"], (4, 8, 32), {}, (32, 32), 2),
        ("MatMul", ["w", "x"], (8, 32), {}, (8, 32), 0),
        ("Gather", ["w", "x"], (8, 4, 8), {}, (8, 32), 0),
        ("LSTM", ["x", "w"], (2, 8, 16), {}, (16, 16), None),
        ("Add", ["x", "w"], (128,), {}, (1, 128), None),
        ("Add", ["x", "w"], (1, 128, 1, 1), {}, (1, 128), None),
    ],
)
def test_rows_for_coding_follow_the_use(op: str, inputs: list[str], shape: tuple[int, ...], attributes, view, axis):
    held = tensor(np.zeros(shape, np.float32), "w")
    weight = load(make([helper.make_node(op, inputs, ["y"], **attributes)], [held])).weights["w"]
    assert matrix_view(weight) == view
    assert output_axis(weight) == axis
    assert weight.data.reshape(view).flags.c_contiguous


@pytest.mark.parametrize(
    ("op", "inputs", "shape", "kernel"),
    [
        ("Conv", ["x", "w"], (8, 4, 3, 5), (15, 5)),
        ("Conv", ["x", "w"], (8, 4, 7), (7, 7)),
        ("ConvTranspose", ["x", "w"], (8, 4, 2, 2), (4, 2)),
        ("Conv", ["x", "w"], (8, 4, 1, 1), None),
        ("Gather", ["w", "x"], (8, 4, 8), None),
        ("MatMul", ["x", "w"], (4, 8, 32), None),
    ],
)
def test_the_taps_of_a_kernel_are_those_of_a_convolution(
    op: str, inputs: list[str], shape: tuple[int, ...], kernel: tuple[int, int] | None
) -> None:
    held = tensor(np.zeros(shape, np.float32), "w")
    weight = load(make([helper.make_node(op, inputs, ["y"])], [held])).weights["w"]
    assert kernel_of(weight) == kernel
