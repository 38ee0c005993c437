"""Random channels of models of many kinds of layers are dead, and outputs stay what they were."""

from __future__ import annotations

import numpy as np
import pytest

from tests.exporter.support.pruned_models import Builder, shrunk


def dead(b: Builder, count: int, share: float) -> list[int]:
    return [int(each) for each in np.flatnonzero(b.rng.random(count) < share)]


def image_model(b: Builder, share: float) -> str:
    def conv(value: str, name: str, out: int, into: int, side: int = 1, **rest: object) -> str:
        made = b.conv(value, name, out, into, side, dead=dead(b, out, share), bias=b.rng.random() < 0.5, **rest)
        return b.node(str(b.rng.choice(["Relu", "Sigmoid", "HardSwish", "Identity"])), made)

    stream = conv("x", "stem", 16, 3, 3, strides=[2, 2])
    for block in range(3):
        wide = conv(stream, f"{block}.wide", 24, 16)
        deep = conv(wide, f"{block}.deep", 24, 1, 3, group=24)
        gate = b.node("GlobalAveragePool", deep)
        gate = conv(conv(gate, f"{block}.less", 8, 24), f"{block}.more", 24, 8)
        deep = b.node("Mul", deep, b.node("HardSigmoid", gate))
        stream = b.node("Add", stream, conv(deep, f"{block}.out", 16, 24))
    one, two = b.nodes("Split", 2, stream, b.constant([6, 10]), axis=1)
    grouped = conv(two, "grouped", 20, 5, 3, group=2)
    joined = b.node("Concat", grouped, one, b.node("MaxPool", stream, kernel_shape=[3, 3], pads=[1] * 4), axis=1)
    flat = b.node("Flatten", b.node("AveragePool", conv(joined, "join", 12, 42), kernel_shape=[2, 2], strides=[2, 2]))
    fc = b.weight("fc", 9, 48, dead=dead(b, 48, share / 2), axis=1)
    return b.node("Gemm", flat, fc, b.weight("fc.bias", 9), transB=1)


def text_model(b: Builder, share: float) -> str:
    def dense(value: str, name: str, into: int, out: int) -> str:
        weight = b.weight(name, into, out, dead=dead(b, out, share), axis=1)
        return b.node("Add", b.node("MatMul", value, weight), b.weight(f"{name}.bias", out))

    def dead_heads(value: str) -> str:
        kept = (b.rng.random(4) > share).repeat(8).astype(np.float32)
        return b.node("Mul", value, b.constant(kept))

    stream = "x"
    for block in range(2):
        parts = [dense(stream, f"{block}.{name}", 32, 32) for name in "qkv"]
        parts[2] = dead_heads(parts[2])
        q, k, v = (
            b.node("Transpose", b.node("Reshape", part, b.constant([0, 0, 4, 8])), perm=[0, 2, 1, 3]) for part in parts
        )
        scores = b.node("MatMul", q, b.node("Transpose", k, perm=[0, 1, 3, 2]))
        mixed = b.node("MatMul", b.node("Softmax", scores, axis=-1), v)
        flat = b.node("Reshape", b.node("Transpose", mixed, perm=[0, 2, 1, 3]), b.constant([0, 0, 32]))
        stream = b.node("Add", stream, dense(flat, f"{block}.o", 32, 32))
        scale = b.constant(np.ones(32, np.float32))
        normal = b.node("LayerNormalization", stream, scale, axis=-1)
        wide = b.node("Erf", dense(normal, f"{block}.up", 32, 64))
        stream = b.node("Add", stream, dense(wide, f"{block}.down", 64, 32))
    return stream


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("rng_seed", range(4))
def test_outputs_stay_whatever_channels_of_an_image_model_are_dead(rng_seed: int, share: float):
    b = Builder(x=["n", 3, 8, 8])
    b.rng = np.random.default_rng(rng_seed)
    graph, _ = shrunk(b, image_model(b, share))
    assert graph.parameters < (1 - share / 5) * b.parameters


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("rng_seed", range(4))
def test_outputs_stay_whatever_channels_of_a_text_model_are_dead(rng_seed: int, share: float):
    b = Builder(x=["n", "t", 32])
    b.rng = np.random.default_rng(rng_seed)
    graph, _ = shrunk(b, text_model(b, share), n=2, t=5)
    assert graph.parameters < (1 - share / 5) * b.parameters
