"""BERT-tiny and DistilBERT: encoders with the norm after each residual, and a classifier on the first token.

Source: Devlin et al. 2018; Turc et al. 2019 (the tiny one); Sanh et al. 2019 (no segments, no pooler of its own).
Attention is an explicit softmax with a finite mask: the fused kernels' gradients on padded batches were NaN in bf16.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

POSITIONS = 512
MASKED = -1e4  # finite in bf16 and fp16


class Layer(nn.Module):
    """Self-attention and a two-layer perceptron."""

    def __init__(self, width: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.mixed = (nn.Linear(width, width) for _ in range(4))
        self.attention_norm, self.output_norm = nn.LayerNorm(width, eps=1e-12), nn.LayerNorm(width, eps=1e-12)
        self.inner, self.outer = nn.Linear(width, inner), nn.Linear(inner, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        batch, length, width = x.shape

        def split(part: Tensor) -> Tensor:
            return part.view(batch, length, self.heads, width // self.heads).transpose(1, 2)

        query, key, value = split(self.query(x)), split(self.key(x)), split(self.value(x))
        scores = query @ key.transpose(2, 3) / math.sqrt(width // self.heads)
        shares = torch.softmax(scores.float() + bias, dim=3).to(value.dtype)
        mixed = (shares @ value).transpose(1, 2).reshape(batch, length, width)
        x = self.attention_norm(x + self.dropout(self.mixed(mixed)))
        y: Tensor = self.output_norm(x + self.dropout(self.outer(nn.functional.gelu(self.inner(x)))))
        return y


class Encoder(nn.Module):
    """Token ids `(n, length)` to hidden states `(n, length, width)`."""

    def __init__(
        self, words: int, width: int, layers: int, heads: int, inner: int, segments: int, dropout: float
    ) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(words, width), nn.Embedding(POSITIONS, width)
        self.segments = nn.Embedding(segments, width) if segments else None
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.layers = nn.ModuleList(Layer(width, heads, inner, dropout) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        bias = (1.0 - attention_mask[:, None, None, :].float()) * MASKED
        x = self.words(input_ids) + self.positions.weight[: input_ids.shape[1]]
        if self.segments is not None:
            x = x + self.segments(torch.zeros_like(input_ids))
        x = self.dropout(self.norm(x))
        for layer in self.layers:
            x = layer(x, bias)
        return x


class Classifier(nn.Module):
    """Token ids and mask, both `(n, length)`, to logits `(n, classes)`."""

    def __init__(
        self,
        words: int,
        width: int,
        layers: int,
        heads: int,
        inner: int,
        segments: int,
        classes: int,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(words, width, layers, heads, inner, segments, dropout)
        self.pooler, self.head = nn.Linear(width, width), nn.Linear(width, classes)
        # BERT's pooler ends in tanh, DistilBERT's first layer of the head in ReLU.
        self.act = torch.tanh if segments else torch.relu
        self.dropout = nn.Dropout(dropout)
        self.apply(_start)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        first = self.encoder(input_ids, attention_mask)[:, 0]
        logits: Tensor = self.head(self.dropout(self.act(self.pooler(first))))
        return logits


class MaskedWords(nn.Module):
    """Predict masked tokens: logits over words, with the words' embeddings as the last layer. Only trains encoders."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        count, width = encoder.words.weight.shape
        self.dense, self.norm = nn.Linear(width, width), nn.LayerNorm(width, eps=1e-12)
        self.bias = nn.Parameter(torch.zeros(count))
        _start(self.dense)

    def forward(self, input_ids: Tensor, chosen: Tensor) -> Tensor:
        """Return `(n * k, words)` for the positions `chosen` `(n, k)`; nothing is padding."""
        hidden = self.encoder(input_ids, torch.ones_like(input_ids))
        picked = hidden.gather(1, chosen[:, :, None].expand(-1, -1, hidden.shape[2])).flatten(0, 1)
        shaped = self.norm(nn.functional.gelu(self.dense(picked)))
        return nn.functional.linear(shaped, self.encoder.words.weight, self.bias)


def _start(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
