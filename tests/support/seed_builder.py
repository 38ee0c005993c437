"""Build small seeds field by field from SPEC.md; any field can be replaced, and all digests stay valid.

`build_seed()` is a valid seed that holds every field of SPEC.md. `build_seed({"hole.rank": varint(9)})` is the same
with one field replaced, and with all sizes and digests that depend on it computed again. Names are those of SPEC.md's
tables. A name alone means the first field of that name; `split/head.lanes` means the first within the split stream,
and a suffix `#1` the second one.
"""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from tests.golden.plain_adaptive import coded as lanes_of
from tests.support.adaptive_bytes import AdaptiveMatrix, decisions
from tests.support.spec_bytes import (
    Matrix,
    Table,
    bits_of,
    block,
    f32,
    i32,
    number,
    rans,
    string,
    u8,
    u16,
    u32,
    u64,
    varint,
)

Replacement = bytes | Callable[[bytes], bytes]
"""The bytes that a field gets, or a function of the valid bytes that returns them."""
Fields = list[tuple[str, bytes]]
"""Names and bytes of fields, in the order of the file."""

MODEL, WEIGHTS, PARTS, HOLES, STREAMS, GOLDEN, FOOTPRINT = 1, 2, 3, 4, 5, 0x8006, 0x8007
ALL = ("raw", "grid", "split", "moments", "lowrank", "trellis", "adaptive", "integers")

RAW = f32(0.5, -1.0, 2.0, 0.0)
GRID = Matrix(
    values=[[3, 0, -1, 4], [0, 0, 0, 0], [1, -4, 600, 2]],
    low_bits=1,
    step=0.5,
    row_steps=bytes([0, 0, 12]),
    row_classes=bytes([1, 0, 1]),
    col_classes=bytes([1, 1, 2, 1]),
)
GRID_TABLES = [Table(254, [20, 600, 2820, 500, 100], 56), Table(255, [1000, 2094, 1000], 2)]
GRID_WEIGHTS = [1.5, 0.0, -0.5, 2.0, 0.0, 0.0, 0.0, 0.0, 1.5, -6.0, 900.0, 3.0]
"""0.5 * the values; the last row's step is three times as large: (1 + 4 / 8) * 2."""
TRELLIS = Matrix([[1, 2, -1], [3, 0, -2]], step=0.5, delay=1)
TRELLIS_WEIGHTS = [1.0, 2.0, -0.5, 2.5, 0.0, -2.0]
"""Grids 0, 0, 1, 1, 0, 0, so 2, 4, -1, 5, 0, -4 times 0.5."""
ADAPTIVE = AdaptiveMatrix(
    [[1, -2, 0, 0, 0, 17], [0, 0, 0, 0, 0, 0], [3, 0, 0, 0, -1, 1]],
    step=0.5,
    taps=2,
    live_rows=170,
    live_channels=170,
    row_steps=bytes([0, 0, 12]),
    col_steps=bytes([0, 8, 0, 0, 0, 0]),
    delay=1,
)
ADAPTIVE_WEIGHTS = [1.0, -4.0, 0.0, 0.0, 0.0, 17.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 9.0, 0.0, 0.0, 0.0, -1.5, 1.5]
"""Grids 0, 0, ... 0 of the first row, 0 ... 1, 1 of the last one, so 2, -4, 34; 6, -1, 1 times 0.5; the second column's
factor is 2, the last row's is 3."""
INTEGERS, FLAT = Matrix([[1, -2, 0, 7], [-8, 3, 0, -1]], step=1.0), [Table(248, [256] * 16, 0)]
"""Fields of 4 bits are 9, 6, 8, 15 and 0, 11, 8, 7, the first one of a byte in its low half."""
SPLIT_WEIGHTS = [1.0, -0.5, 0.25, -2.0]
MOMENTS_WEIGHTS = [1.5, 0.0, 0.5, 3.0]
"""Mean row 1, 1.5; component 0.5, -1.5; scores 1, -1."""
LOWRANK_WEIGHTS = [0.5, 1.0, -0.5, 1.5, 3.0, -1.5]
"""U = 1, 3; V = 1, 2, -1; shift 1; scale 0.5 * 0.5."""


def join_fields(fields: Fields) -> bytes:
    """Return the bytes of the fields, one behind the other."""
    return b"".join(data for _, data in fields)


class FieldWriter:
    """Gives each field its valid bytes or those that replace them, and notes which replacements were used."""

    def __init__(self, replaced: Mapping[str, Replacement]) -> None:
        self.replaced, self.scope, self.used = dict(replaced), "", set[str]()
        self._seen: Counter[str] = Counter()

    def __call__(self, name: str, original: bytes) -> Fields:
        for known in (name, f"{self.scope}/{name}"):
            count, self._seen[known] = self._seen[known], self._seen[known] + 1
            key = f"{known}#{count}" if count else known
            if key in self.replaced:
                self.used.add(key)
                replacement = self.replaced[key]
                original = replacement(original) if callable(replacement) else replacement
        return [(name, original)]


def build_seed(replaced: Mapping[str, Replacement] | None = None, streams: Sequence[str] = ALL) -> bytes:
    """Return the bytes of a seed with these streams. AssertionError if a replaced field isn't in it."""
    return join_fields(build_fields(replaced, streams))


def build_fields(replaced: Mapping[str, Replacement] | None = None, streams: Sequence[str] = ALL) -> Fields:
    """Return the same seed field by field."""
    write = FieldWriter(replaced or {})
    part, chunks = _skeleton(write, streams), []
    for name in streams:
        write.scope = name
        chunks.append(_STREAMS[name](write))
    write.scope = ""
    body = part + [row for stream in chunks for chunk in stream for row in chunk]
    sections = {
        MODEL: model_section(write),
        WEIGHTS: weights_section(write, decoded_weights(streams)),
        PARTS: _parts(write, join_fields(part)),
        HOLES: _holes(write, streams),
        STREAMS: _streams(write, streams, [[join_fields(chunk) for chunk in stream] for stream in chunks]),
        GOLDEN: _golden(write),
        FOOTPRINT: _footprint(write),
    }
    return seal(write, sections, body)


def seal(write: FieldWriter, sections: Mapping[int, Fields], body: Fields) -> Fields:
    """Return the fields of a whole seed: preamble, header, body. AssertionError if a replaced field isn't in it."""
    header: Fields = []
    for key, payload in sections.items():
        size = len(join_fields(payload))
        header += write("section.id", u16(key)) + write("section.size", u32(size))
        header += write("section.payload", b"") or []
        header += payload
    header += write("header.end", b"")
    size = 56 + len(join_fields(header)) + len(join_fields(body))
    start = write("preamble.magic", b"\x89SEED\r\n\x1a") + write("preamble.version", u16(1))
    start += write("preamble.flags", u16(0)) + write("preamble.header_size", u32(len(join_fields(header))))
    start += write("preamble.file_size", u64(size))
    start += write("preamble.digest", hashlib.sha256(join_fields(start) + join_fields(header)).digest())
    unused = set(write.replaced) - write.used
    assert not unused, f"no such fields: {unused}"
    return [row for row in start + header + body if row[1]]


def decoded_weights(streams: Sequence[str] = ALL) -> bytes:
    """Return the weights file that the valid seed with these streams decodes to."""
    out = b""
    for name, (_, _, data) in _TENSORS.items():
        if name in streams:
            out += bytes(-len(out) % 64) + data
    return out


def types_of(streams: Sequence[str] = ALL) -> list[tuple[int, tuple[int, ...]]]:
    """Return ONNX's number of the type and the dimensions of each hole."""
    return [_TENSORS[name][:2] for name in streams]


# The holes: ONNX's number of the type, dimensions, bytes.
_TENSORS: dict[str, tuple[int, tuple[int, ...], bytes]] = {
    "raw": (1, (4,), RAW),
    "grid": (1, (3, 4), f32(*GRID_WEIGHTS)),
    "split": (10, (4,), struct.pack("<4e", *SPLIT_WEIGHTS)),
    "moments": (1, (2, 2), f32(*MOMENTS_WEIGHTS)),
    "lowrank": (1, (2, 3), f32(*LOWRANK_WEIGHTS)),
    "trellis": (1, (2, 3), f32(*TRELLIS_WEIGHTS)),
    "adaptive": (1, (3, 6), f32(*ADAPTIVE_WEIGHTS)),
    "integers": (2, (2, 2), bytes.fromhex("69 f8 b0 78")),
}
_NUMBERS = {"raw": 1, "grid": 2, "split": 3, "moments": 4, "lowrank": 5, "trellis": 2, "adaptive": 8, "integers": 9}


def model_section(write: FieldWriter) -> Fields:
    out = write("model.id", string("tiny")) + write("model.version", varint(1))
    out += write("model.feature_level", varint(1))
    return (
        out + write("model.parameters", varint(16)) + write("model.source_bytes", varint(64)) + write("model.end", b"")
    )


def weights_section(write: FieldWriter, weights: bytes) -> Fields:
    out = write("weights.size", varint(len(weights)))
    out += write("weights.digest", hashlib.sha256(weights).digest())
    return out + write("weights.working_bytes", varint(1 << 20)) + write("weights.end", b"")


def _parts(write: FieldWriter, skeleton: bytes) -> Fields:
    out = write("parts.count", varint(1)) + write("parts.kind", u16(1)) + write("parts.packing", u8(0))
    out += write("parts.raw_size", varint(len(skeleton))) + write("parts.size", varint(len(skeleton)))
    out += write("parts.digest", hashlib.sha256(skeleton).digest())
    return out + write("parts.names", b"") + write("parts.end", b"")


def _holes(write: FieldWriter, streams: Sequence[str]) -> Fields:
    records: Fields = []
    for name in streams:
        code, dims, _ = _TENSORS[name]
        records += write("hole.dtype", u8(code)) + write("hole.rank", varint(len(dims)))
        for dim in dims:
            records += write("hole.dimension", varint(dim))
    records += write("hole.end", b"")
    out = write("holes.count", varint(len(streams)))
    for name in streams:
        out += write("holes.name_digest", hashlib.sha256(name.encode()).digest()[:3])
    out += write("holes.packing", u8(0)) + write("holes.raw_size", varint(len(join_fields(records))))
    whole = write("holes.data", join_fields(records))
    return out + (records if whole[0][1] == join_fields(records) else whole) + write("holes.end", b"")


def _streams(write: FieldWriter, streams: Sequence[str], chunks: list[list[bytes]]) -> Fields:
    out = write("streams.count", varint(len(streams)))
    for name, coded in zip(streams, chunks, strict=True):
        out += write("streams.codec", u8(_NUMBERS[name])) + write("streams.holes", varint(1))
        out += write("streams.chunks", varint(len(coded)))
        for chunk in coded:
            out += write("streams.chunk_size", varint(len(chunk)))
        for chunk in coded:
            out += write("streams.chunk_digest", hashlib.sha256(chunk).digest()[:16])
    return out + write("streams.end", b"")


def _golden(write: FieldWriter) -> Fields:
    """Write the golden sample: for zeros as input the output is grid's weights with raw's added to each row."""
    rows = [[GRID_WEIGHTS[4 * i + j] + struct.unpack("<4f", RAW)[j] for j in range(4)] for i in range(3)]
    values = [value for row in rows for value in row]
    out = write("golden.seed", varint(0)) + write("golden.inputs", varint(1)) + write("golden_input.kind", u8(0))
    out += write("golden_input.dtype", u8(1)) + write("golden_input.rank", varint(3))
    for dim in (1, 3, 4):
        out += write("golden_input.dimension", varint(dim))
    out += write("golden_input.a", f32(0)) + write("golden_input.b", f32(0)) + write("golden_input.data", b"")
    out += write("golden.outputs", varint(1))
    out += write("golden_output.kind", u8(1)) + write("golden_output.size", varint(12))
    out += write("golden_output.digest", b"")
    out += write("golden_output.tolerance", f32(2.0**-20))
    out += write("golden_output.norm", f32(sum(value * value for value in values) ** 0.5))
    out += write("golden_output.outliers", varint(0))
    out += write("golden_output.count", varint(4)) + write("golden_output.values", f32(*values[::3]))
    return out + write("golden.end", b"")


def _footprint(write: FieldWriter) -> Fields:
    out = write("footprint.axes", varint(1))
    out += write("footprint.input", string("x")) + write("footprint.axis", varint(0))
    out += write("footprint.points", varint(2))
    out += write("footprint.point", varint(1)) + write("footprint.point", varint(8))
    out += write("footprint.modes", varint(1)) + write("footprint.mode", string("lean"))
    out += write("footprint.opening", varint(20)) + write("footprint.mapped", varint(1))
    out += write("footprint.peak", varint(16)) + write("footprint.peak", varint(17))
    return out + write("footprint.end", b"")


def _skeleton(write: FieldWriter, streams: Sequence[str]) -> Fields:
    """Write the ONNX model y = x + grid + raw, whose weights are external data. Nothing uses the other weights."""
    shape = block(1, block(2, "n")) + block(1, number(1, 3)) + block(1, number(1, 4))
    values = [block(1, name) + block(2, block(1, number(1, 1) + block(2, shape))) for name in ("x", "y")]
    add = [block(1, a) + block(1, b) + block(2, out) + block(4, "Add") for a, b, out in _NODES]
    graph, end = block(1, add[0]) + block(1, add[1]) + block(2, "g"), 0
    for name in streams:
        code, dims, data = _TENSORS[name]
        offset = end + -end % 64
        tensor = join_fields(write("skeleton.dims", b"".join(number(1, dim) for dim in dims)))
        tensor += join_fields(write("skeleton.type", number(2, code))) + block(
            8, join_fields(write("skeleton.name", name.encode()))
        )
        for key, text in (("location", "model.weights"), ("offset", str(offset)), ("length", str(len(data)))):
            tensor += block(13, block(1, key) + block(2, join_fields(write(f"skeleton.{key}", text.encode()))))
        tensor += join_fields(write("skeleton.entry", b"")) + number(14, 1)
        graph += join_fields(write("skeleton.tensor", block(5, tensor)))
        end = offset + len(data)
    graph += block(11, values[0]) + block(12, values[1])
    graph += join_fields(write("skeleton.graph", b""))
    model = number(1, 8) + block(7, graph) + block(8, join_fields(write("skeleton.opset", number(2, 13))))
    return write("part.data", model + join_fields(write("skeleton.model", b"")))


_NODES = (("x", "grid", "a"), ("a", "raw", "y"))


def _raw(write: FieldWriter) -> list[Fields]:
    planes = bytes(RAW[4 * place + plane] for plane in range(4) for place in range(4))
    return [write("raw_chunk.packing", u8(0)) + write("raw_chunk.width", u8(4)) + write("raw_chunk.data", planes)]


def _grid(write: FieldWriter) -> list[Fields]:
    return symbol_stream(write, [GRID], GRID_TABLES, 1, [])


def _split(write: FieldWriter) -> list[Fields]:
    # float16: rotated left by one, exponent and three bits of mantissa stand in the upper byte.
    bits = struct.unpack("<4H", _TENSORS["split"][2])
    matrix = Matrix([[(value << 1 | value >> 15) & 0xFFFF for value in bits]], low_bits=8)
    matrix.symbols = [(0, value << 1 >> 8 & 0xFF) for value in bits]
    symbols = sorted({symbol for _, symbol in matrix.symbols})
    table = Table(symbols[0], [1024 * (symbol in symbols) for symbol in range(symbols[0], symbols[-1] + 1)])
    return symbol_stream(write, [matrix], [table], 0, [])


def _moments(write: FieldWriter) -> list[Fields]:
    head = (
        write("moments.columns", varint(2)) + write("moments.components", varint(1)) + write("moments.seed", varint(7))
    )
    head += write("moments.mean", f32(0)) + write("moments.deviation", f32(0)) + write("moments.threshold", f32(0))
    first = write("head_chunk.packing", u8(0)) + write("head_chunk.size", varint(len(join_fields(head)))) + head
    halves = struct.pack("<6e", 1, 1.5, 0.5, -1.5, 1, -1)
    return [
        first,
        write("raw_chunk.packing", u8(0)) + write("raw_chunk.width", u8(1)) + write("raw_chunk.data", halves),
    ]


def _lowrank(write: FieldWriter) -> list[Fields]:
    right, left = Matrix([[1, 2, -1]], step=0.5), Matrix([[1], [3]], step=0.5)
    own = write("lowrank.columns", varint(3)) + write("lowrank.rank", varint(1)) + write("lowrank.shifts", bytes([1]))
    return symbol_stream(write, [right, left], [Table(255, [1024, 0, 1024, 1024, 1016], 8)], 0, own)


def _trellis(write: FieldWriter) -> list[Fields]:
    return symbol_stream(write, [TRELLIS], [Table(254, [512, 512, 1024, 1024, 512, 504], 8)], 0, [])


def _adaptive(write: FieldWriter) -> list[Fields]:
    """Write a stream of codec 8, of one matrix."""
    matrix = ADAPTIVE
    assert matrix.row_steps is not None
    assert matrix.col_steps is not None
    head = write("adaptive.lanes", u8(1)) + write("adaptive_matrix.columns", varint(len(matrix.values[0])))
    head += write("adaptive_matrix.taps", varint(matrix.taps)) + write("adaptive_matrix.width", varint(matrix.width))
    head += write("adaptive_matrix.flags", u8(matrix.flags)) + write("adaptive_matrix.step", f32(matrix.step))
    head += write("adaptive_matrix.delay", varint(matrix.delay or 0))
    head += write("adaptive_matrix.live_rows", u8(matrix.live_rows or 0))
    head += write("adaptive_matrix.live_channels", u8(matrix.live_channels or 0))
    head += write("adaptive.row_steps", matrix.row_steps) + write("adaptive.col_steps", matrix.col_steps)
    head += write("adaptive.end", b"")
    first = write("head_chunk.packing", u8(0)) + write("head_chunk.size", varint(len(join_fields(head)))) + head
    decided, escapes = decisions([matrix])
    states, words = lanes_of(decided, 2)
    chunk = write("adaptive_data.states", b"".join(map(u32, states)))
    chunk += write("adaptive_data.word_count", varint(len(words)))
    chunk += write("adaptive_data.words", b"".join(map(u16, words)))
    return [first, chunk + write("adaptive_data.escapes", b"".join(map(varint, escapes)))]


def symbol_stream(
    write: FieldWriter, matrices: list[Matrix], tables: list[Table], lanes_log2: int, own: Fields
) -> list[Fields]:
    """Write the head and the single data chunk of a symbol stream."""
    head = own + write("head.lanes", u8(lanes_log2)) + write("head.classes", varint(len(tables)))
    for table in tables:
        head += write("table.count", varint(len(table.frequencies)))
        head += write("table.escape", varint(table.escape)) if table.escape is not None else []
        head += write("table.first", u8(table.first))
        for frequency in table.frequencies:
            head += write("table.frequency", varint(frequency))
    for matrix in matrices:
        arrays = (matrix.row_classes, matrix.col_classes, matrix.row_steps, matrix.col_steps)
        flags = sum(1 << bit for bit, given in enumerate((*arrays, matrix.delay)) if given is not None)
        head += write("matrix.columns", varint(len(matrix.values[0]))) + write("matrix.low_bits", u8(matrix.low_bits))
        head += write("matrix.flags", u8(flags))
        head += write("matrix.step", f32(matrix.step)) if matrix.step is not None else []
        head += write("matrix.delay", varint(matrix.delay)) if matrix.delay is not None else []
    for name in ("row_steps", "col_steps", "row_classes", "col_classes"):
        for matrix in matrices:
            # Written even where it is empty: attacks give columns steps by a flag and these.
            if getattr(matrix, name) is not None or name == "col_steps":
                head += write(f"head.{name}", getattr(matrix, name) or b"")
    head += write("head.end", b"")
    size = len(join_fields(head))
    packed = write("head_chunk.data", join_fields(head))
    first = write("head_chunk.packing", u8(0)) + write("head_chunk.size", varint(size))
    first += head if packed[0][1] == join_fields(head) else packed

    states, words = rans([pair for matrix in matrices for pair in matrix.symbols], tables, 1 << lanes_log2)
    chunk = write("data_chunk.states", b"".join(u32(state) for state in states))
    chunk += write("data_chunk.word_count", varint(len(words)))
    chunk += write("data_chunk.words", b"".join(u16(word) for word in words))
    for matrix in matrices:
        for plane in matrix.planes():
            chunk += write("plane.packing", u8(0)) + write("plane.size", b"") + write("plane.data", plane)
    parts = [pair for matrix in matrices if matrix.buckets for pair in matrix.bits]
    if any(matrix.buckets for matrix in matrices):
        bits = bits_of(parts)
        chunk += write("bits.size", bits[:1]) + write("bits.data", bits[1:])
    chunk += write("data_chunk.escapes", b"".join(i32(*matrix.escaped) for matrix in matrices))
    return [first, chunk]


_STREAMS: dict[str, Callable[[FieldWriter], list[Fields]]] = {
    "raw": _raw,
    "grid": _grid,
    "split": _split,
    "moments": _moments,
    "lowrank": _lowrank,
    "trellis": _trellis,
    "adaptive": _adaptive,
    "integers": lambda write: symbol_stream(write, [INTEGERS], FLAT, 0, write("integers.widths", u8(4))),
}
