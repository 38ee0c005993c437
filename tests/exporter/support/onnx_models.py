"""Small ONNX models for the tests of the loaders, and the check that loading one changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from seed_exporter.evaluate.model_files import write_model_files
from seed_exporter.evaluate.runnable import check_runnable
from seed_exporter.graph.model import Graph
from seed_exporter.loaders import load

RNG = np.random.default_rng(7)
W = RNG.standard_normal((16, 16)).astype(np.float32)
V = RNG.standard_normal((16, 16)).astype(np.float32)
X = {"x": RNG.standard_normal((3, 16)).astype(np.float32)}


def info(name: str, shape: Sequence[int | str | None] | None = (None, 16), code: int = TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, code, shape)


def make(
    nodes: Sequence[onnx.NodeProto],
    initializers: Sequence[onnx.TensorProto] = (),
    *,
    inputs: Sequence[onnx.ValueInfoProto] | None = None,
    outputs: Sequence[onnx.ValueInfoProto] | None = None,
    opset: int = 17,
    ir: int = 8,
    domains: Sequence[str] = (),
    **rest,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes, "g", [info("x")] if inputs is None else inputs, outputs or [info("y", None)], initializers
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir, **rest)


def tensor(data: np.ndarray, name: str) -> onnx.TensorProto:
    return numpy_helper.from_array(data, name)


def constant(data: np.ndarray, name: str) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=tensor(data, ""))


def run(model: str | Path | bytes, feeds=X) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run(None, feeds)


def check_same(model: onnx.ModelProto, folder: Path, feeds=X) -> Graph:
    """Load `model`, rebuild it and compare outputs bit for bit."""
    graph = load(model)
    check_runnable(graph)
    for ours, theirs in zip(
        run(write_model_files(graph, folder), feeds), run(model.SerializeToString(), feeds), strict=True
    ):
        assert np.array_equal(ours, theirs)
    return graph
