"""Coded streams, put together field by field as SPEC.md lists them, so that tests can write wrong ones.

Nothing here comes from the exporter: a mistake made in both halves would pass a round trip and fail here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from seed_runtime.codecs import BY_NAME as CODECS
from seed_runtime.codecs.arrays import Values
from seed_runtime.format.dtypes import BY_NAME as DTYPES
from seed_runtime.format.header import Hole
from tests.support.spec_bytes import varint

# Symbols 0, 1 and 2 have 4,094, 1 and 1 of the 4,096 slots; [1, 0, 2, 0] over two lanes, from the last step on:
#   lane 0, symbol 2: 0x10000 -> (0x10000 // 1) << 12 | 0 + 4095 = 0x10000fff
#           symbol 1: 0x10000fff >> 20 = 256 >= 1: the word 0x0fff goes out, 0x1000 stays
#                     -> 0x1000 << 12 | 0 + 4094 = 0x01000ffe
#   lane 1, symbol 0: 0x10000 = 16 * 4094 + 32 -> 16 << 12 | 32 = 0x10020
#           symbol 0: 0x10020 = 16 * 4094 + 64 -> 16 << 12 | 64 = 0x10040
SYMBOLS = [1, 0, 2, 0]
STATES = (0x01000FFE, 0x10040)
WORDS = (0x0FFF,)
RARE = (4094, 1, 1)


def table(first: int, frequencies: Sequence[int], escape: int | None = 0, count: int | None = None) -> bytes:
    """Return a probability table; `escape` is None in a stream that is not quantized."""
    out = varint(len(frequencies) if count is None else count)
    if escape is not None:
        out += varint(escape)
    return out + bytes([first]) + b"".join(varint(value) for value in frequencies)


def shape(cols: int, low_bits: int = 0, flags: int = 0, step: float | None = 0.5, delay: int | None = None) -> bytes:
    out = varint(cols) + bytes([low_bits, flags]) + (b"" if step is None else struct.pack("<f", step))
    return out + (b"" if delay is None else varint(delay))


def packed(raw: bytes, packing: int = 0, size: int | None = None) -> bytes:
    """Return a head as it stands in its chunk."""
    return bytes([packing]) + varint(len(raw) if size is None else size) + raw


def head(
    *,
    prefix: bytes = b"",
    lanes_log2: int = 1,
    classes: int = 1,
    tables: bytes = table(0, RARE),
    shapes: bytes = shape(2),
    arrays: bytes = b"",
    tail: bytes = b"",
) -> bytes:
    return packed(prefix + bytes([lanes_log2]) + varint(classes) + tables + shapes + arrays + tail)


def data(
    *,
    states: Sequence[int] = STATES,
    words: Sequence[int] = WORDS,
    count: int | None = None,
    planes: bytes = b"",
    escapes: bytes = b"",
) -> bytes:
    out = struct.pack(f"<{len(states)}I", *states) + varint(len(words) if count is None else count)
    return out + struct.pack(f"<{len(words)}H", *words) + planes + escapes


def hole(*dims: int, dtype: str = "float32") -> Hole:
    return Hole(DTYPES[dtype], dims, 0)


def pieces_of(codec: str, holes: Sequence[Hole], chunks: Iterable[bytes]) -> list[Values]:
    """Return copies of all that the decoder yields."""
    views = (memoryview(chunk) for chunk in chunks)
    return [values.copy() for values in CODECS[codec].decode(holes, views, "stream 0")]


def decode(codec: str, holes: Sequence[Hole], chunks: Iterable[bytes]) -> bytes:
    return b"".join(values.tobytes() for values in pieces_of(codec, holes, chunks))


def floats(codec: str, one: Hole, chunks: Iterable[bytes]) -> Any:
    """Return the tensor of a stream with one hole as nested lists."""
    return np.frombuffer(decode(codec, [one], chunks), one.dtype.storage).reshape(one.dims).tolist()


def cuts(chunks: Sequence[bytes]) -> list[list[bytes]]:
    """Return the chunks with one of them cut, at every byte of every chunk."""
    return [
        [*chunks[:index], chunk[:size], *chunks[index + 1 :]]
        for index, chunk in enumerate(chunks)
        for size in range(len(chunk))
    ]
