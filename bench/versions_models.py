"""Two models and fine-tunes of each, for bench/versions.py: bytes of text, and characters in fonts.

The language model learns Python's own modules and is tuned on its manual, both of the interpreter that runs. The
classifier is that of bench/matters/glyphs.py; it is tuned on one half of the held-out fonts and judged on the other.
"""

from __future__ import annotations

import copy
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import torch
from torch import Tensor, nn

from bench.matters import glyphs
from bench.onnx_export import export_onnx

WIDTH, HEADS, LAYERS, CONTEXT = 96, 4, 3, 64
BYTES, BATCH = 256, 32
RATE, RATE_TUNED = 2e-3, 5e-4
CALIBRATED, JUDGED = 96, 192
"""Inputs that an export gets, and others that judge what it made."""
_RISE = 20
"""Steps over which the rate rises."""


@dataclass(frozen=True)
class Fine:
    """A model, and what makes a tuned version of it.

    Attributes:
        name: for people.
        old: the model that was there before.
        tuned: returns a copy that was tuned for so many steps.
        write: writes a model as an ONNX file.
        calibration: inputs by name, for exports.
        judged: the same of other sources, on which outputs are compared.
    """

    name: str
    old: nn.Module
    tuned: Callable[[int], nn.Module]
    write: Callable[[nn.Module, Path], Path]
    calibration: dict[str, np.ndarray]
    judged: dict[str, np.ndarray]


class ByteModel(nn.Module):
    """A transformer that predicts the next byte; 391 thousand weights."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self.places = nn.Embedding(BYTES, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.ModuleList([_Block() for _ in range(LAYERS)])
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, BYTES)

    def forward(self, ids: Tensor) -> Tensor:
        """Return scores of the next byte, `(batch, CONTEXT, 256)`."""
        x = self.bytes(ids) + self.places.weight
        for block in self.blocks:
            x = block(x)
        scores: Tensor = self.head(self.norm(x))
        return scores


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH) for _ in range(2)])
        self.queries, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.register_buffer("hidden", torch.triu(torch.full((CONTEXT, CONTEXT), -1e4), 1))

    def forward(self, x: Tensor) -> Tensor:
        parts = self.queries(self.norms[0](x)).unflatten(-1, (3, HEADS, WIDTH // HEADS)).permute(2, 0, 3, 1, 4)
        shares = (parts[0] @ parts[1].transpose(-1, -2) * (WIDTH // HEADS) ** -0.5 + self.hidden).softmax(-1)
        x = x + self.out((shares @ parts[2]).transpose(1, 2).flatten(2))
        changed: Tensor = x + self.down(nn.functional.gelu(self.up(self.norms[1](x))))
        return changed


def text(steps: int) -> Fine:
    """Train the language model on Python's modules; the manual is split by its topics."""
    modules = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    code = _joined(path.read_bytes() for path in modules)
    names = sorted(topics)
    trained, judged = (_joined(topics[name].encode() for name in names[first::2]) for first in (0, 1))
    torch.manual_seed(0)
    old = _trained(ByteModel(), code, steps, RATE)

    def write(model: nn.Module, path: Path) -> Path:
        example = {"ids": torch.zeros(2, CONTEXT, dtype=torch.int64)}
        export_onnx(model, example, {"ids": ("batch", None)}, "scores", path)
        torch.set_num_threads(1)  # it sets two
        return path

    return Fine(
        "bytes of text", old, lambda steps: _trained(copy.deepcopy(old), trained, steps, RATE_TUNED), write,
        {"ids": _windows(trained, CALIBRATED).numpy()}, {"ids": _windows(judged, JUDGED).numpy()},
    )  # fmt: skip


def characters(data: Path, steps: int) -> Fine:
    """Train the classifier; half of the held-out fonts tune it, by their packages' order.

    Raises:
        FileNotFoundError: the pictures aren't in the folder.
    """
    task = glyphs.load(data, glyphs.EUROPEAN)
    old = glyphs.teacher(task, steps)
    images, labels = task.held
    half = len(images) // 2
    other = replace(task, train=(images[:half], labels[:half]))
    rng = torch.Generator().manual_seed(0)
    inputs = [part[torch.randperm(len(part), generator=rng)] for part in images.split(half)]
    return Fine(
        "characters in fonts", old, lambda steps: glyphs.tuned(old, other, steps), glyphs.write_onnx,
        {"image": inputs[0][:CALIBRATED].numpy()}, {"image": inputs[1][:JUDGED].numpy()},
    )  # fmt: skip


def _joined(parts: Iterator[bytes]) -> Tensor:
    return torch.from_numpy(np.frombuffer(b"".join(parts), np.uint8).astype(np.int64))


def _windows(source: Tensor, count: int) -> Tensor:
    starts = np.linspace(0, len(source) - CONTEXT - 1, count).astype(int)
    return torch.stack([source[start : start + CONTEXT] for start in starts])


def _trained(model: nn.Module, source: Tensor, steps: int, rate: float) -> nn.Module:
    """Train in place to predict each byte of windows, the rate rising and falling; return the model."""
    rng = torch.Generator().manual_seed(1)
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.01)
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min((step + 1) / _RISE, 1 - step / steps)
        starts = torch.randint(len(source) - CONTEXT - 1, (BATCH,), generator=rng)
        windows = torch.stack([source[start : start + CONTEXT + 1] for start in starts.tolist()])
        scores = model(windows[:, :-1])
        loss = nn.functional.cross_entropy(scores.flatten(0, 1), windows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()
