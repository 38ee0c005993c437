"""Calls that are made of the given ones, for a line to be judged on where few were given.

Given inputs are mostly easy, and statistics were measured on some of them: of four files Magika's default at 13x named
all as the original does, and 18 % of others differently. The beginning of one call and a stretch of another are harder
than either, and no statistic was measured on them. docs/adr/0017-default-line.md has the measurements.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from seed_exporter.evaluate.run import are_finite
from seed_runtime.backends import Array, Feeds
from seed_runtime.errors import SeedError

BYTES_MAX: Final = 64 << 20
"""Most memory of all mixed calls and the original's outputs for them [B]."""

_RNG_SEED: Final = 4
"""Random state of the choice of calls and places."""
_CUTS: Final = (0.25, 0.75)
"""Where along an input the other call may begin, as shares of its length."""


@dataclass(frozen=True)
class Mixed:
    """Mixed calls, with the original's outputs for them in the same order."""

    feeds: Sequence[Feeds] = ()
    outputs: Sequence[Mapping[str, Array]] = ()


NO_MIXES: Final = Mixed()
"""What there is where enough calls were given."""


def mix(feeds: Sequence[Feeds], count: int, run: Callable[[Feeds], Mapping[str, Array]]) -> Mixed:
    """Make up to `count` mixed calls: the beginning of one call, and in each input a stretch of another one behind it.

    Calls are mixed with others of the same shapes, and with themselves where there are none. There are fewer than
    `count` where memory ends, the model refuses one or makes NaN or infinities of it, or nothing can be mixed in inputs
    of one element.

    Args:
        feeds: given calls.
        count: number of mixed ones.
        run: runs the original.
    """
    rng = np.random.default_rng(_RNG_SEED)
    made: list[Feeds] = []
    outputs: list[Mapping[str, Array]] = []
    room = BYTES_MAX
    for number in range(count):
        first = feeds[number % len(feeds)]
        others = [each for each in feeds if each is not first and _shapes(each) == _shapes(first)] or [first]
        call = _spliced(first, others[rng.integers(len(others))], rng.uniform(*_CUTS), rng.uniform())
        if all(np.array_equal(call[name], first[name]) for name in call):
            continue
        try:
            answers = run(call)
        except SeedError:
            break
        if not are_finite(answers):
            continue
        room -= sum(array.nbytes for arrays in (call, answers) for array in arrays.values())
        if room < 0:
            break
        made.append(call)
        outputs.append(answers)
    return Mixed(tuple(made), tuple(outputs))


def _spliced(first: Feeds, second: Feeds, cut: float, shift: float) -> dict[str, Array]:
    """Join the beginning of `first` and a stretch of `second`, at the same shares of the longest axis of each input.

    The first axis counts samples where there are others.
    """
    call = {}
    for name, array in first.items():
        axis = int(np.argmax(array.shape[1:])) + 1 if array.ndim > 1 else 0
        size = array.shape[axis] if array.ndim else 0
        begin = min(max(1, round(cut * size)), size - 1)
        if size < 2 or not array.size:
            call[name] = array
            continue
        start = int(shift * (begin + 1))
        parts = np.split(array, [begin], axis)[0], second[name].take(range(start, start + size - begin), axis)
        call[name] = np.concatenate(parts, axis)
    return call


def _shapes(feeds: Feeds) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in feeds.items()}
