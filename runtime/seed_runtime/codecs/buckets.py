"""Symbols that stand for ranges of integers, and the bits that say which one (SPEC.md, "Buckets").

Small integers have a symbol of their own, larger ones share one with those of about their size: eight symbols an
octave. So one byte tells of integers up to 2**18, of which tables learn what they need: within an eighth of an octave
integers are about equally frequent.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from seed_runtime.codecs.arrays import U8
from seed_runtime.codecs.planes import ESCAPE
from seed_runtime.errors import FormatError
from seed_runtime.format.primitives import Cursor
from seed_runtime.limits import CHUNK_CODED_MAX

I32 = npt.NDArray[np.int32]

OCTAVE: Final = 8
"""Number of symbols of an octave."""
BLOCK: Final = 1 << 14
"""Symbols whose bits are found at a time: places in bits take 8 bytes each."""
HELD: Final = 96 * BLOCK
"""Most memory that finding them takes, beside the integers [B]."""


def _tables() -> tuple[U8, I32, I32]:
    """Return by symbol: the number of its bits, its integer of the least magnitude, and the sign of its integers."""
    signed = np.arange(256, dtype=np.uint8).view(np.int8).astype(np.int32)
    magnitude = np.abs(signed)
    widths = np.maximum(magnitude // OCTAVE - 1, 0)
    widths[ESCAPE] = 0
    least = np.where(magnitude < OCTAVE, magnitude, OCTAVE + magnitude % OCTAVE << widths)
    return widths.astype(np.uint8), (np.sign(signed) * least).astype(np.int32), np.sign(signed).astype(np.int32)


WIDTHS, LEAST, SIGNS = _tables()
LIMIT: Final = int(LEAST.max()) + (1 << int(WIDTHS.max()))
"""Magnitude from which on integers are escapes."""


class Buckets:
    """The bits of a chunk's symbols, in the order of the symbols."""

    def __init__(self, payload: Cursor) -> None:
        """Take them from a chunk, at their size."""
        size = payload.varint("size of bits", limit=CHUNK_CODED_MAX)
        self._bytes = np.frombuffer(payload.take(size, "bits"), np.uint8)
        self._next, self._where = 0, payload.where

    def integers(self, symbols: U8) -> I32:
        """Return the integers of the next symbols; 0 for escapes.

        Raises:
            FormatError: there are too few bits.
        """
        found = LEAST.take(symbols)
        for start in range(0, symbols.size, BLOCK):
            self._add_bits(symbols[start : start + BLOCK], found[start : start + BLOCK])
        return found

    def _add_bits(self, symbols: U8, found: I32) -> None:
        widths = WIDTHS.take(symbols)
        wide = widths.nonzero()[0]
        if not wide.size:
            return
        size = widths.take(wide).astype(np.int64)
        first = np.cumsum(size)
        first += self._next
        self._next = int(first[-1])
        if self._next > 8 * self._bytes.size:
            raise FormatError(self._where, "the bits of its symbols end early")
        first -= size
        at = (first >> 3).astype(np.intp, copy=False)
        bits = np.zeros(wide.size, np.int32)
        for place in range(3):
            # Bytes behind the last one are only bits that are not wanted.
            bits |= self._bytes.take(at + place, mode="clip").astype(np.int32) << np.int32(8 * place)
        bits >>= (first & 7).astype(np.int32)
        bits &= (1 << size.astype(np.int32)) - 1
        bits *= SIGNS.take(symbols.take(wide))
        found[wide] += bits

    def end(self) -> None:
        """Raise FormatError if bytes are left over."""
        if (left := self._bytes.size - (self._next + 7) // 8) > 0:
            raise FormatError(self._where, f"{left} bytes of bits are left over")
