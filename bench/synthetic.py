"""Build models of known shapes with drawn weights: GPT-2, ResNet-50, MobileNetV2, and a billion parameters.

They need no public file, so anyone can repeat the figures. The graphs have the cost of such models, but compute
nothing useful.

How a weight is drawn: entry = row scale * column scale * v / sqrt(rows), with v half of the time normal and half
of the time Laplace, both of variance 1, and scales exp(0.3 * normal), as trained matrices show them. Blocks that
repeat may share their numbers (`distinct`): this doesn't help a decoder, and drawing a billion takes a minute.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from bench.architectures import MOBILENET_V2
from seed_exporter.graph.index import with_uses
from seed_exporter.graph.model import Graph, Weight
from seed_runtime.format.dtypes import FLOAT32

_SCALE_SPREAD = 0.3


def gpt2(layers: int = 12, width: int = 768, tokens: int = 50257, distinct: int | None = None) -> Graph:
    """Build the matrices of GPT-2 small, 124 M parameters: tied embeddings, and four matrices per block.

    The graph has a gate in place of attention, so that sessions stay cheap.
    """
    build = _Builder(seed=2)
    hidden = build.node("Add", build.node("Gather", build.weight("wte", tokens, width), "ids"),
                        build.weight("wpe", 1024, width, rows=slice(0, 1)))  # fmt: skip
    for layer in range(layers):
        name, like = f"h{layer}", f"h{layer % (distinct or layers)}"
        qkv = build.node("MatMul", hidden, build.weight(f"{name}.attn", width, 3 * width, like=f"{like}.attn"))
        q, k, v = build.nodes("Split", 3, qkv, axis=-1, num_outputs=3)
        mixed = build.node("Mul", build.node("Sigmoid", build.node("Mul", q, k)), v)
        hidden = build.node("Add", hidden, build.node(
            "MatMul", mixed, build.weight(f"{name}.proj", width, width, like=f"{like}.proj")))  # fmt: skip
        wide = build.node("MatMul", hidden, build.weight(f"{name}.fc", width, 4 * width, like=f"{like}.fc"))
        hidden = build.node("Add", hidden, build.node(
            "MatMul", build.node("Relu", wide),
            build.weight(f"{name}.out", 4 * width, width, like=f"{like}.out")))  # fmt: skip
    build.output(hidden, ["batch", "tokens", width])
    return build.graph([helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "tokens"])])


def billion() -> Graph:
    """Build GPT-2's shapes at 1,600 wide and 30 blocks: 1.0 G parameters, two distinct blocks in turn."""
    return gpt2(layers=30, width=1600, distinct=2)


def resnet50(classes: int = 1000, biases: bool = False) -> Graph:
    """Build ResNet-50's convolutions and classifier with batch norms folded, 25.5 M parameters."""
    build = _Builder(seed=50, biases=biases)
    hidden = build.convolution("input", "stem", 64, 3, 7, stride=2)
    hidden = build.node("MaxPool", hidden, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = 64
    for stage, (blocks, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512))):
        for block in range(blocks):
            name, stride = f"s{stage}b{block}", 2 if stage and not block else 1
            inner = build.node("Relu", build.convolution(hidden, f"{name}.a", width, channels, 1))
            inner = build.node("Relu", build.convolution(inner, f"{name}.b", width, width, 3, stride=stride))
            inner = build.convolution(inner, f"{name}.c", 4 * width, width, 1)
            if not block:
                hidden = build.convolution(hidden, f"{name}.down", 4 * width, channels, 1, stride=stride)
            hidden = build.node("Relu", build.node("Add", hidden, inner))
            channels = 4 * width
    pooled = build.node("Flatten", build.node("GlobalAveragePool", hidden))
    build.output(build.dense(pooled, "fc", classes, channels), ["batch", classes])
    return build.graph([helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 224, 224])])


def mobilenet_v2(classes: int = 1000, biases: bool = False) -> Graph:
    """Build MobileNetV2's convolutions and classifier with batch norms folded, 3.5 M parameters."""
    build = _Builder(seed=52, biases=biases)

    def clipped(value: str) -> str:
        return build.node("Clip", value, build.scalar("zero", 0.0), build.scalar("six", 6.0))

    hidden = clipped(build.convolution("input", "stem", 32, 3, 3, stride=2))
    channels, number = 32, 0
    for factor, width, repeats, first in MOBILENET_V2:
        for repeat in range(repeats):
            name, wide, inner = f"b{number}", factor * channels, hidden
            stride = first if not repeat else 1
            if factor > 1:
                inner = clipped(build.convolution(inner, f"{name}.wide", wide, channels, 1))
            inner = clipped(build.convolution(inner, f"{name}.deep", wide, 1, 3, stride=stride, group=wide))
            inner = build.convolution(inner, f"{name}.out", width, wide, 1)
            hidden = build.node("Add", hidden, inner) if repeat else inner
            channels, number = width, number + 1
    hidden = clipped(build.convolution(hidden, "head", 1280, channels, 1))
    pooled = build.node("Flatten", build.node("GlobalAveragePool", hidden))
    build.output(build.dense(pooled, "fc", classes, 1280), ["batch", classes])
    return build.graph([helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 224, 224])])


class _Builder:
    def __init__(self, seed: int, biases: bool = False) -> None:
        self._biases = biases
        self._random = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, Weight] = {}
        self._drawn: dict[str, np.ndarray] = {}
        self._scalars: dict[str, np.float32] = {}
        self._outputs: list[onnx.ValueInfoProto] = []

    def node(self, op: str, *inputs: str, **attributes: object) -> str:
        return self.nodes(op, 1, *inputs, **attributes)[0]

    def nodes(self, op: str, count: int, *inputs: str, **attributes: object) -> list[str]:
        outputs = [f"{op.lower()}{len(self._nodes)}.{index}" for index in range(count)]
        self._nodes.append(helper.make_node(op, list(inputs), outputs, **attributes))
        return outputs

    def weight(self, name: str, *shape: int, like: str | None = None, rows: slice | None = None) -> str:
        """Add a weight and return its name in the graph; with `rows`, of its first row, which alone is read."""
        if (like or name) not in self._drawn:
            self._drawn[like or name] = drawn(shape, self._random)
        self._weights[name] = Weight(name, FLOAT32, shape, self._drawn[like or name])
        if rows is None:
            return name
        return self.node("ReduceMean", name, keepdims=1)

    def scalar(self, name: str, value: float) -> str:
        self._scalars[name] = np.float32(value)
        return name

    def convolution(
        self, source: str, name: str, out: int, into: int, side: int, stride: int = 1, group: int = 1
    ) -> str:
        inputs, pad = [source, self.weight(name, out, into, side, side)], [side // 2] * 4
        if self._biases:
            inputs.append(self.weight(f"{name}.bias", out))
        return self.node("Conv", *inputs, strides=[stride] * 2, pads=pad, group=group)

    def dense(self, source: str, name: str, out: int, into: int) -> str:
        inputs = [source, self.weight(name, out, into)]
        if self._biases:
            inputs.append(self.weight(f"{name}.bias", out))
        return self.node("Gemm", *inputs, transB=1)

    def output(self, name: str, shape: list[str | int]) -> None:
        self._nodes.append(helper.make_node("Identity", [name], ["output"]))
        self._outputs.append(helper.make_tensor_value_info("output", TensorProto.FLOAT, shape))

    def graph(self, inputs: list[onnx.ValueInfoProto]) -> Graph:
        proto = helper.make_graph(self._nodes, "g", inputs, self._outputs)
        for weight in self._weights.values():
            proto.initializer.add(name=weight.name, data_type=TensorProto.FLOAT, dims=weight.shape)
        for name, value in self._scalars.items():
            proto.initializer.append(onnx.numpy_helper.from_array(np.array(value), name))
        model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        return with_uses(Graph(model, self._weights))


def drawn(shape: Sequence[int], random: np.random.Generator) -> np.ndarray:
    """Draw weights of `shape`, float32; rows are the first axis."""
    rows, cols = shape[0], math.prod(shape[1:])
    # A pool of a million normal and a million Laplace numbers, from which weights are drawn in changing order.
    pool = np.concatenate([random.standard_normal(1 << 20), random.laplace(scale=math.sqrt(0.5), size=1 << 20)])
    pool = pool.astype(np.float32)
    values = pool.take(random.integers(0, pool.size, rows * cols, dtype=np.uint32)).reshape(rows, cols)
    values *= np.exp(_SCALE_SPREAD * random.standard_normal((rows, 1)), dtype=np.float32) / np.float32(math.sqrt(rows))
    values *= np.exp(_SCALE_SPREAD * random.standard_normal((1, cols)), dtype=np.float32)
    return values.reshape(shape)
