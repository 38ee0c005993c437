"""Build small ONNX models for the tests of loaders and skeletons, and check that loading one changes no output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from seed_exporter.evaluate.model_files import write_model_files
from seed_exporter.evaluate.runnable import check_runnable
from seed_exporter.graph.model import Graph
from seed_exporter.loaders import load

_RNG = np.random.default_rng(7)
W = _RNG.standard_normal((16, 16)).astype(np.float32)
V = _RNG.standard_normal((16, 16)).astype(np.float32)
X = {"x": _RNG.standard_normal((3, 16)).astype(np.float32)}


def info(name: str, shape: Sequence[int | str | None] | None = (None, 16), code: int = TensorProto.FLOAT):
    """Describe an input, an output or a value; a shape of None is not stated."""
    return helper.make_tensor_value_info(name, code, shape)


def make(
    nodes: Sequence[onnx.NodeProto],
    initializers: Sequence[onnx.TensorProto] = (),
    *,
    inputs: Sequence[onnx.ValueInfoProto] | None = None,
    outputs: Sequence[onnx.ValueInfoProto] | None = None,
    value_info: Sequence[onnx.ValueInfoProto] = (),
    opset: int = 17,
    ir: int = 8,
    domains: Sequence[str] = (),
    **rest,
) -> onnx.ModelProto:
    """Make a model of these nodes, from x: float32[?, 16] to y if nothing else is said."""
    graph = helper.make_graph(
        nodes,
        "a long name",
        [info("x")] if inputs is None else inputs,
        outputs or [info("y", None)],
        initializers,
        value_info=value_info,
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir, **rest)


def matmul_chain(count: int = 3) -> onnx.ModelProto:
    """Make a model of `count` MatMul nodes with weights w0, w1, ... and long names for all that is in between."""
    values = ["x", *(f"layers.{i}/MatMul_output_0" for i in range(count - 1)), "y"]
    nodes = [
        helper.make_node("MatMul", [values[i], f"w{i}"], [values[i + 1]], name=f"/layers.{i}/MatMul")
        for i in range(count)
    ]
    return make(nodes, weights((16, 17), *[(17, 17)] * (count - 2), (17, 5)), inputs=[info("x", ("n", 16))])


def weights(*shapes: tuple[int, ...]) -> list[onnx.TensorProto]:
    """Make random float32 initializers w0, w1, ... of these shapes."""
    rng = np.random.default_rng(3)
    return [tensor(rng.standard_normal(shape).astype(np.float32), f"w{i}") for i, shape in enumerate(shapes)]


def tensor(data: np.ndarray, name: str) -> onnx.TensorProto:
    """Make an initializer."""
    return numpy_helper.from_array(data, name)


def constant(data: np.ndarray, name: str) -> onnx.NodeProto:
    """Make a Constant node."""
    return helper.make_node("Constant", [], [name], value=tensor(data, ""))


def run(model: str | Path | bytes, feeds: Mapping[str, np.ndarray] = X) -> list[np.ndarray]:
    """Run a model's file or bytes with plain ONNX Runtime, and return its outputs in order."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run(None, feeds)


def check_same(model: onnx.ModelProto, folder: Path, feeds: Mapping[str, np.ndarray] = X) -> Graph:
    """Load `model`, rebuild it in `folder`, compare outputs bit for bit, and return the graph."""
    graph = load(model)
    check_runnable(graph)
    for ours, theirs in zip(
        run(write_model_files(graph, folder), feeds), run(model.SerializeToString(), feeds), strict=True
    ):
        assert np.array_equal(ours, theirs)
    return graph
