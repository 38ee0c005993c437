"""Seeds of any size for tests of transfers: one matrix product, its weights random and stored bit by bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from seed_exporter.build import draft
from seed_exporter.build.streams import encode
from seed_exporter.graph.model import Graph, Weight, find_uses
from seed_exporter.quantize import allocate
from seed_runtime.assembly.assemble import decode_streams
from seed_runtime.format.dtypes import FLOAT32
from seed_runtime.format.header import ModelInfo
from tests.conftest import ROOT

EXAMPLE = ROOT / "tests" / "golden" / "example.seed"
"""630 bytes, with a golden sample."""
EXAMPLE_NAME = "tiny"


def make_seed(
    path: Path,
    *,
    width: int = 16,
    version: int = 1,
    model_id: str = "product",
    working_bytes: int = 0,
) -> Path:
    """`y = x @ w + version`: float32 x of (batch, width). It takes some 3.4 * width ** 2 bytes."""
    rng = np.random.default_rng(version)
    bias = np.full(width, version, np.float32)
    arrays = {"w": rng.standard_normal((width, width), dtype=np.float32), "b": bias}
    weights = {name: Weight(name, FLOAT32, array.shape, array) for name, array in arrays.items()}
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Add", ["m", "b"], ["y"])],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", width])],
        [TensorProto(name=name, data_type=TensorProto.FLOAT, dims=array.shape) for name, array in arrays.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    for name, uses in find_uses(proto, set(weights)).items():
        weights[name].uses = uses
    made = Graph(proto, weights)
    streams = encode(made, {name: allocate.exact(weight) for name, weight in weights.items()}, jobs=1)
    model = ModelInfo(model_id, version, draft.MIN_RUNTIME, made.parameters, made.distinct_bytes)
    seed = draft.build(made, streams, model)
    digest = decode_streams(
        seed.header, lambda index, _: iter([memoryview(chunk) for chunk in streams[index].chunks]), lambda data: None
    )
    header = replace(seed.header, weights=replace(seed.header.weights, digest=digest))
    if working_bytes:
        header = replace(header, weights=replace(header.weights, working_bytes=working_bytes))
    replace(seed, header=header).write(path)
    return path
