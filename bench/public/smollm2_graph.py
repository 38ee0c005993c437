"""Build an ONNX graph of the Llama architecture from a GGUF file, with its integers unchanged.

Q4_1: `w = scale * q + low` for q in 0..15 and blocks of 32 along the input axis. ONNX's
zero points are integers, so `low` can't be one; its share of a product is computed apart, from
the sums of the blocks of the input: `x W = x (scale q) + sums(x) low`. Q8_0 is `scale * q`.
Weights are stored input axis first, so that a runtime may take DequantizeLinear and MatMul
for one kernel. Scales and lows stay fp16 and are cast, as DequantizeLinear gives what its scale is.
Source: ggml's block layouts; Touvron et al. 2023 (Llama), Su et al. 2021 (rotary positions).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from gguf import GGUFReader
from onnx import TensorProto, helper, numpy_helper

OPSET = 21  # the first with blocked DequantizeLinear
BLOCK = 32


def build(source: Path, target: Path) -> None:
    """Write the ONNX file of a GGUF file: `input_ids` (batch, sequence) to `logits`."""
    builder = _Builder(GGUFReader(source))
    model = builder.model()
    onnx.checker.check_model(model)
    onnx.save(model, str(target))


class _Builder:
    """Nodes and initializers in the order of computation; methods return a value's name."""

    def __init__(self, reader: GGUFReader) -> None:
        self.tensors = {tensor.name: tensor for tensor in reader.tensors}
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.constants: set[str] = set()
        read = {name: _field(reader, f"llama.{name}") for name in _FIELDS}
        self.width = int(read["embedding_length"])
        self.layers = int(read["block_count"])
        self.heads = int(read["attention.head_count"])
        self.kv_heads = int(read["attention.head_count_kv"])
        self.head = self.width // self.heads
        self.eps = float(read["attention.layer_norm_rms_epsilon"])
        self.base = float(read["rope.freq_base"])

    def model(self) -> onnx.ModelProto:
        """Return the whole model."""
        self._positions()
        x = self._embedding()
        for index in range(self.layers):
            x = self._layer(x, f"blk.{index}")
        self._logits(self._norm(x, "output_norm.weight"))
        ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])
        vocabulary = self.tensors["token_embd.weight"].data.shape[0]
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "sequence", vocabulary])
        graph = helper.make_graph(self.nodes, "smollm2", [ids], [logits], self.weights)
        opset = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opset, ir_version=10)

    def op(self, kind: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        """Append a node and return its output's name."""
        name = out or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def weight(self, name: str, values: np.ndarray) -> str:
        """Store an initializer and return its name."""
        self.weights.append(numpy_helper.from_array(np.asarray(values, order="C"), name))
        return name

    def const(self, values: Any, dtype: type = np.int64) -> str:
        """Store a small constant once and return its name."""
        array: np.ndarray = np.array(values, dtype)
        name = f"const_{array.dtype}_{'x'.join(map(str, array.ravel().tolist()))}_{array.ndim}"
        if name not in self.constants:
            self.constants.add(name)
            self.weight(name, array)
        return name

    def _positions(self) -> None:
        # A causal mask (sequence, sequence) and the rotations' sines and cosines (sequence, head / 2).
        length = self.op("Shape", "input_ids", start=1, end=2)
        square = self.op("Concat", length, length, axis=0)
        value = numpy_helper.from_array(np.array([-1e9], np.float32))
        masked = self.op("ConstantOfShape", square, value=value)
        self.op("Trilu", masked, self.const(1), out="mask", upper=1)
        scalar = self.op("Squeeze", length)
        places = self.op("Range", self.const(0), scalar, self.const(1))
        places = self.op("Cast", places, to=TensorProto.FLOAT)
        places = self.op("Unsqueeze", places, self.const([1]))
        rates = self.base ** -(np.arange(0, self.head, 2) / self.head)
        angles = self.op("Mul", places, self.weight("rope_rates", rates.astype(np.float32)))
        # Broadcast over (batch, kv head, group, sequence, head / 2).
        self.op("Cos", angles, out="rope_cos")
        self.op("Sin", angles, out="rope_sin")

    def _embedding(self) -> str:
        codes, scales = _q8_0(self.tensors["token_embd.weight"].data)
        self.weight("token_embd.codes", codes)
        self.weight("token_embd.scales", scales)
        rows = self.op("Gather", "token_embd.codes", "input_ids")
        steps = self.op("Gather", "token_embd.scales", "input_ids")
        steps = self.op("Cast", steps, to=TensorProto.FLOAT)
        return self.op("DequantizeLinear", rows, steps, axis=2, block_size=BLOCK)

    def _logits(self, x: str) -> None:
        # The embedding once more: the same integers, not a copy.
        steps = self.op("Cast", "token_embd.scales", to=TensorProto.FLOAT)
        table = self.op("DequantizeLinear", "token_embd.codes", steps, axis=1, block_size=BLOCK)
        table = self.op("Transpose", table, perm=[1, 0])
        self.op("MatMul", x, table, out="logits")

    def _layer(self, x: str, prefix: str) -> str:
        normed = self._norm(x, f"{prefix}.attn_norm.weight")
        sums = self._sums(normed)
        query = self._linear(normed, sums, f"{prefix}.attn_q.weight")
        key = self._linear(normed, sums, f"{prefix}.attn_k.weight")
        value = self._linear(normed, sums, f"{prefix}.attn_v.weight")
        mixed = self._attention(query, key, value)
        x = self.op("Add", x, self._linear(mixed, self._sums(mixed), f"{prefix}.attn_output.weight"))
        normed = self._norm(x, f"{prefix}.ffn_norm.weight")
        sums = self._sums(normed)
        gate = self._linear(normed, sums, f"{prefix}.ffn_gate.weight")
        gate = self.op("Mul", gate, self.op("Sigmoid", gate))
        inner = self.op("Mul", gate, self._linear(normed, sums, f"{prefix}.ffn_up.weight"))
        return self.op("Add", x, self._linear(inner, self._sums(inner), f"{prefix}.ffn_down.weight"))

    def _attention(self, query: str, key: str, value: str) -> str:
        # (batch, kv head, group, sequence, head): a key serves a group of queries by broadcasting.
        group = self.heads // self.kv_heads
        query = self.op("Reshape", query, self.const([0, 0, self.kv_heads, group, self.head]))
        query = self._rotate(self.op("Transpose", query, perm=[0, 2, 3, 1, 4]))
        single = self.const([0, 0, self.kv_heads, 1, self.head])
        key = self.op("Transpose", self.op("Reshape", key, single), perm=[0, 2, 3, 1, 4])
        key = self.op("Transpose", self._rotate(key), perm=[0, 1, 2, 4, 3])
        value = self.op("Transpose", self.op("Reshape", value, single), perm=[0, 2, 3, 1, 4])
        scores = self.op("MatMul", query, key)
        scores = self.op("Mul", scores, self.const(self.head**-0.5, np.float32))
        shares = self.op("Softmax", self.op("Add", scores, "mask"), axis=-1)
        mixed = self.op("Transpose", self.op("MatMul", shares, value), perm=[0, 3, 1, 2, 4])
        return self.op("Reshape", mixed, self.const([0, 0, self.width]))

    def _rotate(self, x: str) -> str:
        # GGUF's converter orders the rows of q and k so that neighbours make a pair.
        pairs = self.op("Reshape", x, self.const([0, 0, 0, -1, self.head // 2, 2]))
        even = self.op("Gather", pairs, self.const(0), axis=5)
        odd = self.op("Gather", pairs, self.const(1), axis=5)
        left = self.op("Sub", self.op("Mul", even, "rope_cos"), self.op("Mul", odd, "rope_sin"))
        right = self.op("Add", self.op("Mul", even, "rope_sin"), self.op("Mul", odd, "rope_cos"))
        # Pairs need not be put back together: queries and keys are permuted alike.
        return self.op("Concat", left, right, axis=4)

    def _norm(self, x: str, name: str) -> str:
        mean = self.op("ReduceMean", self.op("Mul", x, x), self.const([-1]), keepdims=1)
        root = self.op("Sqrt", self.op("Add", mean, self.const(self.eps, np.float32)))
        scale = self.weight(name, self.tensors[name].data.astype(np.float32))
        return self.op("Mul", self.op("Div", x, root), scale)

    def _sums(self, x: str) -> str:
        blocks = self.op("Reshape", x, self.const([0, 0, -1, BLOCK]))
        return self.op("ReduceSum", blocks, self.const([-1]), keepdims=0)

    def _linear(self, x: str, sums: str, name: str) -> str:
        codes, scales, lows = _q4_1(self.tensors[name].data)
        packed = np.ascontiguousarray(codes.T).reshape(-1)
        nibbles = (packed[0::2] | packed[1::2] << 4).tobytes()
        stored = helper.make_tensor(f"{name}.codes", TensorProto.UINT4, codes.T.shape, nibbles, raw=True)
        self.weights.append(stored)
        steps = self.op("Cast", self.weight(f"{name}.scales", scales.T), to=TensorProto.FLOAT)
        offsets = self.op("Cast", self.weight(f"{name}.lows", lows.T), to=TensorProto.FLOAT)
        matrix = self.op("DequantizeLinear", stored.name, steps, axis=0, block_size=BLOCK)
        product = self.op("MatMul", x, matrix)
        return self.op("Add", product, self.op("MatMul", sums, offsets))


_FIELDS = (
    "embedding_length", "block_count", "attention.head_count", "attention.head_count_kv",
    "attention.layer_norm_rms_epsilon", "rope.freq_base",
)  # fmt: skip


def _field(reader: GGUFReader, name: str) -> Any:
    field = reader.get_field(name)
    if field is None:
        raise ValueError(f"the GGUF file has no {name}")
    return field.contents()


def _q4_1(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return codes (out, in) uint8, scales and lows (out, in / 32) float16 of Q4_1 bytes.

    A block: scale f16, low f16, 16 bytes with the first half of the codes in the low nibbles.
    """
    blocks = rows.reshape(rows.shape[0], -1, 20)
    codes = np.concatenate([blocks[:, :, 4:] & 15, blocks[:, :, 4:] >> 4], axis=2)
    scales = blocks[:, :, 0:2].copy().view("<f2")[:, :, 0]
    lows = blocks[:, :, 2:4].copy().view("<f2")[:, :, 0]
    return codes.reshape(rows.shape[0], -1), scales, lows


def _q8_0(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return codes (rows, columns) int8 and scales (rows, columns / 32) float16 of Q8_0 bytes.

    A block: scale f16, 32 signed bytes.
    """
    blocks = rows.reshape(rows.shape[0], -1, 34)
    codes = blocks[:, :, 2:].copy().view(np.int8).reshape(rows.shape[0], -1)
    return codes, blocks[:, :, 0:2].copy().view("<f2")[:, :, 0]
