"""Inputs to train on: those that were given, and mixtures of them that the original labels for nothing.

A few hundred inputs are soon known by heart. Mixtures are never seen twice. Inputs are held and mixed where they are
computed with: drawn one by one on the host, 300 pictures took longer than a step of ResNet-50 on a GPU.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from seed_runtime.backends import Feeds

Batch = dict[str, Tensor]
"""Inputs of a batch by name, and labels where there are some."""
Draw = Callable[[int], Mapping[str, Tensor]]
"""Return so many samples by name, along the first axis."""

_RESIDENT: Final = 0.25
"""Largest part of a GPU's memory that inputs are held in; more stay with the host."""


class Batches:
    """Draws batches of inputs for ever, some of them mixed. One generator decides all.

    Args:
        feeds: inputs of single calls.
        size: inputs of a batch, where all inputs of a call have a first axis that counts samples.
        mixed: share of the inputs of a batch that are mixed.
        tensor: makes a tensor of an array, on the device.
        device: where batches are made.
        draw: gives samples in place of `feeds`.
        full: fill up the last batch of each group with others of it: a recorded step needs equal shapes, and a batch
            norm learns nothing of one sample.
        unlabelled: by name, arrays among the inputs that are labels, and what stands there in a mixed input.
        rng_seed: random state.
    """

    def __init__(
        self,
        feeds: Sequence[Feeds],
        size: int,
        mixed: float,
        *,
        tensor: Callable[[np.ndarray], Tensor],
        device: torch.device,
        draw: Draw | None = None,
        full: bool = False,
        unlabelled: Mapping[str, int] | None = None,
        rng_seed: int = 0,
    ) -> None:
        self.size = size
        self.mixed, self._device, self._draw, self._full = mixed, device, draw, full
        self._unlabelled = unlabelled or {}
        self._generator = torch.Generator(device).manual_seed(rng_seed)
        self._order = np.random.default_rng(rng_seed)
        self._groups = [] if draw else [_stacked(group, tensor, device) for group in grouped(feeds)]

    def resized(self, size: int, mixed: float | None = None) -> Batches:
        """Return the same inputs in batches of another size, and with another share of mixed ones where it is given."""
        other = copy.copy(self)
        other.size = size
        if mixed is not None:
            other.mixed = mixed
        return other

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches for ever: inputs of equal shapes are together, each in turn."""
        while self._draw is not None:
            found = self._draw(self.size)
            drawn = {name: value.to(self._device, non_blocking=True)[:, None] for name, value in found.items()}
            yield _joined(self._mix(drawn, {name: value.roll(1, 0) for name, value in drawn.items()}))
        while True:
            parts = [(group, part) for group in self._groups for part in self._parts(_count(group))]
            for index in self._order.permutation(len(parts)):
                group, chosen = parts[index]
                others = self._order.integers(0, _count(group), len(chosen))
                yield _joined(self._mix(self._taken(group, chosen), self._taken(group, others)))

    def _parts(self, count: int) -> Iterator[np.ndarray]:
        """Yield the places of all inputs of a group, in batches."""
        order = self._order.permutation(count)
        if self._full:
            order = np.concatenate([order, self._order.integers(0, count, -count % self.size)])
        yield from (order[first : first + self.size] for first in range(0, len(order), self.size))

    def _taken(self, group: Batch, places: np.ndarray) -> Batch:
        return {
            name: held.index_select(0, torch.from_numpy(places).to(held.device)).to(self._device)
            for name, held in group.items()
        }

    def _mix(self, batch: Batch, others: Batch) -> Batch:
        """Put a part of another input into some inputs: spans of integers, boxes of floats or their weighted mean."""
        if self.mixed <= 0:
            return batch
        count = _count(batch)

        def uniform() -> Tensor:
            return torch.rand(count, generator=self._generator, device=self._device)

        chosen, blended, share = uniform() < self.mixed, uniform() < 0.5, 0.1 + 0.8 * uniform()
        made, boxes = {}, {}
        for name, value in batch.items():
            other = others[name]
            if name in self._unlabelled:
                made[name] = value.masked_fill(_along(chosen, value), self._unlabelled[name])
                continue
            # Inputs of one shape belong together, such as tokens and their mask.
            if value.shape not in boxes:
                boxes[value.shape] = self._box(value.shape)
            found = torch.where(boxes[value.shape], other, value)
            if value.is_floating_point():
                part = _along(share, value).to(value.dtype)
                found = torch.where(_along(blended, value), part * value + (1 - part) * other, found)
            made[name] = torch.where(_along(chosen, value), found, value)
        return made

    def _box(self, shape: Sequence[int]) -> Tensor:
        """Return a random part of each array of a stack: whole along its first axis, and along channels of images."""
        first = 3 if len(shape) >= 5 else 2
        inside = torch.ones([shape[0], *[1] * (len(shape) - 1)], dtype=torch.bool, device=self._device)
        for axis in range(first, len(shape)):
            ends = torch.randint(0, shape[axis] + 1, (2, shape[0]), generator=self._generator, device=self._device)
            places = torch.arange(shape[axis], device=self._device)
            low, high = (end[:, None] for end in (ends.amin(0), ends.amax(0)))
            within = (places >= low) & (places < high)
            inside = inside & within.view([shape[0], *[1] * (axis - 1), -1, *[1] * (len(shape) - axis - 1)])
        return inside


def grouped(feeds: Sequence[Feeds]) -> list[list[Feeds]]:
    """Group inputs that can be joined: of equal shapes, where the first axis counts samples in all of them."""
    groups: dict[tuple[tuple[str, tuple[int, ...]], ...], list[Feeds]] = {}
    for feed in feeds:
        groups.setdefault(tuple((name, array.shape) for name, array in sorted(feed.items())), []).append(feed)
    return list(groups.values())


def channels_last(batch: Mapping[str, Tensor]) -> Batch:
    """Return a batch with channels of images last: convolutions in half precision want them so."""
    return {
        name: each.contiguous(memory_format=torch.channels_last) if each.dim() == 4 else each
        for name, each in batch.items()
    }


def joined(feeds: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Join inputs along their first axis; a single one may have none."""
    if len(feeds) == 1:
        return dict(feeds[0])
    return {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}


def _stacked(feeds: Sequence[Feeds], tensor: Callable[[np.ndarray], Tensor], device: torch.device) -> Batch:
    """Return inputs of equal shapes along a new first axis."""
    stacks = {name: np.stack([feed[name] for feed in feeds]) for name in feeds[0]}
    if device.type == "cuda":
        whole = torch.cuda.get_device_properties(device).total_memory
        if sum(stack.nbytes for stack in stacks.values()) > _RESIDENT * whole:
            return {name: torch.from_numpy(stack).to(tensor(stack[:1]).dtype) for name, stack in stacks.items()}
    return {name: tensor(stack) for name, stack in stacks.items()}


def _joined(batch: Batch) -> Batch:
    """Return a stack of inputs as one batch along their first axis."""
    return {name: value[0] if len(value) == 1 else value.flatten(0, 1) for name, value in batch.items()}


def _count(batch: Batch) -> int:
    return len(next(iter(batch.values())))


def _along(values: Tensor, like: Tensor) -> Tensor:
    """Return one value for each array of a stack."""
    return values.view(-1, *[1] * (like.dim() - 1))
