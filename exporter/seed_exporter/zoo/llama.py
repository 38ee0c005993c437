"""Build decoders of the Llama architecture from a GGUF file's Q4_1 and Q8_0 blocks, with their integers unchanged.

The graph takes a past of keys and values and gives the present, under the names of optimum's exports. Matrices are
operators MatMulNBits. Q4_1 is `w = scale * q + low` and MatMulNBits computes `scale * (q - 8)`, so `low + 8 * scale` is
multiplied by the sums of the input's blocks. The table of tokens is there once, as Q8_0: MatMulNBits of 8 bits reads
the bytes whose rows Gather selects.

Source: ggml's block layouts; H. Touvron et al., "LLaMA: Open and Efficient Foundation Language Models" (2023); J. Su et
al., "RoFormer: Enhanced Transformer with Rotary Position Embedding" (2021); ONNX Runtime's ContribOperators.md,
MatMulNBits, of 8 bits since 1.22.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper

from seed_exporter.zoo.graph_builder import GraphBuilder

BLOCK: Final = 32
"""Weights along the input axis that share a scale."""
_OPSET, _IR_VERSION = 17, 8
_MICROSOFT: Final = "com.microsoft"
_HIDDEN: Final = -1e9
"""What is added to the scores of tokens that come later."""


@dataclass(frozen=True)
class Sizes:
    """Numbers of an architecture."""

    width: int
    layers: int
    heads: int
    kv_heads: int
    epsilon: float
    rope_base: float
    context: int

    @property
    def head(self) -> int:
        """Width of a head."""
        return self.width // self.heads


def past(layers: int) -> dict[str, str]:
    """Return the outputs of a decoder by the inputs that get them in the next call."""
    names = [f"{layer}.{part}" for layer in range(layers) for part in ("key", "value")]
    return {f"past_key_values.{name}": f"present.{name}" for name in names}


def decoder(sizes: Sizes, weights: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """Return the model.

    Args:
        sizes: of the architecture.
        weights: bytes of blocks, a row for each output, or vectors of floats, by GGUF's names.
    """
    return _Decoder(sizes, weights).whole()


class _Decoder(GraphBuilder):
    """Nodes of a decoder; methods return a value's name."""

    def __init__(self, sizes: Sizes, weights: Mapping[str, np.ndarray]) -> None:
        super().__init__(weights)
        self.sizes = sizes

    def whole(self) -> onnx.ModelProto:
        """Return the model."""
        sizes = self.sizes
        positions = self._positions()
        x = self._embedding()
        for layer in range(sizes.layers):
            x = self._layer(x, layer, positions)
        logits = self._product(self._norm(x, "output_norm.weight"), "tokens.codes", "tokens.scales", 8)
        self._nodes.append(helper.make_node("Identity", [logits], ["logits"], "output"))
        rows = len(self.weights["token_embd.weight"])
        shapes = [(each, [1, sizes.kv_heads, "past", sizes.head]) for each in past(sizes.layers)]
        grown = [(each, [1, sizes.kv_heads, "total", sizes.head]) for each in past(sizes.layers).values()]
        graph = helper.make_graph(
            self._nodes,
            "decoder",
            [helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, "sequence"]), *map(_floats, shapes)],
            [*map(_floats, [("logits", [1, "sequence", rows]), *grown])],
            list(self._initializers.values()),
        )
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)

    def _numbers(self, *values: int) -> str:
        return self.constant("n" + "_".join(map(str, values)), np.array(values, np.int64))

    def _scalar(self, value: int) -> str:
        return self.constant(f"s{value}", np.array(value, np.int64))

    def _positions(self) -> tuple[str, str, str]:
        """Return what hides later tokens, and the cosines and sines of the rotations of the new ones."""
        before = self.node("Shape", ["past_key_values.0.key"], start=2, end=3)
        length = self.node("Shape", ["input_ids"], start=1, end=2)
        total = self.node("Add", [before, length])
        value = onnx.numpy_helper.from_array(np.array([_HIDDEN], np.float32))
        square = self.node("Concat", [length, total], axis=0)
        hidden = self.node("ConstantOfShape", [square], value=value)
        after = self.node("Squeeze", [self.node("Add", [before, self._numbers(1)])])
        mask = self.node("Trilu", [hidden, after], upper=1)
        ends = [self.node("Squeeze", [each]) for each in (before, total)]
        places = self.node("Cast", [self.node("Range", [*ends, self._scalar(1)])], to=TensorProto.FLOAT)
        rates = self.sizes.rope_base ** -(np.arange(0, self.sizes.head, 2) / self.sizes.head)
        column = self.node("Unsqueeze", [places, self._numbers(1)])
        angles = self.node("Mul", [column, self.constant("rope_rates", rates.astype(np.float32))])
        return mask, self.node("Cos", [angles]), self.node("Sin", [angles])

    def _embedding(self) -> str:
        codes, scales = _q8_0(self.weights["token_embd.weight"])
        blocks = (codes.astype(np.int16) + 128).astype(np.uint8).reshape(len(codes), -1, BLOCK)
        rows = self.node("Gather", [self.constant("tokens.codes", blocks), "input_ids"])
        steps = self.node("Gather", [self.constant("tokens.scales", scales.astype(np.float32)), "input_ids"])
        floats = self.node("Cast", [rows], to=TensorProto.FLOAT)
        centered = self.node("Sub", [floats, self.constant("middle", np.float32(128))])
        product = self.node("Mul", [centered, self.node("Unsqueeze", [steps, self._numbers(-1)])])
        return self.node("Reshape", [product, self._numbers(0, 0, self.sizes.width)])

    def _layer(self, x: str, layer: int, positions: tuple[str, str, str]) -> str:
        name = f"blk.{layer}."
        normed = self._norm(x, f"{name}attn_norm.weight")
        sums = self._sums(normed)
        parts = [self._linear(normed, sums, f"{name}attn_{part}.weight") for part in "qkv"]
        mixed = self._attention(parts, layer, positions)
        x = self.node("Add", [x, self._linear(mixed, self._sums(mixed), f"{name}attn_output.weight")])
        normed = self._norm(x, f"{name}ffn_norm.weight")
        sums = self._sums(normed)
        gate = self._linear(normed, sums, f"{name}ffn_gate.weight")
        gate = self.node("Mul", [gate, self.node("Sigmoid", [gate])])
        inner = self.node("Mul", [gate, self._linear(normed, sums, f"{name}ffn_up.weight")])
        return self.node("Add", [x, self._linear(inner, self._sums(inner), f"{name}ffn_down.weight")])

    def _attention(self, parts: Sequence[str], layer: int, positions: tuple[str, str, str]) -> str:
        # (batch, kv head, group, tokens, head): a key serves a group of queries by broadcasting.
        sizes = self.sizes
        group = sizes.heads // sizes.kv_heads
        split = []
        for part, count in zip(parts, (group, 1, 1), strict=True):
            heads = self.node("Reshape", [part, self._numbers(0, 0, sizes.kv_heads, count, sizes.head)])
            split.append(self.node("Transpose", [heads], perm=[0, 2, 3, 1, 4]))
        query, key = (self._rotated(each, positions) for each in split[:2])
        key, value = self._joined(key, f"{layer}.key"), self._joined(split[2], f"{layer}.value")
        scores = self.node("MatMul", [query, self.node("Transpose", [key], perm=[0, 1, 2, 4, 3])])
        scores = self.node("Mul", [scores, self.constant("temper", np.float32(sizes.head**-0.5))])
        shares = self.node("Softmax", [self.node("Add", [scores, positions[0]])], axis=-1)
        mixed = self.node("Transpose", [self.node("MatMul", [shares, value])], perm=[0, 3, 1, 2, 4])
        return self.node("Reshape", [mixed, self._numbers(0, 0, sizes.width)])

    def _joined(self, new: str, name: str) -> str:
        new, present = self.node("Squeeze", [new, self._numbers(2)]), f"present.{name}"
        self._nodes.append(helper.make_node("Concat", [f"past_key_values.{name}", new], [present], present, axis=2))
        return self.node("Unsqueeze", [present, self._numbers(2)])

    def _rotated(self, x: str, positions: tuple[str, str, str]) -> str:
        # GGUF's converter orders the rows of q and k so that neighbors make a pair. Pairs need not be put together
        # again: queries and keys are permuted alike.
        _, cos, sin = positions
        pairs = self.node("Reshape", [x, self._numbers(0, 0, 0, -1, self.sizes.head // 2, 2)])
        even, odd = (self.node("Gather", [pairs, self._scalar(number)], axis=5) for number in (0, 1))
        left = self.node("Sub", [self.node("Mul", [even, cos]), self.node("Mul", [odd, sin])])
        right = self.node("Add", [self.node("Mul", [even, sin]), self.node("Mul", [odd, cos])])
        return self.node("Concat", [left, right], axis=4)

    def _norm(self, x: str, name: str) -> str:
        mean = self.node("ReduceMean", [self.node("Mul", [x, x])], axes=[-1], keepdims=1)
        epsilon = self.constant("epsilon", np.float32(self.sizes.epsilon))
        root = self.node("Sqrt", [self.node("Add", [mean, epsilon])])
        scale = self.constant(name, self.weights[name].astype(np.float32))
        return self.node("Mul", [self.node("Div", [x, root]), scale])

    def _sums(self, x: str) -> str:
        blocks = self.node("Reshape", [x, self._numbers(0, 0, -1, BLOCK)])
        return self.node("ReduceSum", [blocks, self._numbers(-1)], keepdims=0)

    def _linear(self, x: str, sums: str, name: str) -> str:
        codes, scales, lows = _q4_1(self.weights[name])
        steps = scales.astype(np.float32)
        pairs = codes.reshape(len(codes), -1, BLOCK // 2, 2)
        packed = self.constant(f"{name}.codes", pairs[..., 0] | pairs[..., 1] << 4)
        product = self._product(x, packed, self.constant(f"{name}.scales", steps), 4)
        offsets = self.constant(f"{name}.offsets", (lows.astype(np.float32) + 8 * steps).T)
        return self.node("Add", [product, self.node("MatMul", [sums, offsets])])

    def _product(self, x: str, codes: str, scales: str, bits: int) -> str:
        rows, blocks, _ = self._initializers[codes].dims
        return self.node(
            "MatMulNBits", [x, codes, scales], domain=_MICROSOFT, N=rows, K=blocks * BLOCK, bits=bits,
            block_size=BLOCK, accuracy_level=4,
        )  # fmt: skip


def _floats(value: tuple[str, Sequence[Any]]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(value[0], TensorProto.FLOAT, list(value[1]))


def _q4_1(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return codes (out, in) uint8, scales and lows (out, in / 32) float16 of Q4_1 bytes.

    A block: scale f16, low f16, 16 bytes with the first half of the codes in the low nibbles.
    """
    blocks = rows.reshape(len(rows), -1, 20)
    codes = np.concatenate([blocks[:, :, 4:] & 15, blocks[:, :, 4:] >> 4], axis=2)
    scales, lows = (blocks[:, :, at : at + 2].copy().view("<f2")[:, :, 0] for at in (0, 2))
    return codes.reshape(len(rows), -1), scales, lows


def _q8_0(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return codes (rows, columns) int8 and scales (rows, columns / 32) float16 of Q8_0 bytes.

    A block: scale f16, 32 signed bytes.
    """
    blocks = rows.reshape(len(rows), -1, 34)
    codes = blocks[:, :, 2:].copy().view(np.int8).reshape(len(rows), -1)
    return codes, blocks[:, :, 0:2].copy().view("<f2")[:, :, 0]
