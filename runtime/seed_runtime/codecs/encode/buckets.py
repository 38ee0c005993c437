"""Encode side of buckets: integers as symbols, and the bits that these leave open."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from seed_runtime.codecs.buckets import LEAST, LIMIT, OCTAVE, WIDTHS
from seed_runtime.codecs.planes import ESCAPE
from seed_runtime.format import primitives

U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]
I32 = npt.NDArray[np.int32]


def split(integers: I32) -> tuple[U8, U16]:
    """Return symbols, escapes where integers are too large, and the bits below each, 0 for escapes."""
    magnitude = np.abs(integers.astype(np.int64))
    far = magnitude >= LIMIT
    # Exact: float64 holds all of them.
    octave = np.frexp(np.maximum(magnitude, 1))[1] - 1
    width = np.maximum(octave - (OCTAVE.bit_length() - 1), 0)
    bucket = np.where(width > 0, OCTAVE * width + (magnitude >> width), magnitude)
    symbols: U8 = (np.sign(integers) * np.where(far, 0, bucket)).astype(np.int8).view(np.uint8)
    below = (magnitude & ((1 << width.astype(np.int64)) - 1)).astype(np.uint16)
    symbols[far], below[far] = ESCAPE, 0
    return symbols, below


def joined(symbols: U8, below: U16) -> I32:
    """Return the integers of symbols and the bits below them; 0 for escapes."""
    least = LEAST.take(symbols)
    return least + np.where(least < 0, -1, 1).astype(np.int32) * below.astype(np.int32)


def pack(symbols: U8, below: U16) -> bytes:
    """Lay out the bits of symbols, low ones first, behind their size in bytes."""
    widths = WIDTHS.take(symbols)
    wide = widths.nonzero()[0]
    sizes, values = widths[wide].astype(np.int64), below[wide]
    first = np.cumsum(sizes) - sizes
    bits = np.zeros(int(sizes.sum()), np.uint8)
    for place in range(int(sizes.max(initial=0))):
        own = sizes > place
        bits[first[own] + place] = values[own] >> np.uint16(place) & np.uint16(1)
    data = np.packbits(bits, bitorder="little").tobytes()
    return primitives.varint(len(data)) + data
