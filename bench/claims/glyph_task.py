"""Glyphs for torch: on the device whole, augmented there, validation by font families out of the training side."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .data.files import read_arrays
from .data.validation import validating
from .inputs import DEVIATION, MEAN, SIDE, enlarge, unpacked


class Glyphs:
    """The classes' images.

    Args:
        folder: of `glyphs-train.npz.xz` and `glyphs-held.npz.xz`.
        where: the device.
        rng_seed: of batches and augmentation.
        most: at most so many images of each part, for tests.
    """

    def __init__(self, folder: Path, where: torch.device, rng_seed: int = 0, most: int | None = None) -> None:
        arrays = read_arrays(folder / "glyphs-train.npz.xz")
        self.classes, self.where = len(arrays["classes"]), where
        validates = validating(arrays)
        self._train = self._part(arrays["x"][~validates], arrays["y"][~validates], most)
        # Judged twenty times a run: a few thousand are enough, and cost little of its time.
        self._validation = self._part(arrays["x"][validates], arrays["y"][validates], most or 3000)
        counts = torch.bincount(self._train[1], minlength=self.classes).clamp(min=1)
        # Kanji and Latin stand in more fonts than Devanagari: in between equal classes and equal images.
        self.weights = counts[self._train[1]].float().rsqrt()
        self.rng = torch.Generator(where).manual_seed(rng_seed)
        self.scale = torch.from_numpy(enlarge()).to(where)
        held = read_arrays(folder / "glyphs-held.npz.xz")
        self._held = self._part(held["x"], held["y"], most)
        self.held_clusters = held["font"][:most]

    def batch(self, count: int) -> tuple[Tensor, Tensor]:
        """Return augmented images `(count, 3, 64, 64)` and their classes."""
        chosen = torch.multinomial(self.weights, count, replacement=True, generator=self.rng)
        return self._augmented(self._train[0][chosen].float()[:, None] / 15), self._train[1][chosen]

    def validation(self, size: int = 1000) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches of the validation part, not augmented."""
        return self._batches(self._validation, size)

    def held(self, size: int = 1000) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches of the held-out side, not augmented."""
        return self._batches(self._held, size)

    def _part(self, x: np.ndarray, y: np.ndarray, most: int | None) -> tuple[Tensor, Tensor]:
        step = max(1, len(x) // most) if most else 1
        images = torch.from_numpy(unpacked(x[::step])).to(self.where)
        return images, torch.from_numpy(y[::step].astype(np.int64)).to(self.where)

    def _batches(self, part: tuple[Tensor, Tensor], size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for first in range(0, len(part[0]), size):
            ink = part[0][first : first + size].float() / 15
            yield _coloured(self.scale @ ink @ self.scale.T), part[1][first : first + size]

    def _augmented(self, ink: Tensor) -> Tensor:
        """Turn, stretch, shear, move, thicken, thin or blur, fade, add noise. `ink` `(n, 1, 48, 48)`."""
        count = len(ink)

        def uniform(most: float) -> Tensor:
            return (torch.rand(count, device=self.where, generator=self.rng) * 2 - 1) * most

        def share() -> Tensor:
            return torch.rand(count, 1, 1, 1, device=self.where, generator=self.rng)

        turn, wide, high = uniform(0.2), uniform(0.2).exp(), uniform(0.2).exp()
        across = torch.stack([turn.cos() * wide, -turn.sin() * high + uniform(0.25), uniform(0.12)], 1)
        down = torch.stack([turn.sin() * wide, turn.cos() * high, uniform(0.12)], 1)
        grid = nn.functional.affine_grid(torch.stack([across, down], 1), [count, 1, SIDE, SIDE], align_corners=False)
        x = nn.functional.grid_sample(ink, grid, align_corners=False)
        kind, pool = share(), nn.functional.max_pool2d
        x = torch.where(kind < 0.12, pool(x, 3, 1, 1), torch.where(kind < 0.22, -pool(-x, 3, 1, 1), x))
        x = torch.where((kind >= 0.22) & (kind < 0.35), nn.functional.avg_pool2d(x, 3, 1, 1), x)
        noise = torch.randn(x.shape, device=self.where, generator=self.rng)
        return _coloured((x * (1 - 0.3 * share()) + 0.06 * noise * share())[:, 0])


def _coloured(ink: Tensor) -> Tensor:
    return ((ink - MEAN) / DEVIATION)[:, None].expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
