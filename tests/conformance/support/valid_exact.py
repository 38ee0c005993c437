"""Valid seeds of the lossless codecs, raw and split, and of all packings."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from math import prod

from tests.conformance.support import packings
from tests.conformance.support.seeds import RAW, SPLIT, Options, Stream, Tensor, build
from tests.conformance.support.symbols import CHUNK, Coded, Pack, stored, table_for
from tests.conformance.support.vector import NAMES, Vector
from tests.golden import plain
from tests.support.spec_bytes import Matrix, u8

BITS = plain.BITS
SPECIALS = {
    1: struct.pack("<10I", 0, 1 << 31, 1, 0x7F7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00001, 0x7F800001, 0x3F800000, 3),
    10: struct.pack("<10H", 0, 1 << 15, 1, 0x7BFF, 0x7C00, 0xFC00, 0x7E01, 0x7C01, 0x3C00, 0x0400),
    16: struct.pack("<10H", 0, 1 << 15, 1, 0x7F7F, 0x7F80, 0xFF80, 0x7FC1, 0x7F81, 0x3F80, 0x0080),
}
"""Zeros of both signs, subnormal numbers, the largest, infinities, quiet and signalling NaN."""


def noise(size: int, rng_seed: int = 1) -> bytes:
    """Return bytes of the format's own generator."""
    words = (plain.splitmix(rng_seed, index) for index in range((size + 7) // 8))
    return b"".join(word.to_bytes(8, "little") for word in words)[:size]


def raw_chunk(data: bytes, width: int = 1, pack: Pack = stored) -> bytes:
    """Return a chunk of codec 1."""
    packing, packed = pack(b"".join(data[plane::width] for plane in range(width)))
    return u8(packing) + u8(width) + packed


def raw(tensors: Sequence[Tensor], data: bytes, width: int = 1, pack: Pack = stored, known: bool = False) -> Stream:
    """Return a stream of codec 1; `known` if the plain decoder would take long to find its data."""
    chunks = [raw_chunk(data[start : start + CHUNK], width, pack) for start in range(0, len(data), CHUNK)]
    return Stream(RAW, tensors, chunks, data if known else None)


def split_matrix(data: bytes, dtype: int, cols: int, row_classes: bytes | None, col_classes: bytes | None) -> Matrix:
    """Return the matrix of a tensor's bytes."""
    bits = max(8, BITS[dtype])
    values = [int.from_bytes(data[at : at + bits // 8], "little") for at in range(0, len(data), bits // 8)]
    low_bits = plain.LOW_BITS_OF_SPLIT[dtype]
    if low_bits:
        values = [(value << 1 | value >> (bits - 1)) & ((1 << bits) - 1) for value in values]
    rows = [values[start : start + cols] for start in range(0, len(values), cols)]
    return Matrix(rows, low_bits, row_classes=row_classes, col_classes=col_classes)


def split(
    dtype: int,
    dims: Sequence[int],
    data: bytes,
    cols: int,
    lanes_log2: int = 0,
    row_classes: bytes | None = None,
    col_classes: bytes | None = None,
) -> Stream:
    """Return a stream of codec 3 for one tensor."""
    matrix = split_matrix(data, dtype, cols, row_classes, col_classes)
    coded = Coded([matrix], [table_for([matrix], quantized=False)], lanes_log2, quantized=False)
    return Stream(SPLIT, [Tensor(dtype, dims)], coded.chunks())


def vectors() -> Iterator[Vector]:
    """Yield all vectors of this module but the large ones."""
    yield from _raw()
    yield from _packings()
    yield from _split()


def large_vectors() -> Iterator[Vector]:
    """Yield the vectors with more than one data chunk, which take a second to make."""
    # Chunks are cut within the second tensor, and within one of its elements.
    data = bytes(CHUNK - 6) + noise(16) + bytes(64)
    tensors = [Tensor(3, (CHUNK - 6,)), Tensor(1, (20,))]
    stream = raw(tensors, data, 2, _fixed, known=True)
    yield build("raw-two-chunks", "a chunk of 2^20 bytes that ends within an element, and one of 74", [stream])
    data = bytes(CHUNK) + noise(24)
    coded = _two_chunks(data)
    stream = Stream(SPLIT, [Tensor(3, (len(data),))], coded, data)
    yield build("split-two-chunks", "2^20 symbols in one chunk and 24 in the next", [stream])


def _raw() -> Iterator[Vector]:
    for dtype, name in NAMES.items():
        dims = (3, 5)
        data = noise((15 * BITS[dtype] + 7) // 8, dtype)
        if dtype == 9:
            data = bytes(byte & 1 for byte in data)
        if BITS[dtype] == 4:
            data = data[:-1] + bytes([data[-1] & 15])
        width = max(1, BITS[dtype] // 8)
        yield build(f"raw-{name}", f"codec raw, {name}, width {width}", [raw([Tensor(dtype, dims)], data, width)])
    for width in (1, 2, 4, 8):
        stream = raw([Tensor(7, (8,)), Tensor(3, (16,))], noise(80), width)
        text = f"codec raw, width {width} over an int64 and an int8 tensor"
        yield build(f"raw-width-{width}", text, [stream])
    yield build("raw-scalar", "a hole of rank 0", [raw([Tensor(1, ())], b"\0\0\x80\x3f", 4)])
    yield build("raw-rank-8", "a hole of rank 8", [raw([Tensor(2, (1, 2, 1, 2, 1, 2, 1, 1))], noise(8))])
    yield build(
        "raw-int4-one", "a single int4 element: one byte whose upper half is 0", [raw([Tensor(22, (1,))], b"\7")]
    )
    yield build("raw-bool-bytes", "bool bytes other than 0 and 1 are kept", [raw([Tensor(9, (4,))], b"\0\1\2\xff")])
    gaps = [Tensor(2, (1,)), Tensor(2, (64,)), Tensor(2, (65,)), Tensor(2, (63,))]
    yield build("gaps", "63, no, and 63 zero bytes between holes", [raw(gaps, noise(193))])
    streams = [raw([Tensor(2, (5,))], noise(5, place)) for place in range(64)]
    yield build("streams-64", "as many streams as a seed of little weights may have", streams)


def _fixed(data: bytes) -> tuple[int, bytes]:
    return packings.DEFLATE, packings.deflate_fixed(data)


def _packings() -> Iterator[Vector]:
    tensor = Tensor(2, (len(packings.TEXT),))
    for name, tests, packing, packed in (
        ("stored", "packing 0", packings.STORED, packings.TEXT),
        ("deflate-stored", "deflate blocks without compression, an empty one first", 1, None),
        ("deflate-fixed", "deflate, fixed Huffman codes", 1, packings.deflate_fixed(packings.TEXT)),
        ("deflate-dynamic", "deflate, Huffman codes of its own", 1, packings.DYNAMIC_TEXT),
        ("lzma", "LZMA, lc 3, lp 0, pb 2, the smallest dictionary", 2, packings.LZMA_TEXT),
        ("lzma-properties", "LZMA, lc 0, lp 2, pb 0, the largest dictionary", 2, packings.LZMA_TEXT_OTHER),
    ):
        chunk = u8(packing) + u8(1) + (packed if packed is not None else packings.deflate_stored(packings.TEXT))
        yield build(f"packing-{name}", f"{tests}, in a chunk of raw", [Stream(RAW, [tensor], [chunk])])
    # The last byte of a deflate stream has unused bits.
    changed = packings.deflate_fixed(b"abc")
    assert changed[-1] < 0x20
    chunk = b"\1\1" + changed[:-1] + bytes([changed[-1] | 0x80])
    text = "unused bits of deflate's last byte are ignored"
    yield build("packing-deflate-unused-bits", text, [Stream(RAW, [Tensor(2, (3,))], [chunk])])
    stream = raw([Tensor(2, (4,))], noise(4))
    text = "the skeleton is packed with deflate"
    yield build("packing-skeleton-deflate", text, [stream], Options(pack=_fixed))


def _split() -> Iterator[Vector]:
    for dtype in plain.LOW_BITS_OF_SPLIT:
        data = SPECIALS.get(dtype, noise(10, dtype))
        count = len(data) * 8 // BITS[dtype]
        text = f"codec split, {NAMES[dtype]}" + (": zeros, subnormal numbers, infinities, NaN" * (dtype in SPECIALS))
        yield build(f"split-{NAMES[dtype]}", text, [split(dtype, (count,), data, 5, 1)])
    yield build("split-all-bytes", "every byte is a symbol", [split(2, (256,), bytes(range(256)), 16, 3)])
    text = "codec split, an odd number of 4-bit elements: the matrix has their bytes"
    yield build("split-int4-odd", text, [split(22, (3, 3), bytes([0x21, 0x43, 0x65, 0x87, 0x09]), 5)])
    yield build("split-scalar", "codec split, rank 0", [split(1, (), struct.pack("<f", 1.5), 1)])
    yield build("split-more-lanes", "more lanes than symbols", [split(3, (3,), b"\1\2\3", 3, 4)])
    data = struct.pack("<12e", *(0.0 if i % 4 == 1 or i // 4 == 2 else i - 4.5 for i in range(12)))
    stream = split(10, (3, 4), data, 4, 0, bytes([1, 1, 0]), bytes([1, 0, 1, 1]))
    yield build("split-dead", "codec split, a dead row and a dead column", [stream])
    text = "codec split: all rows are dead, so there is no data chunk"
    yield build("split-all-dead", text, [split(1, (4, 4), bytes(64), 4, 0, bytes(4))])


def _two_chunks(data: bytes) -> list[bytes]:
    cols = next(cols for cols in range(1024, 1, -1) if len(data) % cols == 0)
    matrix = split_matrix(data, 3, cols, None, None)
    table = table_for([matrix], quantized=False)
    used = sum(frequency > 0 for frequency in table.frequencies)
    frequencies = [int(frequency > 0) for frequency in table.frequencies]
    frequencies[-table.first] += 4096 - used
    assert len(data) == prod((len(matrix.values), cols))
    return Coded([matrix], [type(table)(table.first, frequencies)], 7, quantized=False).chunks()
