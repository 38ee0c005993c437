"""Calls as samples: stacked along their first axis, so that many are computed at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from seed_runtime.backends import Array, Feeds

BYTES_MAX: Final = 512 << 20
"""Most bytes of samples that are held at once [B]."""


def stacked(calls: Sequence[Mapping[str, Array]], most: int) -> dict[str, Array]:
    """Return the samples of calls of one shape, the most frequent one, samples first.

    Calls whose arrays don't share their first axis are left out; none may be left.

    Args:
        calls: arrays by name, the same names in each.
        most: most samples.
    """
    usable = [call for call in calls if _samples(call)]
    shapes = Counter(map(_shape, usable))
    if not shapes:
        return {}
    shape = shapes.most_common(1)[0][0]
    chosen, count, size = list[Mapping[str, Array]](), 0, 0
    for call in usable:
        if _shape(call) != shape:
            continue
        size += sum(array.nbytes for array in call.values())
        if size > BYTES_MAX or count >= most:
            break
        chosen.append(call)
        count += _samples(call)
    if not chosen:
        return {}
    return {name: np.concatenate([call[name] for call in chosen])[:most] for name in chosen[0]}


def batched(feeds: Sequence[Feeds], most: int, size: int) -> list[Feeds]:
    """Return the samples of calls as batches of equal size; those that make no whole batch are left out."""
    samples = stacked(feeds, most)
    count = len(next(iter(samples.values()))) if samples else 0
    size = min(size, count)
    starts = range(0, count - size + 1, size) if size else ()
    return [{name: array[at : at + size] for name, array in samples.items()} for at in starts]


def _samples(call: Mapping[str, Array]) -> int:
    """Return the number of samples of a call; 0 where its arrays don't agree."""
    counts = {array.shape[0] if array.ndim else 0 for array in call.values()}
    return counts.pop() if len(counts) == 1 else 0


def _shape(call: Mapping[str, Array]) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
    return tuple((name, array.dtype.str, array.shape[1:]) for name, array in call.items())
