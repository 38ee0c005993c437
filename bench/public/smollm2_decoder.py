"""Build SmolLM2 as a decoder with a key/value cache: keys and values of earlier tokens in, those of all tokens out.

Inputs and outputs have the names of optimum's exports: `past_key_values.0.key` and `present.0.key` of shape
(batch, heads, tokens, 64), and so on. Attention is GroupQueryAttention, as onnxruntime-genai's builder writes it: given
the same arrays for past and present it adds new tokens to them in place. The length of the text is that of
`attention_mask`. Norms are written as PyTorch's exporters do, which ONNX Runtime makes one node of.

Weights are one of:
    FLOATS: float32, what the GGUF file's integers stand for.
    PACKED: its integers themselves for MatMulNBits. Q4_1 is `w = scale * q + low`, and MatMulNBits computes
        `scale * (q - 8)`, so `low + 8 * scale` is multiplied by the sums of the input's blocks. The table of tokens
        stays Q8_0 and is there once: MatMulNBits of 8 bits reads the bytes whose rows Gather selects.
Source: ONNX Runtime's ContribOperators.md: MatMulNBits (needs 1.22 or later for 8 bits), GroupQueryAttention (wrong for
several tokens behind others in 1.19).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from gguf import GGUFReader
from onnx import TensorProto, helper

from .smollm2_graph import BLOCK, OPSET, _Builder, _q4_1, _q8_0

FLOATS: Final = "floats"
PACKED: Final = "packed"
MICROSOFT: Final = "com.microsoft"


def build(source: Path, target: Path, weights: str = PACKED) -> None:
    """Write the ONNX file of a GGUF file, with its weights in a file beside it: `.data` instead of `.onnx`."""
    model = _Decoder(GGUFReader(source), weights).model()
    onnx.save(model, str(target), save_as_external_data=True, location=target.with_suffix(".data").name)
    onnx.checker.check_model(str(target))


class _Decoder(_Builder):
    """The graph of `_Builder` with a past."""

    def __init__(self, reader: GGUFReader, weights: str) -> None:
        super().__init__(reader)
        self.kind = weights
        self.made = 0
        """Layers whose attention was made."""

    def model(self) -> onnx.ModelProto:
        self._positions()
        x = self._embedding()
        for index in range(self.layers):
            x = self._layer(x, f"blk.{index}")
        self._logits(self._norm(x, "output_norm.weight"))
        vocabulary = self.tensors["token_embd.weight"].data.shape[0]
        ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "sequence", vocabulary])
        mask = helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch", "total"])
        past, present = self._cache("past_key_values", "past"), self._cache("present", "present")
        graph = helper.make_graph(self.nodes, "smollm2", [ids, mask, *past], [logits, *present], self.weights)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        # The releases that take this version compute the attention of several tokens behind others.
        return helper.make_model(graph, opset_imports=opsets, ir_version=11)

    def _cache(self, name: str, length: str) -> list[onnx.ValueInfoProto]:
        shape = ["batch", self.kv_heads, length, self.head]
        names = [f"{name}.{index}.{part}" for index in range(self.layers) for part in ("key", "value")]
        return [helper.make_tensor_value_info(each, TensorProto.FLOAT, shape) for each in names]

    def _positions(self) -> None:
        total = self.op("Shape", "attention_mask", start=1, end=2)
        short = self.op("Cast", total, to=TensorProto.INT32)
        batch = self.op("Shape", "input_ids", start=0, end=1)
        self.op("Expand", self.op("Sub", short, self.const([1], np.int32)), batch, out="last_positions")
        self.op("Squeeze", short, out="total")
        places = self.op("Range", self.const(0), self.op("Squeeze", total), self.const(1))
        places = self.op("Unsqueeze", self.op("Cast", places, to=TensorProto.FLOAT), self.const([1]))
        rates = self.base ** -(np.arange(0, self.head, 2) / self.head)
        angles = self.op("Mul", places, self.weight("rope_rates", rates.astype(np.float32)))
        self.op("Cos", angles, out="rope_cos")
        self.op("Sin", angles, out="rope_sin")

    def _attention(self, query: str, key: str, value: str) -> str:
        names = [f"{self.made}.{part}" for part in ("key", "value")]
        past, present = ([f"{what}.{name}" for name in names] for what in ("past_key_values", "present"))
        self.made += 1
        read = [query, key, value, *past, "last_positions", "total", "rope_cos", "rope_sin"]
        made = [f"attention_{self.made}", *present]
        # GGUF's converter orders the rows of q and k so that neighbours make a pair.
        known = {"num_heads": self.heads, "kv_num_heads": self.kv_heads, "do_rotary": 1, "rotary_interleaved": 1}
        self.nodes.append(helper.make_node("GroupQueryAttention", read, made, made[0], domain=MICROSOFT, **known))
        return made[0]

    def _norm(self, x: str, name: str) -> str:
        square = self.op("Pow", x, self.const(2, np.float32))
        mean = self.op("ReduceMean", square, self.const([-1]), keepdims=1)
        root = self.op("Sqrt", self.op("Add", mean, self.const(self.eps, np.float32)))
        scale = self.weight(name, self.tensors[name].data.astype(np.float32))
        return self.op("Mul", self.op("Div", x, root), scale)

    def _embedding(self) -> str:
        codes, scales = _q8_0(self.tensors["token_embd.weight"].data)
        if self.kind == FLOATS:
            steps = np.repeat(scales.astype(np.float32), BLOCK, axis=1)
            return self.op("Gather", self.weight("token_embd", codes * steps), "input_ids")
        blocks = (codes.astype(np.int16) + 128).astype(np.uint8).reshape(len(codes), -1, BLOCK)
        rows = self.op("Gather", self.weight("token_embd.codes", blocks), "input_ids")
        steps = self.op("Gather", self.weight("token_embd.scales", scales.astype(np.float32)), "input_ids")
        centred = self.op("Sub", self.op("Cast", rows, to=TensorProto.FLOAT), self.const(128, np.float32))
        product = self.op("Mul", centred, self.op("Unsqueeze", steps, self.const([-1])))
        return self.op("Reshape", product, self.const([0, 0, self.width]))

    def _logits(self, x: str) -> None:
        if self.kind == FLOATS:
            self.op("MatMul", x, self.op("Transpose", "token_embd", perm=[1, 0]), out="logits")
            return
        rows = self.tensors["token_embd.weight"].data.shape[0]
        self._packed(x, "token_embd.codes", "token_embd.scales", (rows, self.width), 8, out="logits")

    def _sums(self, x: str) -> str:
        return "" if self.kind == FLOATS else super()._sums(x)

    def _linear(self, x: str, sums: str, name: str) -> str:
        codes, scales, lows = _q4_1(self.tensors[name].data)
        steps = scales.astype(np.float32)
        if self.kind == FLOATS:
            spread = np.repeat(steps, BLOCK, axis=1), np.repeat(lows.astype(np.float32), BLOCK, axis=1)
            return self.op("MatMul", x, self.weight(name, (codes * spread[0] + spread[1]).T))
        pairs = codes.reshape(len(codes), -1, BLOCK // 2, 2)
        packed = self.weight(f"{name}.codes", pairs[..., 0] | pairs[..., 1] << 4)
        product = self._packed(x, packed, self.weight(f"{name}.scales", steps), codes.shape, 4)
        offsets = self.weight(f"{name}.offsets", (lows.astype(np.float32) + 8 * steps).T)
        return self.op("Add", product, self.op("MatMul", sums, offsets))

    def _packed(self, x: str, codes: str, scales: str, shape: tuple[int, ...], bits: int, out: str = "") -> str:
        known: dict[str, Any] = {"N": shape[0], "K": shape[1], "bits": bits, "block_size": BLOCK, "accuracy_level": 4}
        return self.op("MatMulNBits", x, codes, scales, out=out, domain=MICROSOFT, **known)
