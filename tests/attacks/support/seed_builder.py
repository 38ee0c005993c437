"""Makes seeds whose digests are valid, and in which chosen fields lie.

`forge()` is an honest seed that holds every field of SPEC.md; `forge({"holes.rank": varint(9)})` is the same with one
field replaced and all sizes and digests that depend on it computed again. Names are those of SPEC.md's tables. A name
alone means the first field of that name; `split/head.lanes` means the first within the split stream, and a suffix
`#1` the second one.
"""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from tests.attacks.support.spec_bytes import (
    Matrix,
    Table,
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

Lie = bytes | Callable[[bytes], bytes]
Tape = list[tuple[str, bytes]]
"""Fields in the order of the file."""

MODEL, WEIGHTS, PARTS, HOLES, STREAMS, GOLDEN, FOOTPRINT = 1, 2, 3, 4, 5, 0x8006, 0x8007
ALL = ("raw", "grid", "split", "moments", "lowrank")

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
SPLIT_WEIGHTS = [1.0, -0.5, 0.25, -2.0]
MOMENTS_WEIGHTS = [1.5, 0.0, 0.5, 3.0]
"""Mean row 1, 1.5; component 0.5, -1.5; scores 1, -1."""
LOWRANK_WEIGHTS = [0.5, 1.0, -0.5, 1.5, 3.0, -1.5]
"""U = 1, 3; V = 1, 2, -1; shift 1; scale 0.5 * 0.5."""


def raw_of(tape: Tape) -> bytes:
    return b"".join(data for _, data in tape)


class Pen:
    """Writes a field as it is, or as the lie that is told about it."""

    def __init__(self, lies: Mapping[str, Lie]) -> None:
        self.lies, self.scope, self.told = dict(lies), "", set[str]()
        self._seen: Counter[str] = Counter()

    def __call__(self, name: str, truth: bytes) -> Tape:
        for known in (name, f"{self.scope}/{name}"):
            count, self._seen[known] = self._seen[known], self._seen[known] + 1
            key = f"{known}#{count}" if count else known
            if key in self.lies:
                self.told.add(key)
                lie = self.lies[key]
                truth = lie(truth) if callable(lie) else lie
        return [(name, truth)]


def forge(lies: Mapping[str, Lie] | None = None, streams: Sequence[str] = ALL) -> bytes:
    """The bytes of a seed."""
    return raw_of(tape_of(lies, streams))


def tape_of(lies: Mapping[str, Lie] | None = None, streams: Sequence[str] = ALL) -> Tape:
    """The same, field by field."""
    pen = Pen(lies or {})
    part, chunks = _skeleton(pen, streams), []
    for name in streams:
        pen.scope = name
        chunks.append(_STREAMS[name](pen))
    pen.scope = ""
    body = part + [row for stream in chunks for chunk in stream for row in chunk]
    sections = {
        MODEL: _model(pen),
        WEIGHTS: _weights(pen, streams),
        PARTS: _parts(pen, raw_of(part)),
        HOLES: _holes(pen, streams),
        STREAMS: _streams(pen, streams, [[raw_of(chunk) for chunk in stream] for stream in chunks]),
        GOLDEN: _golden(pen),
        FOOTPRINT: _footprint(pen),
    }
    header: Tape = []
    for key, payload in sections.items():
        size = len(raw_of(payload))
        header += pen("section.id", u16(key)) + pen("section.size", u32(size))
        header += pen("section.payload", b"") or []
        header += payload
    header += pen("header.end", b"")
    size = 56 + len(raw_of(header)) + len(raw_of(body))
    start = pen("preamble.magic", b"\x89SEED\r\n\x1a") + pen("preamble.version", u16(1))
    start += pen("preamble.flags", u16(0)) + pen("preamble.header_size", u32(len(raw_of(header))))
    start += pen("preamble.file_size", u64(size))
    start += pen("preamble.digest", hashlib.sha256(raw_of(start) + raw_of(header)).digest())
    untold = set(pen.lies) - pen.told
    assert not untold, f"no such fields: {untold}"
    return [row for row in start + header + body if row[1]]


def weights_of(streams: Sequence[str] = ALL) -> bytes:
    """The weights file that the honest seed decodes to."""
    out = b""
    for name, (_, _, data) in _TENSORS.items():
        if name in streams:
            out += bytes(-len(out) % 64) + data
    return out


# The holes: ONNX's number of the type, dimensions, bytes.
_TENSORS: dict[str, tuple[int, tuple[int, ...], bytes]] = {
    "raw": (1, (4,), RAW),
    "grid": (1, (3, 4), f32(*GRID_WEIGHTS)),
    "split": (10, (4,), struct.pack("<4e", *SPLIT_WEIGHTS)),
    "moments": (1, (2, 2), f32(*MOMENTS_WEIGHTS)),
    "lowrank": (1, (2, 3), f32(*LOWRANK_WEIGHTS)),
}
_NUMBERS = {"raw": 1, "grid": 2, "split": 3, "moments": 4, "lowrank": 5}


def _model(pen: Pen) -> Tape:
    out = pen("model.id", string("tiny")) + pen("model.version", varint(1))
    for name, value in (("major", 0), ("minor", 1), ("patch", 0)):
        out += pen(f"model.runtime_{name}", varint(value))
    return out + pen("model.parameters", varint(16)) + pen("model.source_bytes", varint(64)) + pen("model.end", b"")


def _weights(pen: Pen, streams: Sequence[str]) -> Tape:
    weights = weights_of(streams)
    out = pen("weights.size", varint(len(weights)))
    out += pen("weights.digest", hashlib.sha256(weights).digest())
    return out + pen("weights.working_bytes", varint(1 << 20)) + pen("weights.end", b"")


def _parts(pen: Pen, skeleton: bytes) -> Tape:
    out = pen("parts.count", varint(1)) + pen("parts.kind", u16(1)) + pen("parts.packing", u8(0))
    out += pen("parts.raw_size", varint(len(skeleton))) + pen("parts.size", varint(len(skeleton)))
    return out + pen("parts.digest", hashlib.sha256(skeleton).digest()) + pen("parts.end", b"")


def _holes(pen: Pen, streams: Sequence[str]) -> Tape:
    out, end = pen("holes.count", varint(len(streams))), 0
    for name in streams:
        code, dims, data = _TENSORS[name]
        out += pen("holes.dtype", u8(code)) + pen("holes.skip", varint(-end % 64))
        out += pen("holes.rank", varint(len(dims)))
        for dim in dims:
            out += pen("holes.dimension", varint(dim))
        end += -end % 64 + len(data)
    return out + pen("holes.end", b"")


def _streams(pen: Pen, streams: Sequence[str], chunks: list[list[bytes]]) -> Tape:
    out = pen("streams.count", varint(len(streams)))
    for name, coded in zip(streams, chunks, strict=True):
        out += pen("streams.codec", u8(_NUMBERS[name])) + pen("streams.holes", varint(1))
        out += pen("streams.chunks", varint(len(coded)))
        for chunk in coded:
            out += pen("streams.chunk_size", varint(len(chunk)))
        for chunk in coded:
            out += pen("streams.chunk_digest", hashlib.sha256(chunk).digest()[:16])
    return out + pen("streams.end", b"")


def _golden(pen: Pen) -> Tape:
    """Zeros in: what comes out are the weights, raw's added to each row of grid's."""
    rows = [[GRID_WEIGHTS[4 * i + j] + struct.unpack("<4f", RAW)[j] for j in range(4)] for i in range(3)]
    values = [value for row in rows for value in row]
    out = pen("golden.seed", varint(0)) + pen("golden.inputs", varint(1)) + pen("golden_input.kind", u8(0))
    out += pen("golden_input.dtype", u8(1)) + pen("golden_input.rank", varint(3))
    for dim in (1, 3, 4):
        out += pen("golden_input.dimension", varint(dim))
    out += pen("golden_input.a", f32(0)) + pen("golden_input.b", f32(0)) + pen("golden_input.data", b"")
    out += pen("golden.outputs", varint(1)) + pen("golden_output.size", varint(12))
    out += pen("golden_output.tolerance", f32(2.0**-20))
    out += pen("golden_output.norm", f32(sum(value * value for value in values) ** 0.5))
    out += pen("golden_output.count", varint(4)) + pen("golden_output.values", f32(*values[::3]))
    return out + pen("golden.end", b"")


def _footprint(pen: Pen) -> Tape:
    out = pen("footprint.axes", varint(1))
    out += pen("footprint.input", string("x")) + pen("footprint.axis", varint(0))
    out += pen("footprint.points", varint(2))
    out += pen("footprint.point", varint(1)) + pen("footprint.point", varint(8))
    out += pen("footprint.modes", varint(1)) + pen("footprint.mode", string("lean"))
    out += pen("footprint.opening", varint(20)) + pen("footprint.mapped", varint(1))
    out += pen("footprint.peak", varint(16)) + pen("footprint.peak", varint(17))
    return out + pen("footprint.end", b"")


def _skeleton(pen: Pen, streams: Sequence[str]) -> Tape:
    """y = x + grid + raw: an ONNX model whose weights lie outside. The other weights are used by nothing."""
    shape = block(1, block(2, "n")) + block(1, number(1, 3)) + block(1, number(1, 4))
    values = [block(1, name) + block(2, block(1, number(1, 1) + block(2, shape))) for name in ("x", "y")]
    add = [block(1, a) + block(1, b) + block(2, out) + block(4, "Add") for a, b, out in _NODES]
    graph, end = block(1, add[0]) + block(1, add[1]) + block(2, "g"), 0
    for name in streams:
        code, dims, data = _TENSORS[name]
        offset = end + -end % 64
        tensor = raw_of(pen("skeleton.dims", b"".join(number(1, dim) for dim in dims)))
        tensor += raw_of(pen("skeleton.type", number(2, code))) + block(8, raw_of(pen("skeleton.name", name.encode())))
        for key, text in (("location", "model.weights"), ("offset", str(offset)), ("length", str(len(data)))):
            tensor += block(13, block(1, key) + block(2, raw_of(pen(f"skeleton.{key}", text.encode()))))
        tensor += raw_of(pen("skeleton.entry", b"")) + number(14, 1)
        graph += raw_of(pen("skeleton.tensor", block(5, tensor)))
        end = offset + len(data)
    graph += block(11, values[0]) + block(12, values[1])
    graph += raw_of(pen("skeleton.graph", b""))
    model = number(1, 8) + block(7, graph) + block(8, raw_of(pen("skeleton.opset", number(2, 13))))
    return pen("part.data", model + raw_of(pen("skeleton.model", b"")))


_NODES = (("x", "grid", "a"), ("a", "raw", "y"))


def _raw(pen: Pen) -> list[Tape]:
    planes = bytes(RAW[4 * place + plane] for plane in range(4) for place in range(4))
    return [pen("raw_chunk.packing", u8(0)) + pen("raw_chunk.width", u8(4)) + pen("raw_chunk.data", planes)]


def _grid(pen: Pen) -> list[Tape]:
    return _symbols(pen, [GRID], GRID_TABLES, 1, [])


def _split(pen: Pen) -> list[Tape]:
    # float16: rotated left by one, exponent and three bits of mantissa stand in the upper byte.
    bits = struct.unpack("<4H", _TENSORS["split"][2])
    matrix = Matrix([[(value << 1 | value >> 15) & 0xFFFF for value in bits]], low_bits=8)
    matrix.symbols = [(0, value << 1 >> 8 & 0xFF) for value in bits]
    symbols = sorted({symbol for _, symbol in matrix.symbols})
    table = Table(symbols[0], [1024 * (symbol in symbols) for symbol in range(symbols[0], symbols[-1] + 1)])
    return _symbols(pen, [matrix], [table], 0, [])


def _moments(pen: Pen) -> list[Tape]:
    head = pen("moments.columns", varint(2)) + pen("moments.components", varint(1)) + pen("moments.seed", varint(7))
    head += pen("moments.mean", f32(0)) + pen("moments.deviation", f32(0)) + pen("moments.threshold", f32(0))
    first = pen("head_chunk.packing", u8(0)) + pen("head_chunk.size", varint(len(raw_of(head)))) + head
    halves = struct.pack("<6e", 1, 1.5, 0.5, -1.5, 1, -1)
    return [first, pen("raw_chunk.packing", u8(0)) + pen("raw_chunk.width", u8(1)) + pen("raw_chunk.data", halves)]


def _lowrank(pen: Pen) -> list[Tape]:
    right, left = Matrix([[1, 2, -1]], step=0.5), Matrix([[1], [3]], step=0.5)
    own = pen("lowrank.columns", varint(3)) + pen("lowrank.rank", varint(1)) + pen("lowrank.shifts", bytes([1]))
    return _symbols(pen, [right, left], [Table(255, [1024, 0, 1024, 1024, 1016], 8)], 0, own)


def _symbols(pen: Pen, matrices: list[Matrix], tables: list[Table], lanes_log2: int, own: Tape) -> list[Tape]:
    """Head and the one data chunk of a symbol stream."""
    head = own + pen("head.lanes", u8(lanes_log2)) + pen("head.classes", varint(len(tables)))
    for table in tables:
        head += pen("table.count", varint(len(table.frequencies)))
        head += pen("table.escape", varint(table.escape)) if table.escape is not None else []
        head += pen("table.first", u8(table.first))
        for frequency in table.frequencies:
            head += pen("table.frequency", varint(frequency))
    for matrix in matrices:
        arrays = (matrix.row_classes, matrix.col_classes, matrix.row_steps)
        flags = sum(1 << bit for bit, array in enumerate(arrays) if array is not None)
        head += pen("matrix.columns", varint(len(matrix.values[0]))) + pen("matrix.low_bits", u8(matrix.low_bits))
        head += pen("matrix.flags", u8(flags))
        head += pen("matrix.step", f32(matrix.step)) if matrix.step is not None else []
    for name in ("row_steps", "row_classes", "col_classes"):
        for matrix in matrices:
            head += pen(f"head.{name}", getattr(matrix, name)) if getattr(matrix, name) is not None else []
    head += pen("head.end", b"")
    size = len(raw_of(head))
    packed = pen("head_chunk.data", raw_of(head))
    first = pen("head_chunk.packing", u8(0)) + pen("head_chunk.size", varint(size))
    first += head if packed[0][1] == raw_of(head) else packed

    states, words = rans([pair for matrix in matrices for pair in matrix.symbols], tables, 1 << lanes_log2)
    chunk = pen("data_chunk.states", b"".join(u32(state) for state in states))
    chunk += pen("data_chunk.word_count", varint(len(words)))
    chunk += pen("data_chunk.words", b"".join(u16(word) for word in words))
    for matrix in matrices:
        for plane in matrix.planes():
            chunk += pen("plane.packing", u8(0)) + pen("plane.size", b"") + pen("plane.data", plane)
    chunk += pen("data_chunk.escapes", b"".join(i32(*matrix.escaped) for matrix in matrices))
    return [first, chunk]


_STREAMS: dict[str, Callable[[Pen], list[Tape]]] = {
    "raw": _raw,
    "grid": _grid,
    "split": _split,
    "moments": _moments,
    "lowrank": _lowrank,
}
