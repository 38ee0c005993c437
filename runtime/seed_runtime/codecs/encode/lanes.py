"""Encode side of the lanes: what `seed_runtime.codecs.lanes` decodes, written backwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seed_runtime.codecs.lanes import PROBABILITY_BITS, SLOTS, STATE_LEAST

_MASK = np.uint32(0xFFFF)
_BLOCK = 1 << 16
"""Symbols whose table entries are looked up at once: what depends on no state takes a few calls, not some a step."""
_FEW = 4
"""Number of lanes up to which symbols are coded one by one: a step of NumPy takes 7 us, one symbol 0.6 us."""


@dataclass(frozen=True)
class Coded:
    """Lanes after coding: `words` in decoding order, those of step t are `words[bounds[t]:bounds[t + 1]]`."""

    states: npt.NDArray[np.uint32]
    words: npt.NDArray[np.uint16]
    bounds: npt.NDArray[np.int64]


def normalized(histogram: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Round a histogram to frequencies with the sum 4,096, at least 1 where a symbol occurs and none 4,096.

    The cheapest such rounding: from the floor of each share on, the rest goes to the symbols that gain most bits by it.
    """
    counts = np.asarray(histogram, np.int64)
    present = np.flatnonzero(counts)
    frequencies = np.zeros(counts.size, np.int64)
    if present.size < 2:
        # Twelve bits hold 4,095: a symbol that always comes leaves one slot to another.
        only = int(present[0]) if present.size else 0
        frequencies[only], frequencies[(only + 1) % counts.size] = SLOTS - 1, 1
        return frequencies
    used = counts[present].astype(np.float64)
    share = np.maximum(1, np.floor(used * (SLOTS / used.sum()))).astype(np.int64)
    while (missing := SLOTS - int(share.sum())) != 0:
        if missing > 0:
            order = np.argsort(-used * np.log2(1 + 1 / share), kind="stable")[:missing]
            share[order] += 1
        else:
            loss = np.where(share > 1, used * np.log2(share / np.maximum(share - 1, 1)), np.inf)
            order = np.argsort(loss, kind="stable")[: min(-missing, int((share > 1).sum()))]
            share[order] -= 1
    frequencies[present] = share
    return frequencies


def encode(
    symbols: npt.NDArray[np.uint8],
    classes: npt.NDArray[np.uint8 | np.uint16],
    frequencies: npt.NDArray[np.int64],
    lanes: int,
    progress: Callable[[int], None] | None = None,
) -> Coded:
    """Code `symbols`, `(n,)`, under `classes`, `(n,)`, by interleaved rANS.

    Args:
        symbols: `(n,)`.
        classes: `(n,)`, the row of `frequencies` for each symbol.
        frequencies: `(classes, alphabet)`, each row with the sum 4,096 and more than 0 where a symbol occurs.
        lanes: symbol i goes to lane i mod lanes.
        progress: called with the number of symbols coded since its last call.
    """
    steps, alphabet = -(-symbols.size // lanes), frequencies.shape[1]
    start = np.cumsum(frequencies, axis=1) - frequencies
    # One gather brings both: frequency << 16 | start.
    table = (frequencies << 16 | start).astype(np.uint32).reshape(-1)
    states = np.full(lanes, STATE_LEAST, np.uint32)
    blocks: list[npt.NDArray[np.uint16]] = []
    sizes = np.zeros(steps, np.int64)
    per_block = max(1, _BLOCK // lanes)
    for stop in range(steps, 0, -per_block):
        first = max(0, stop - per_block)
        a, b = first * lanes, min(stop * lanes, symbols.size)
        entry = table.take(classes[a:b].astype(np.intp) * alphabet + symbols[a:b])
        if lanes <= _FEW:
            sizes[first:stop] = _one_by_one(entry, states, blocks)
            if progress is not None:
                progress(b - a)
            continue
        frequency = entry >> np.uint32(16)
        # The state from which on a word leaves first: where state >> 20 >= frequency.
        limit = frequency << np.uint32(32 - PROBABILITY_BITS)
        rest = np.uint32(SLOTS) - frequency
        entry &= _MASK
        for step in range(stop - 1, first - 1, -1):
            here = slice(step * lanes - a, min((step + 1) * lanes, b) - a)
            x = states[: here.stop - here.start]
            full = (x >= limit[here]).nonzero()[0]
            if full.size:
                taken = x[full]
                blocks.append(taken.astype(np.uint16))
                x[full] = taken >> np.uint32(16)
            sizes[step] = full.size
            # quotient << 12 | remainder + start, with the remainder as x - quotient * frequency.
            quotient = x // frequency[here]
            quotient *= rest[here]
            x += quotient
            x += entry[here]
        if progress is not None:
            progress(b - a)
    bounds = np.concatenate([[0], np.cumsum(sizes)])
    words = np.concatenate(blocks[::-1]) if blocks else np.empty(0, np.uint16)
    return Coded(states, words, bounds)


def _one_by_one(
    entries: npt.NDArray[np.uint32], states: npt.NDArray[np.uint32], blocks: list[npt.NDArray[np.uint16]]
) -> list[int]:
    """Code the symbols of these table entries, and append their words to `blocks`. Returns the words of each step."""
    current, lanes = states.tolist(), states.size
    steps = -(-entries.size // lanes)
    sizes, words = [0] * steps, []
    numbers = [(step, lane) for step in range(steps) for lane in range(lanes)]
    for entry, (step, lane) in zip(entries[::-1].tolist(), numbers[: entries.size][::-1], strict=True):
        state, frequency = current[lane], entry >> 16
        if state >= frequency << 32 - PROBABILITY_BITS:
            words.append(state & 0xFFFF)
            sizes[step] += 1
            state >>= 16
        quotient, remainder = divmod(state, frequency)
        current[lane] = (quotient << PROBABILITY_BITS) + remainder + (entry & 0xFFFF)
    states[:] = current
    blocks.append(np.array(words[::-1], np.uint16))
    return sizes


_BITS_IN_STATE = 7
"""Bits of a symbol stream that stay in each lane's last state, less one to spare: a lane begins with 16 bits of state
and ends with 16 to 32, some 24."""


def estimated_bounds(
    histogram: npt.NDArray[np.int64], frequencies: npt.NDArray[np.int64], lanes: int
) -> npt.NDArray[np.int64]:
    """Compute the `bounds` that `encode` would give, from the cross-entropy under `frequencies`.

    Args:
        histogram: `(classes, 256)`, counts of symbols under `frequencies` of the same shape.
        frequencies: as for `encode`.
        lanes: as for `encode`.
    """
    used = histogram > 0
    bits = float((histogram[used] * np.log2(SLOTS / frequencies[used])).sum())
    steps = -(-int(histogram.sum()) // lanes)
    words = max(0, int(np.ceil((bits - _BITS_IN_STATE * lanes) / 16)))
    return np.linspace(0, words, steps + 1).astype(np.int64)
