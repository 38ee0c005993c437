"""Decodes yes-or-no decisions from interleaved rANS, each under a probability of its own (SPEC.md, "Codec 8").

The lanes are those of lanes.py, whose tables would not fit decisions: with 4,095 probabilities there are no classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from seed_runtime.codecs.arrays import I64, U32
from seed_runtime.codecs.lanes import PROBABILITY_BITS, SLOTS, STATE_LEAST
from seed_runtime.errors import FormatError

_MASK: Final = SLOTS - 1
# Of one element: NumPy takes .3 us for each number that it makes an array of.
_SLOT_MASK, _12, _16, _LEAST = (np.array([number], np.int64) for number in (_MASK, PROBABILITY_BITS, 16, STATE_LEAST))
_FEW: Final = 12
"""Number of words up to which NumPy's calls take longer than Python's loop."""
_EARLY: Final = "its words end early"


class BitLanes:
    """The states of all lanes, and the words that they take."""

    def __init__(self, states: U32, words: memoryview, where: str) -> None:
        """Begin with the first states.

        Args:
            states: `(lanes,)`.
            words: 16-bit little-endian words.
            where: names the stream in error messages.
        """
        self._states, self._words = states.astype(np.int64), np.frombuffer(words, "<u2").astype(np.int64)
        self._state, self._word = self._states.data, self._words.data
        """The same, whose elements Python reads as its own numbers."""
        self._lane = self._next = 0
        self._where = where

    def decide(self, chances: I64) -> npt.NDArray[np.bool_]:
        """Decode the next decisions, `(n,)`.

        Args:
            chances: probability of yes in 4,096ths, 1 to 4,095.

        Raises:
            FormatError: there are too few words.
        """
        decided = np.empty(chances.size, np.bool_)
        every, lane, start = self._states, self._lane, 0
        while start < chances.size:
            stop = min(start + every.size - lane, chances.size)
            states, parts, yes = every[lane : lane + stop - start], chances[start:stop], decided[start:stop]
            # Yes: parts * quotient + slot. No, with the slots behind: the state less parts * (quotient + 1).
            slots = np.bitwise_and(states, _SLOT_MASK)
            np.less(slots, parts, yes)
            quotients = np.right_shift(states, _12)
            quotients *= parts
            slots += quotients
            states -= quotients
            states -= parts
            np.copyto(states, slots, where=yes)
            low = np.less(states, _LEAST).nonzero()[0]
            if self._next + low.size > len(self._word):
                raise FormatError(self._where, _EARLY)
            if low.size < _FEW:
                for place in low.tolist():
                    self._state[lane + place] = self._state[lane + place] << 16 | self._word[self._next]
                    self._next += 1
            else:
                states[low] = states.take(low) << _16 | self._words[self._next : self._next + low.size]
                self._next += low.size
            lane, start = (lane + stop - start) % every.size, stop
        self._lane = lane
        return decided

    def decide_few(self, chances: Sequence[int]) -> list[bool]:
        """Do as `decide` does, without NumPy, whose calls take longer than the work where decisions are few."""
        states, lane, decided = self._state, self._lane, []
        for chance in chances:
            state = states[lane]
            slot, change = state & _MASK, (state >> PROBABILITY_BITS) * chance
            yes = slot < chance
            decided.append(yes)
            state = change + slot if yes else state - change - chance
            if state < STATE_LEAST:
                if self._next == len(self._word):
                    raise FormatError(self._where, _EARLY)
                state = state << 16 | self._word[self._next]
                self._next += 1
            states[lane] = state
            lane = lane + 1 if lane + 1 < len(states) else 0
        self._lane = lane
        return decided

    def end(self) -> None:
        """Raise FormatError if words are left over, or a lane does not end where its encoder began."""
        if self._next != self._words.size:
            raise FormatError(self._where, f"{self._words.size - self._next} words are left over")
        if (self._states != STATE_LEAST).any():
            raise FormatError(self._where, "its lanes do not end where they began")
