"""The second worked example of SPEC.md, field by field: `python -m tests.support.second_example` prints its block.

Two float16 vectors without loss, the second with a dead column, and a product of two factors with shifts, steps of
rows, a dead row and a dead column. The skeleton is packed with LZMA.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

from tests.support.spec_bytes import Matrix, Table, block, f32, number, rans, string, u8, u16, u32, u64, varint

Rows = list[tuple[bytes, str]]
"""Bytes of each field, and the comment beside them."""

FIRST = [1.0009765625, -0.300048828125, 0.25, -2.0]
SECOND = [1.5, 0.0, -0.5, 1.0]
PRODUCT = [[-3.375, -1.25, 0.0, 3.875], [21.0, -6.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
"""(U @ (V * 2 ** shifts)) times the scale of each row: .5 * .25, 1.5 * .25, dead."""
U = Matrix([[5, -2], [8, 3], [0, 0]], 2, 0.5, row_steps=bytes([0, 12, 0]), row_classes=bytes([1, 1, 0]))
V = Matrix([[1, -2, 0, 3], [2, 0, 0, -1]], 0, 0.25, col_classes=bytes([1, 1, 0, 1]))
SHIFTS = bytes([0, 3])
FACTORS_TABLE = Table(0xFE, [600, 900, 900, 900, 500, 288], 8)
HALVES_TABLE = Table(
    0x68, [{0x68: 512, 0x69: 512, 0x70: 512, 0x78: 1536, 0x7C: 512, 0x80: 512}.get(s, 0) for s in range(0x68, 0x81)]
)
_NAMES = ("first", "second", "product")

PACKED_SKELETON = bytes.fromhex(
    "000c000461dea0fe0440058a0fdc90619c6b339e753a21e68723bf9163ae4f6cf594631b5fca7082d99b2ffba89c522b"
    "83b177cddf48f29219461307483da5069c926c750bd0733db04a98b9d0a1e9894be4d37659b7b927296610bb0c99a854"
    "6fd1983f10fa40174094196b065150a538aa3e364ae2de3ac95dc470114d9933f3baac312cbe831ec7da0f1671215815"
    "85cba58b384b5f66b61c9cc2dfbce625b403bf85abc9bb1ca1eedde10eb123fd91cbea0b5e1b0460e52d85a9f29437b8"
    "e06c20dd44ef19d2aa232c5accfd3779f7e6212fb3b58034e3f237d7800ec7ff82afd200"
)
"""The skeleton, packed with LZMA once: not every version of liblzma writes the same bytes."""


def weights() -> bytes:
    """Return the weights file."""
    product = f32(*(value for row in PRODUCT for value in row))
    return struct.pack("<4e56x4e56x", *FIRST, *SECOND) + product


def skeleton() -> bytes:
    """Return the ONNX model y = x @ product + first + second, of float32 x: (n, 3)."""
    cast = block(5, block(1, "to") + number(3, 1) + number(20, 2))
    nodes = [
        block(1, "x") + block(1, "product") + block(2, "a") + block(4, "MatMul"),
        block(1, "first") + block(2, "b") + block(4, "Cast") + cast,
        block(1, "second") + block(2, "c") + block(4, "Cast") + cast,
        block(1, "a") + block(1, "b") + block(2, "d") + block(4, "Add"),
        block(1, "d") + block(1, "c") + block(2, "y") + block(4, "Add"),
    ]
    graph = b"".join(block(1, node) for node in nodes) + block(2, "g")
    for name, code, dims, offset, size in (
        ("first", 10, (4,), 0, 8),
        ("second", 10, (4,), 64, 8),
        ("product", 1, (3, 4), 128, 48),
    ):
        tensor = b"".join(number(1, dim) for dim in dims) + number(2, code) + block(8, name)
        for key, text in (("location", "model.weights"), ("offset", str(offset)), ("length", str(size))):
            tensor += block(13, block(1, key) + block(2, text))
        graph += block(5, tensor + number(14, 1))
    for field, name, columns in ((11, "x", 3), (12, "y", 4)):
        shape = block(1, block(2, "n")) + block(1, number(1, columns))
        graph += block(field, block(1, name) + block(2, block(1, number(1, 1) + block(2, shape))))
    return number(1, 8) + block(7, graph) + block(8, number(2, 13))


def rows() -> Rows:
    """Return the whole seed."""
    part, body = (PACKED_SKELETON, "the skeleton, packed with LZMA"), [_split(), _lowrank()]
    header = _header(len(part[0]), [[b"".join(data for data, _ in chunk) for chunk in stream] for stream in body])
    header_size = sum(len(data) for data, _ in header)
    chunks = [row for stream in body for chunk in stream for row in chunk]
    file_size = 56 + header_size + len(part[0]) + sum(len(data) for data, _ in chunks)
    front: Rows = [
        (b"\x89SEED\r\n\x1a", "magic"),
        (u16(1), "version 1"),
        (u16(0), "no flags"),
        (u32(header_size), f"header_size {header_size}"),
        (u64(file_size), f"file_size {file_size}"),
    ]
    hashed = b"".join(data for data, _ in front + header)
    front.append((hashlib.sha256(hashed).digest(), "digest of the bytes above and the header"))
    return front + header + [part] + chunks


def seed() -> bytes:
    """Return the bytes of the seed."""
    return b"".join(data for data, _ in rows())


def listing() -> str:
    """Return the block of SPEC.md."""
    lines, at = [], 0
    for data, comment in rows():
        for start in range(0, len(data), 16):
            part = data[start : start + 16]
            lines.append(f"{at + start:04x}  {part.hex(' '):47}  {comment if not start else ''}".rstrip())
        at += len(data)
    return "\n".join(lines) + "\n"


def _section(number_: int, name: str, payload: Rows) -> Rows:
    size = sum(len(data) for data, _ in payload)
    return [(u16(number_), f"section {name}"), (u32(size), f"  of {size} bytes"), *payload]


def _header(part_size: int, chunks: Sequence[Sequence[bytes]]) -> Rows:
    raw, digest = skeleton(), hashlib.sha256(PACKED_SKELETON).digest()
    model: Rows = [
        (string("second"), '  id "second"'),
        (varint(1), "  version 1 of it"),
        (varint(1), "  level 1 of the format"),
        (varint(20), "  20 parameters"),
        (varint(64), "  64 bytes in the source"),
    ]
    file: Rows = [
        (varint(len(weights())), f"  the weights file has {len(weights())} bytes"),
        (hashlib.sha256(weights()).digest(), "  with this digest"),
        (varint(1 << 20), "  1 MiB of working memory"),
    ]
    parts: Rows = [
        (varint(1), "  one part:"),
        (u16(1), "    an ONNX skeleton,"),
        (u8(2), "    packed with LZMA,"),
        (varint(len(raw)), f"    {len(raw)} bytes,"),
        (varint(part_size), f"    {part_size} in the file,"),
        (digest, "    with this digest"),
    ]
    records: Rows = []
    for code, skip, dims in zip((10, 10, 1), (0, 56, 56), ((4,), (4,), (3, 4)), strict=True):
        place = f"{skip} zero bytes behind it" if skip else "at offset 0"
        shape = f"    {'two dimensions' if len(dims) == 2 else 'one dimension'}: {' by '.join(map(str, dims))}"
        records += [(u8(code), f"    {place}, {'float16' if code == 10 else 'float32'},")]
        records += [(varint(len(dims)) + b"".join(map(varint, dims)), shape)]
    size = len(b"".join(data for data, _ in records))
    digests = [(hashlib.sha256(name.encode()).digest()[:3], f'    digest of "{name}",') for name in _NAMES]
    holes = [
        (varint(3), "  three holes:"),
        *digests,
        (u8(0), "    records, stored,"),
        (varint(size), f"    {size} bytes:"),
    ]
    holes += records
    streams: Rows = [(varint(2), "  two streams:")]
    for name, codec, filled, coded in zip(("split", "lowrank"), (3, 5), (2, 1), chunks, strict=True):
        streams += [(u8(codec), f"    {name}"), (varint(filled), f"      for {filled} hole{'s' * (filled > 1)}")]
        streams += [(varint(len(coded)), f"      in {len(coded)} chunks")]
        streams += [(varint(len(chunk)), f"      of {len(chunk)} bytes") for chunk in coded]
        streams += [(hashlib.sha256(chunk).digest()[:16], "      with this digest") for chunk in coded]
    return [
        *_section(1, "MODEL", model),
        *_section(2, "WEIGHTS", file),
        *_section(3, "PARTS", parts),
        *_section(4, "HOLES", holes),
        *_section(5, "STREAMS", streams),
    ]


def _head(own: Rows, lanes_log2: int, table: Table, records: Rows, arrays: Rows, name: str) -> Rows:
    frequencies: Rows = [(varint(len(table.frequencies)), f"  {len(table.frequencies)} frequencies,")]
    if table.escape is not None:
        frequencies.append((varint(table.escape), f"  {table.escape} for the escape,"))
    frequencies.append((u8(table.first), f"  from symbol {table.first:02x}h on:"))
    for start in range(0, len(table.frequencies), 8):
        part = table.frequencies[start : start + 8]
        frequencies.append((b"".join(map(varint, part)), "    " + ", ".join(map(str, part))))
    fields = [*own, (u8(lanes_log2), f"  2^{lanes_log2} lanes"), (varint(1), "  one class; its table:")]
    fields += frequencies + records + arrays
    size = sum(len(data) for data, _ in fields)
    return [(u8(0), f"{name}, the head: stored,"), (varint(size), f"  {size} bytes"), *fields]


def _data(matrices: Sequence[Matrix], table: Table, lanes: int, name: str) -> Rows:
    states, words = rans([pair for matrix in matrices for pair in matrix.symbols], [table], lanes)
    out: Rows = [(b"".join(map(u32, states)), f"{name}, the data: states {', '.join(map(str, states))}")]
    out += [(varint(len(words)), f"  {len(words)} words")]
    return out + ([(b"".join(map(u16, words)), "    " + ", ".join(map(str, words)))] if words else [])


def _split() -> list[Rows]:
    matrices = []
    for values, classes in ((FIRST, None), (SECOND, bytes([1, 0, 1, 1]))):
        turned = [(bits << 1 | bits >> 15) & 0xFFFF for bits in struct.unpack("<4H", struct.pack("<4e", *values))]
        matrix = Matrix([turned], 8, col_classes=classes)
        matrix.symbols = [(0, value >> 8) for value, live in zip(turned, classes or b"\1" * 4, strict=True) if live]
        matrices.append(matrix)
    record = "  a matrix: 4 columns, so 1 row, 8 low bits,"
    records: Rows = [
        (varint(4) + u8(8) + u8(0), f"{record} no flags"),
        (varint(4) + u8(8) + u8(2), f"{record} column classes"),
    ]
    arrays: Rows = [(bytes([1, 0, 1, 1]), "  its columns: the second one is dead")]
    head = _head([], 1, HALVES_TABLE, records, arrays, "split")
    planes = [matrix.planes()[0] for matrix in matrices]
    data = _data(matrices, HALVES_TABLE, 2, "split")
    data += [(u8(0), "  the byte planes of both matrices, joined and stored:"), (planes[0], "    of the first one")]
    return [head, [*data, (planes[1], "    of the second one, without its dead column")]]


def _lowrank() -> list[Rows]:
    own: Rows = [
        (varint(4), "  4 columns of the product,"),
        (varint(2), "  rank 2:"),
        (SHIFTS, "    the second component is 2^3 times its integers"),
    ]
    records: Rows = [
        (varint(4) + u8(0) + u8(2), "  V: 4 columns, so 2 rows, no low bits, column classes,"),
        (f32(0.25), "    step 0.25"),
        (varint(2) + u8(2) + u8(5), "  U: 2 columns, so 3 rows, 2 low bits, row classes and row steps,"),
        (f32(0.5), "    step 0.5"),
    ]
    arrays: Rows = [
        (U.row_steps or b"", "  row steps of U: 1, (1 + 4/8) * 2, 1"),
        (U.row_classes or b"", "  rows of U: the third one is dead"),
        (V.col_classes or b"", "  columns of V: the third one is dead"),
    ]
    head = _head(own, 2, FACTORS_TABLE, records, arrays, "lowrank")
    data = _data([V, U], FACTORS_TABLE, 4, "lowrank")
    low, high = U.planes()
    data += [(u8(0) + low, "  bit 0 of U's live elements, stored: 1 0 0 1")]
    return [head, [*data, (u8(0) + high, "  bit 1, stored: 0 1 0 1")]]


if __name__ == "__main__":
    print(listing(), end="")
