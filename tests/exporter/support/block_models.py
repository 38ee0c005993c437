"""One small model of images and one of text, of the blocks that public models are made of. Holds no tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tests.exporter.support.pruned_models import Builder

Dead = Mapping[str, Sequence[int]]
"""Dead channels of layers by name."""


def image_model(b: Builder, dead: Dead | None = None, norms: bool = False) -> str:
    """A stem, a residual block with a depthwise convolution, a grouped convolution, and parts that are joined.

    Args:
        b: with an input x of `(n, 3, 16, 16)`.
        dead: channels of stem, wide, deep, out, side, grouped, last.
        norms: batch norms behind convolutions.
    """

    def conv(value: str, name: str, out: int, into: int, side: int = 1, **rest: int) -> str:
        made = b.conv(value, name, out, into, side, dead=(dead or {}).get(name, ()), **rest)
        if not norms:
            return made
        bounds = {"scale": (0.5, 1.5), "shift": (-0.3, 0.3), "mean": (-0.3, 0.3), "variance": (0.5, 2)}
        parts = [
            b.constant(b.rng.uniform(*each, out).astype(np.float32), f"{name}.{part}") for part, each in bounds.items()
        ]
        return b.node("BatchNormalization", made, *parts)

    stem = b.node("Relu", conv("x", "stem", 16, 3, 3))
    wide = b.node("Relu", conv(stem, "wide", 32, 16))
    deep = b.node("Relu", conv(wide, "deep", 32, 1, 3, group=32))
    stream = b.node("Add", stem, conv(deep, "out", 16, 32))
    grouped = conv(conv(stream, "side", 16, 16), "grouped", 24, 8, 3, group=2)
    joined = b.node("Concat", b.node("Relu", grouped), stream, axis=1)
    pooled = b.node("Flatten", b.node("GlobalAveragePool", conv(joined, "last", 24, 40)))
    return b.node("Gemm", pooled, b.weight("fc", 9, 24), b.weight("fc.bias", 9), transB=1)


def text_model(b: Builder, dead: Dead | None = None) -> str:
    """A table, attention with four heads, and a dense layer.

    Args:
        b: with an input ids of `(n, 12)`, whole numbers as floats.
        dead: rows of table, and columns of q, k, v, o, up, down, with their biases.
    """
    dead = dead or {}

    def dense(value: str, name: str, into: int, out: int) -> str:
        product = b.node("MatMul", value, b.weight(name, into, out, dead=dead.get(name, ()), axis=1))
        return b.node("Add", product, b.weight(f"{name}.bias", out, dead=dead.get(name, ())))

    def heads(value: str) -> str:
        return b.node("Transpose", b.node("Reshape", value, b.constant([0, 0, 4, 8])), perm=[0, 2, 1, 3])

    stream = b.node("Gather", b.weight("table", 400, 32, dead=dead.get("table", ())), b.node("Cast", "ids", to=7))
    q, k, v = (heads(dense(stream, name, 32, 32)) for name in "qkv")
    scores = b.node("Softmax", b.node("MatMul", q, b.node("Transpose", k, perm=[0, 1, 3, 2])), axis=-1)
    mixed = b.node("Transpose", b.node("MatMul", scores, v), perm=[0, 2, 1, 3])
    stream = b.node("Add", stream, dense(b.node("Reshape", mixed, b.constant([0, 0, 32])), "o", 32, 32))
    normal = b.node("LayerNormalization", stream, b.constant(np.ones(32, np.float32)), axis=-1)
    return b.node("Add", stream, dense(b.node("Erf", dense(normal, "up", 32, 64)), "down", 64, 32))
