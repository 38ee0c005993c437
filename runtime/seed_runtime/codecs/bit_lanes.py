"""Decodes yes-or-no decisions from interleaved rANS, each under a probability of its own (SPEC.md, "Codec 8").

The lanes are those of lanes.py, whose tables would not fit decisions: with 4,095 probabilities there are no classes.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from seed_runtime.codecs.arrays import U32
from seed_runtime.codecs.lanes import PROBABILITY_BITS, SLOTS, STATE_LEAST
from seed_runtime.codecs.mixing import I64
from seed_runtime.errors import FormatError

_MASK: Final = SLOTS - 1


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
        lanes, start = self._states.size, 0
        while start < chances.size:
            size = min(lanes - self._lane, chances.size - start)
            self._decide(chances[start : start + size], decided[start : start + size])
            self._lane = (self._lane + size) % lanes
            start += size
        return decided

    def end(self) -> None:
        """Raise FormatError if words are left over, or a lane does not end where its encoder began."""
        if self._next != self._words.size:
            raise FormatError(self._where, f"{self._words.size - self._next} words are left over")
        if (self._states != STATE_LEAST).any():
            raise FormatError(self._where, "its lanes do not end where they began")

    def _decide(self, chances: I64, decided: npt.NDArray[np.bool_]) -> None:
        # Yes: chances * quotient + slot. No, with the slots behind: the state less chances * (quotient + 1).
        states = self._states[self._lane : self._lane + chances.size]
        slots = states & _MASK
        np.less(slots, chances, decided)
        quotients = states >> PROBABILITY_BITS
        quotients *= chances
        slots += quotients
        states -= quotients
        states -= chances
        np.copyto(states, slots, where=decided)
        low = (states < STATE_LEAST).nonzero()[0]
        if low.size:
            words = self._words[self._next : self._next + low.size]
            if words.size < low.size:
                raise FormatError(self._where, "its words end early")
            states[low] = states[low] << 16 | words
            self._next += low.size
