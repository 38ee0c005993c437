"""Inputs to train on: the calibration inputs, and mixtures of them that the original labels for nothing.

A few hundred inputs are soon known by heart. Mixtures are never seen twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from seed_runtime.backends import Feeds

Arrays = dict[str, np.ndarray]


class Batches:
    """Draws batches of calibration inputs, some of them mixed. One generator decides all.

    Args:
        feeds: inputs of single calls.
        size: inputs of a batch, where all inputs of a call have a first axis that counts samples.
        mixed: share of the inputs of a batch that are mixed.
        rng_seed: random state.
        full: fill up the last batch of a group with others of it: a batch norm can't learn from one sample.
        unlabelled: by name, arrays among the inputs that are labels, and what stands there in a mixed input.
    """

    def __init__(
        self,
        feeds: Sequence[Feeds],
        size: int,
        mixed: float,
        rng_seed: int = 0,
        *,
        full: bool = False,
        unlabelled: Mapping[str, int] | None = None,
    ) -> None:
        self._feeds, self._size, self._mixed, self._full = feeds, size, mixed, full
        self._unlabelled = unlabelled or {}
        self._rng = np.random.default_rng(rng_seed)

    def __iter__(self) -> Iterator[Arrays]:
        """Yield batches for ever: inputs of equal shapes are together, each in turn."""
        while True:
            order = self._rng.permutation(len(self._feeds))
            for group in grouped([self._feeds[index] for index in order]):
                for first in range(0, len(group), self._size):
                    batch = group[first : first + self._size]
                    if self._full and (missing := self._size - len(batch)):
                        batch += [group[index] for index in self._rng.integers(0, len(group), missing)]
                    yield self._batch(batch)

    def _batch(self, feeds: Sequence[Feeds]) -> Arrays:
        others = [self._feeds[index] for index in self._rng.integers(0, len(self._feeds), len(feeds))]
        mixed = [
            self._mix(feed, other) if self._rng.random() < self._mixed else feed
            for feed, other in zip(feeds, others, strict=True)
        ]
        return joined(mixed)

    def _mix(self, feed: Feeds, other: Feeds) -> Mapping[str, np.ndarray]:
        """Put a part of another input into this one: spans of integers, boxes of floats or their weighted mean."""
        if any(feed[name].shape != other[name].shape for name in feed):
            return feed
        rng, made, spans = self._rng, {}, {}
        share, blend = rng.uniform(0.1, 0.9), rng.random() < 0.5
        for name, array in feed.items():
            if name in self._unlabelled:
                made[name] = np.full_like(array, self._unlabelled[name])
                continue
            if array.dtype.kind == "f" and blend:
                made[name] = (share * array + (1 - share) * other[name]).astype(array.dtype)
                continue
            # Inputs of one shape belong together, such as tokens and their mask.
            if array.shape not in spans:
                spans[array.shape] = _box(array.shape, rng)
            made[name] = array.copy()
            made[name][spans[array.shape]] = other[name][spans[array.shape]]
        return made


def _box(shape: Sequence[int], rng: np.random.Generator) -> tuple[slice, ...]:
    """Return a random part of an array: whole along the first axis, and along channels of an image."""
    whole = 2 if len(shape) >= 4 else 1
    box = [slice(None)] * min(whole, len(shape))
    for size in shape[whole:]:
        first, last = sorted(rng.integers(0, size + 1, 2))
        box.append(slice(int(first), int(last)))
    return tuple(box)


def grouped(feeds: Sequence[Feeds]) -> list[list[Feeds]]:
    """Group inputs that can be joined: of equal shapes, where the first axis counts samples in all of them."""
    groups: dict[tuple[tuple[str, tuple[int, ...]], ...], list[Feeds]] = {}
    for feed in feeds:
        groups.setdefault(tuple((name, array.shape) for name, array in sorted(feed.items())), []).append(feed)
    return list(groups.values())


def joined(feeds: Sequence[Mapping[str, np.ndarray]]) -> Arrays:
    """Join inputs along their first axis."""
    return {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
