"""Names: whatever ONNX Runtime takes becomes a seed, or is refused by its name before anything is done."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import helper

from seed_exporter.loaders import load
from seed_exporter.skeletons import builder_for
from seed_runtime.errors import UnsupportedError
from tests.exporter.support.onnx_models import W, X, check_same, info, make, tensor

ODD = ["w" * 5000, "line\nbreak", "\x1b[31m", "\u202e", "\u8f93\u5165 \U0001f642", "/a/b:0"]


def model(x: str = "x", y: str = "y", w: str = "w", middle: str = "h", dim: str = "n"):
    nodes = [
        helper.make_node("MatMul", [x, w], [middle], name="n" * 5000),
        helper.make_node("Relu", [middle], [y], name="\n"),
    ]
    return make(nodes, [tensor(W, w)], inputs=[info(x, (dim, 16))], outputs=[info(y, (dim, 16))])


@pytest.mark.parametrize("name", ODD)
def test_names_that_only_the_graph_uses_may_be_anything(name: str, tmp_path: Path) -> None:
    graph = check_same(model(w=name, middle=f"{name}h"), tmp_path)
    builder_for(graph).build(list(graph.weights))


@pytest.mark.parametrize("name", ODD)
def test_a_dimension_may_be_called_anything_and_keeps_what_it_shares(name: str, tmp_path: Path) -> None:
    graph = check_same(model(dim=name), tmp_path)
    builder_for(graph).build(list(graph.weights))
    (first, _), (second, _) = (
        value.type.tensor_type.shape.dim for value in (*graph.model.graph.input, *graph.model.graph.output)
    )
    assert first.dim_param == second.dim_param != ""


@pytest.mark.parametrize("name", ["\u8f93\u5165 \U0001f642", "/a/b:0", "x" * 255])
def test_inputs_and_outputs_keep_their_names(name: str, tmp_path: Path) -> None:
    check_same(model(x=name, y=f"{name}y"), tmp_path, {name: X["x"]})


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ({"x": "x" * 256}, r"the name of input 'x{60}'\.\.\. has 256 bytes and a seed takes 255; rename it"),
        ({"x": "line\nbreak"}, r"the name of input 'line\\nbreak' is empty or holds characters that can't be printed"),
        ({"y": "\u202e"}, r"the name of output '\\u202e' is empty or holds characters"),
        ({"y": "y" * 4097}, r"the name of output 'y{60}'\.\.\. has 4,097 bytes and a seed takes 4,096"),
    ],
)
def test_a_refused_name_is_named(names: dict[str, str], problem: str) -> None:
    with pytest.raises(UnsupportedError, match=problem):
        load(model(**names))
