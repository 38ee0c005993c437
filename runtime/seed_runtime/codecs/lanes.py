"""Decodes interleaved rANS over many lanes, one NumPy step for one symbol of every lane (SPEC.md, "Lanes").

State 32 bits, renormalised by one 16-bit word below 2**16, probabilities of 12 bits. Symbol i belongs to lane
i mod lanes; within a step, words are taken in the order of the lanes that need one.

Source: Duda, "Asymmetric numeral systems" (arXiv:1311.2540); Giesen, "Interleaved entropy coders" (arXiv:1402.3392).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from seed_runtime.codecs.arrays import U32
from seed_runtime.errors import FormatError

PROBABILITY_BITS: Final = 12
SLOTS: Final = 1 << PROBABILITY_BITS
STATE_LEAST: Final = 1 << 16
"""A state below this takes a word. Every lane ends here, which is where its encoder began."""
_FEW: Final = 16
"""Number of lanes up to which symbols are decoded one by one: a step of NumPy takes 11 us, one symbol 0.35 us."""


def decoding_table(frequencies: U32) -> U32:
    """Return one class's 4,096 slots: frequency << 20 | (slot - cumulative) << 8 | symbol.

    Args:
        frequencies: `(256,)`, by symbol byte, each below 4,096 so that it fits 12 bits, with the sum 4,096.
    """
    start = np.cumsum(frequencies, dtype=np.uint32) - frequencies
    counts = frequencies.astype(np.intp)  # 32-bit systems cast no unsigned counts
    entry = np.repeat(frequencies << np.uint32(20) | np.arange(256, dtype=np.uint32), counts)
    offset = np.arange(SLOTS, dtype=np.uint32) - np.repeat(start, counts)
    entry |= offset << np.uint32(8)
    return entry


class LaneDecoder:
    """The states of all lanes. Memory: 17 bytes a lane, and what `words` takes."""

    def __init__(self, tables: U32, states: U32) -> None:
        """Begin with the states of the first data chunk.

        Args:
            tables: `(classes * 4096,)`, of `decoding_table`.
            states: `(lanes,)`; they are changed in place.
        """
        lanes = states.size
        self.lanes = lanes
        self._tables, self._states = tables, states
        self._entry = np.empty(lanes, np.uint32)
        self._index = np.empty(lanes, np.intp)
        self._low = np.empty(lanes, np.bool_)
        self._words: U32 = np.empty(0, np.uint32)
        self._next = 0

    def load(self, words: memoryview) -> None:
        """Take the 16-bit little-endian words of the next chunk."""
        self._words, self._next = np.frombuffer(words, "<u2").astype(np.uint32), 0

    def decode_into(self, classes: U32, out: npt.NDArray[np.uint8]) -> None:
        """Decode `out.size` symbols: whole steps, but for the last one of a stream.

        Args:
            classes: `(n,)`, the class of each symbol << 12.
            out: `(n,)`, overwritten.

        Raises:
            FormatError: the chunk has too few words.
        """
        if self.lanes <= _FEW:
            self._one_by_one(classes, out)
            return
        whole = out.size - out.size % self.lanes
        try:
            self._steps(classes[:whole].reshape(-1, self.lanes), out[:whole].reshape(-1, self.lanes))
            if whole < out.size:
                self._rest(classes[whole:], out[whole:])
        except ValueError:
            # The slice of words was shorter than the lanes that need one.
            raise FormatError("rANS chunk", "its words end early") from None

    def end_chunk(self) -> None:
        """Raise FormatError if words of the present chunk are left over."""
        if self._next != self._words.size:
            raise FormatError("rANS chunk", f"{self._words.size - self._next} words are left over")

    def end_stream(self) -> None:
        """Raise FormatError unless every lane is in the state in which its encoder began."""
        if (self._states != STATE_LEAST).any():
            raise FormatError("rANS stream", "its lanes do not end where they began")

    def _steps(self, classes: U32, out: npt.NDArray[np.uint8]) -> None:
        # 19 calls a step, everything in place. Their fixed cost counts (0.4 us of some 3 at 16,384 lanes), so scalars
        # are arrays of one element, `out` is given by position and functions are looked up once: together with a
        # copy in place of an assignment and mode="wrap" (no index is out of range), 12 % less time a step.
        tables, words, position = self._tables, self._words, self._next
        states, entry, low, index = self._states, self._entry, self._low, self._index
        # In the index's place, once it has been used: all arrays of a step compete for a cache of .5 to 1 MiB.
        frequency = index.view(np.uint32)[: self.lanes]
        take, take_state, find = tables.take, states.take, low.nonzero
        add, bits_and, multiply, shift_right, copy = np.add, np.bitwise_and, np.multiply, np.right_shift, np.copyto
        for wanted, row in zip(classes, out, strict=True):
            bits_and(states, _SLOT_MASK, entry)
            add(entry, wanted, entry)
            # As `take` wants it: it would allocate an array of its own, by mmap, in every step.
            copy(index, entry, "unsafe")
            take(index, None, entry, "wrap")
            copy(row, entry, "unsafe")  # the low byte
            shift_right(entry, _20, frequency)
            shift_right(states, _12, states)
            multiply(states, frequency, states)
            shift_right(entry, _8, entry)
            bits_and(entry, _SLOT_MASK, entry)
            add(states, entry, states)
            np.less(states, _LEAST, low)
            lanes = find()[0]
            if lanes.size:
                end = position + lanes.size
                refilled = take_state(lanes, None, None, "wrap")
                refilled <<= _16
                refilled |= words[position:end]
                states[lanes] = refilled
                position = end
        self._next = position

    def _one_by_one(self, classes: U32, out: npt.NDArray[np.uint8]) -> None:
        # Views of memory give Python's integers, several times as fast as arrays give NumPy's.
        table, words, position = self._tables.data, self._words.data, self._next
        states, symbols, lane = self._states.tolist(), out.data, 0
        try:
            for index, wanted in enumerate(np.ascontiguousarray(classes).data):
                state = states[lane]
                entry = table[(state & SLOTS - 1) + wanted]
                symbols[index] = entry & 0xFF
                state = (state >> PROBABILITY_BITS) * (entry >> 20) + (entry >> 8 & SLOTS - 1)
                if state < STATE_LEAST:
                    state = state << 16 | words[position]
                    position += 1
                states[lane] = state
                lane = lane + 1 if lane + 1 < self.lanes else 0
        except IndexError:
            raise FormatError("rANS chunk", "its words end early") from None
        self._states[:], self._next = states, position

    def _rest(self, classes: U32, out: npt.NDArray[np.uint8]) -> None:
        head = LaneDecoder(self._tables, self._states[: out.size])
        head._words, head._next = self._words, self._next
        head._steps(classes[None], out[None])
        self._next = head._next


def _u32(value: int) -> U32:
    return np.array([value], np.uint32)


_SLOT_MASK, _LEAST = _u32(SLOTS - 1), _u32(STATE_LEAST)
_8, _12, _16, _20 = _u32(8), _u32(12), _u32(16), _u32(20)
