"""BERT in torch, as far as MiniLM needs it, and its ONNX export.

Source: Devlin et al. 2018 (post-norm encoder); names follow the checkpoint's.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from bench.onnx_export import export_onnx


class Embeddings(nn.Module):
    """Sum of word, position and segment embeddings, normalised."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        size = config["hidden_size"]
        self.word_embeddings = nn.Embedding(config["vocab_size"], size)
        self.position_embeddings = nn.Embedding(config["max_position_embeddings"], size)
        self.token_type_embeddings = nn.Embedding(config["type_vocab_size"], size)
        self.LayerNorm = nn.LayerNorm(size, eps=config["layer_norm_eps"])

    def forward(self, ids: Tensor, segments: Tensor) -> Tensor:
        positions = torch.arange(ids.shape[1]).unsqueeze(0)
        words = self.word_embeddings(ids) + self.token_type_embeddings(segments)
        return self.LayerNorm(words + self.position_embeddings(positions))


class Layer(nn.Module):
    """Self-attention and a two-layer perceptron, each with a residual and a norm after it."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        size, inner, eps = config["hidden_size"], config["intermediate_size"], config["layer_norm_eps"]
        self.heads = config["num_attention_heads"]
        self.query, self.key, self.value, self.mixed = (nn.Linear(size, size) for _ in range(4))
        self.attention_norm = nn.LayerNorm(size, eps=eps)
        self.inner, self.outer = nn.Linear(size, inner), nn.Linear(inner, size)
        self.output_norm = nn.LayerNorm(size, eps=eps)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        batch, length, size = x.shape

        def split(part: Tensor) -> Tensor:
            return part.view(batch, length, self.heads, size // self.heads).transpose(1, 2)

        query, key, value = split(self.query(x)), split(self.key(x)), split(self.value(x))
        scores = query @ key.transpose(2, 3) / math.sqrt(size // self.heads) + bias
        mixed = (scores.softmax(dim=3) @ value).transpose(1, 2).reshape(batch, length, size)
        x = self.attention_norm(x + self.mixed(mixed))
        return self.output_norm(x + self.outer(nn.functional.gelu(self.inner(x))))


class Encoder(nn.Module):
    """Token ids to token embeddings `(batch, sequence, 384)`."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config["num_hidden_layers"]))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        # Finite: a row of -inf alone would give NaN.
        bias = (1.0 - attention_mask[:, None, None, :].float()) * -1e4
        x = self.embeddings(input_ids, token_type_ids)
        for layer in self.layers:
            x = layer(x, bias)
        return x


# Names in the checkpoint -> names here.
RENAMES = (
    ("encoder.layer.", "layers."),
    ("attention.self.", ""),
    ("attention.output.dense.", "mixed."),
    ("attention.output.LayerNorm.", "attention_norm."),
    ("intermediate.dense.", "inner."),
    ("output.dense.", "outer."),
    ("output.LayerNorm.", "output_norm."),
)


def export(folder: Path, target: Path) -> None:
    """Write the ONNX file of the checkpoint in `folder`, batch and sequence free."""
    model = Encoder(json.loads((folder / "config.json").read_text()))
    weights = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        if name.startswith("pooler.") or name.endswith("position_ids"):
            continue
        for old, new in RENAMES:
            name = name.replace(old, new)
        weights[name] = tensor
    model.load_state_dict(weights)
    names = ("input_ids", "attention_mask", "token_type_ids")
    export_onnx(
        model,
        {name: torch.ones(2, 7, dtype=torch.int64) for name in names},
        dict.fromkeys(names, ("batch", "sequence")),
        "last_hidden_state",
        target,
    )
