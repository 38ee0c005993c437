"""Build the encoder of a BERT model as an ONNX graph, from a checkpoint's weights.

Source: Devlin et al. 2018, https://arxiv.org/abs/1810.04805 (the encoder; a norm after each residual).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from seed_exporter.zoo.graph_builder import GraphBuilder

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUT = "last_hidden_state"


def encoder(config: Mapping[str, Any], weights: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """Return the model: three int64 inputs `(batch, sequence)`, and a vector for each token.

    Args:
        config: fields of the checkpoint's config.json.
        weights: by their names in the checkpoint, without a prefix.
    """
    return _Encoder(config, weights).whole()


class _Encoder(GraphBuilder):
    def __init__(self, config: Mapping[str, Any], weights: Mapping[str, np.ndarray]) -> None:
        super().__init__(weights)
        self.width, self.heads = int(config["hidden_size"]), int(config["num_attention_heads"])
        self.layers, self.epsilon = int(config["num_hidden_layers"]), float(config["layer_norm_eps"])

    def whole(self) -> onnx.ModelProto:
        x, bias = self._embeddings(), self._bias()
        for index in range(self.layers):
            x = self._layer(x, bias, f"encoder.layer.{index}.")
        inputs = dict.fromkeys(INPUTS, (onnx.TensorProto.INT64, ("batch", "sequence")))
        return self.model("bert", inputs, x, (OUTPUT, ("batch", "sequence", self.width)))

    def _embeddings(self) -> str:
        ids, _, types = INPUTS
        words = self.node("Gather", [self.weight("embeddings.word_embeddings.weight"), ids])
        segments = self.node("Gather", [self.weight("embeddings.token_type_embeddings.weight"), types])
        one, two = self.constant("one", np.array([1], np.int64)), self.constant("two", np.array([2], np.int64))
        length = self.node("Slice", [self.node("Shape", [ids]), one, two])
        zero = self.constant("zero", np.array([0], np.int64))
        positions = self.node("Slice", [self.weight("embeddings.position_embeddings.weight"), zero, length])
        total = self.node("Add", [self.node("Add", [words, segments]), positions])
        return self._norm(total, "embeddings.LayerNorm.")

    def _bias(self) -> str:
        """Return what is added to scores of attention: a large negative number where a token fills up."""
        mask = self.node("Cast", [INPUTS[1]], to=onnx.TensorProto.FLOAT)
        axes = self.constant("axes", np.array([1, 2], np.int64))
        hidden = self.node("Sub", [self.constant("seen", np.float32(1)), self.node("Unsqueeze", [mask, axes])])
        # Finite: a row of -inf alone would give NaN.
        return self.node("Mul", [hidden, self.constant("hiding", np.float32(-1e4))])

    def _layer(self, x: str, bias: str, prefix: str) -> str:
        query, key, value = (
            self._split(self._linear(x, f"{prefix}attention.self.{part}."), order)
            for part, order in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3]))
        )
        scale = self.constant("scale", np.float32(math.sqrt(self.width // self.heads)))
        scores = self.node("Add", [self.node("Div", [self.node("MatMul", [query, key]), scale]), bias])
        mixed = self.node("MatMul", [self.node("Softmax", [scores], axis=3), value])
        joined = self.constant("joined", np.array([0, 0, self.width], np.int64))
        together = self.node("Reshape", [self.node("Transpose", [mixed], perm=[0, 2, 1, 3]), joined])
        x = self._residual(x, self._linear(together, f"{prefix}attention.output.dense."), f"{prefix}attention.output.")
        inner = self._gelu(self._linear(x, f"{prefix}intermediate.dense."))
        return self._residual(x, self._linear(inner, f"{prefix}output.dense."), f"{prefix}output.")

    def _linear(self, x: str, prefix: str) -> str:
        product = self.node("MatMul", [x, self.weight(f"{prefix}weight", transposed=True)])
        return self.node("Add", [product, self.weight(f"{prefix}bias")])

    def _split(self, x: str, order: list[int]) -> str:
        shape = np.array([0, 0, self.heads, self.width // self.heads], np.int64)
        return self.node("Transpose", [self.node("Reshape", [x, self.constant("split", shape)])], perm=order)

    def _residual(self, x: str, added: str, prefix: str) -> str:
        return self._norm(self.node("Add", [x, added]), f"{prefix}LayerNorm.")

    def _norm(self, x: str, prefix: str) -> str:
        weights = [self.weight(f"{prefix}weight"), self.weight(f"{prefix}bias")]
        return self.node("LayerNormalization", [x, *weights], axis=-1, epsilon=self.epsilon)

    def _gelu(self, x: str) -> str:
        half, root = self.constant("half", np.float32(0.5)), self.constant("root", np.float32(math.sqrt(2)))
        error = self.node("Erf", [self.node("Div", [x, root])])
        shifted = self.node("Add", [error, self.constant("seen", np.float32(1))])
        return self.node("Mul", [self.node("Mul", [x, shifted]), half])
