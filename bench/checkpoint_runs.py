"""Checkpoints of a small byte-level language model, as mixed-precision training keeps them; for bench/checkpoints.py.

Master weights are float32 and trained by AdamW; a checkpoint is their rounding. The text is Python's own standard
library, and for a fine-tune the comments and the long strings of it alone, so nothing is downloaded.
"""

from __future__ import annotations

import sysconfig
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from seed_runtime.codecs.floats import to_storage
from seed_runtime.format.dtypes import BY_NAME

Checkpoint = Mapping[str, np.ndarray]
"""Tensors by name, as the bits of their elements."""

BATCH, LENGTH = 8, 128
_TEXT_BYTES: Final = 8_000_000
"""Size of the text [B]: some thousands of steps see each part of it once or twice."""


@dataclass(frozen=True)
class Size:
    """Sides of a model: these make 261 thousand weights."""

    width: int = 96
    layers: int = 2
    heads: int = 4


def text() -> tuple[bytes, bytes]:
    """Return sources of Python's standard library, and their comments and strings of several lines alone."""
    sources, prose = bytearray(), bytearray()
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        data = path.read_bytes()
        sources += data
        with path.open("rb") as file:
            for token in tokenize.tokenize(file.readline):
                if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and "\n" in token.string):
                    prose += token.string.encode() + b"\n"
        if len(sources) > _TEXT_BYTES:
            break
    return bytes(sources), bytes(prose)


def train(
    data: bytes, steps: int, *, size: Size | None = None, rate: float = 1e-3, start: Any = None, rng_seed: int = 0
) -> Iterator[tuple[int, Any, float]]:
    """Train a model and yield the number of steps so far, the model and its loss, after each step and before the first.

    Args:
        data: the text.
        steps: of the whole run: the learning rate rises over its first hundredth and falls to 0 along a cosine.
        size: of a new model.
        rate: highest learning rate.
        start: a model that was trained already; None for a new one.
        rng_seed: decides first weights and batches.
    """
    import torch
    from torch.nn import functional

    torch.manual_seed(rng_seed)
    torch.set_num_threads(1)
    model = start or _model(size or Size())
    rng, numbers = np.random.default_rng(rng_seed), torch.frombuffer(bytearray(data), dtype=torch.uint8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.1)
    rise = max(1, steps // 100)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / rise, 0.5 + 0.5 * np.cos(np.pi * step / steps))
    )
    yield 0, model, float("nan")
    for step in range(1, steps + 1):
        first = torch.from_numpy(rng.integers(0, len(numbers) - LENGTH - 1, BATCH))
        rows = numbers[first[:, None] + torch.arange(LENGTH + 1)].long()
        loss = functional.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        yield step, model, float(loss.detach())


def weights(model: Any) -> dict[str, np.ndarray]:
    """Return a model's weights, float32."""
    return {name: value.detach().numpy().copy() for name, value in model.state_dict().items()}


def cast(values: Mapping[str, np.ndarray], dtype: str) -> Checkpoint:
    """Return float32 tensors rounded to a type, as the bits of their elements."""
    kind = BY_NAME[dtype]
    bits = np.dtype(f"u{kind.storage.itemsize}")
    return {name: to_storage(each, kind).view(bits) for name, each in values.items()}


def _model(size: Size) -> Any:
    """Return a transformer of bytes with norms before its blocks, as GPT-2 has them, and one tied table of bytes."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            width = size.width
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: Any) -> Any:
            batch, length, width = x.shape
            heads = self.qkv(self.norm1(x)).view(batch, length, 3, size.heads, width // size.heads)
            query, key, value = heads.permute(2, 0, 3, 1, 4)
            mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
            x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
            return x + self.down(functional.gelu(self.up(self.norm2(x))))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bytes, self.places = nn.Embedding(256, size.width), nn.Embedding(LENGTH, size.width)
            self.blocks = nn.ModuleList(Block() for _ in range(size.layers))
            self.norm = nn.LayerNorm(size.width)
            for parameter in self.parameters():
                if parameter.dim() > 1:
                    nn.init.normal_(parameter, std=0.02)

        def forward(self, x: Any) -> Any:
            x = self.bytes(x) + self.places(torch.arange(x.shape[1]))
            for block in self.blocks:
                x = block(x)
            return functional.linear(self.norm(x), self.bytes.weight)

    return Model()
