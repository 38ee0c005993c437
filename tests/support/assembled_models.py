"""Assembled models for tests of sessions: model.onnx beside model.weights, made with onnx.helper."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper


def save_layers(folder: Path, width: int = 64, layers: int = 2) -> Path:
    """Write `y = relu(x @ w0) ...`: float32 x of (batch, width), its weights as external data."""
    nodes, tensors, value = [], [], "x"
    rng = np.random.default_rng(0)
    with (folder / "model.weights").open("wb") as weights:
        for number in range(layers):
            tensors.append(_external(f"w{number}", (width, width), weights.tell()))
            weights.write(rng.standard_normal((width, width), dtype=np.float32) / np.float32(width**0.5))
            nodes.append(helper.make_node("MatMul", [value, f"w{number}"], [f"m{number}"]))
            value = "y" if number == layers - 1 else f"r{number}"
            nodes.append(helper.make_node("Relu", [f"m{number}"], [value]))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", width])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", width])]
    return save(folder, nodes, inputs, outputs, tensors)


def save_tokens(folder: Path, most: int = 300) -> Path:
    """Write a model of two inputs, ids and mask of (batch, sequence), whose memory grows with sequence squared.

    Sequences longer than `most` fail, as with position embeddings.
    """
    sizes = ["batch", "sequence"]
    nodes = [
        helper.make_node("Cast", ["ids"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["mask"], ["g"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["f", "last"], ["column"]),
        helper.make_node("Unsqueeze", ["g", "middle"], ["row"]),
        helper.make_node("MatMul", ["column", "row"], ["square"]),
        helper.make_node("ReduceSum", ["square", "last"], ["total"], keepdims=0),
        helper.make_node("Shape", ["ids"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["length"]),
        helper.make_node("Sub", ["length", "one"], ["end"]),
        helper.make_node("Gather", ["positions", "end"], ["position"]),
        helper.make_node("Add", ["total", "position"], ["y"]),
    ]
    tensors = [
        helper.make_tensor("last", TensorProto.INT64, [1], [2]),
        helper.make_tensor("middle", TensorProto.INT64, [1], [1]),
        helper.make_tensor("one", TensorProto.INT64, [1], [1]),
        helper.make_tensor("positions", TensorProto.FLOAT, [most], np.zeros(most)),
    ]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, sizes) for name in ("ids", "mask")]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, sizes)]
    return save(folder, nodes, inputs, outputs, tensors)


def save(
    folder: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    tensors: list[onnx.TensorProto] | None = None,
) -> Path:
    graph = helper.make_graph(nodes, "test", inputs, outputs, tensors or [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder


def _external(name: str, shape: tuple[int, ...], offset: int) -> onnx.TensorProto:
    tensor = onnx.TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
    tensor.data_location = TensorProto.EXTERNAL
    size = 4 * int(np.prod(shape))
    for key, value in (("location", "model.weights"), ("offset", str(offset)), ("length", str(size))):
        tensor.external_data.add(key=key, value=value)
    return tensor
