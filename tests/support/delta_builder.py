"""Build a seed on top of `build_seed()`, field by field from SPEC.md; any field can be replaced, as there.

Its only stream is of codec 7 and has each of the modes. It has neither parts nor holes: they are the base's.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Mapping

from tests.support.seed_builder import (
    ADAPTIVE_WEIGHTS,
    ALL,
    GRID_WEIGHTS,
    LOWRANK_WEIGHTS,
    MODEL,
    STREAMS,
    TRELLIS,
    TRELLIS_WEIGHTS,
    WEIGHTS,
    Fields,
    FieldWriter,
    Replacement,
    build_seed,
    join_fields,
    model_section,
    seal,
    symbol_stream,
    weights_section,
)
from tests.support.spec_bytes import Matrix, Table, f32, string, u8, varint

BASE, TUNED = 8, 0x8009
MODES = {"raw": 1, "grid": 4, "split": 2, "moments": 3, "lowrank": 0, "trellis": 1, "adaptive": 0, "integers": 0}
"""The mode of each hole of the base."""
TOP, SPAN = 129, 1
"""Of grid's weights -6 and 900 are in octave 129 and above; all others add 1 to their class."""
MOVES = [1, 0, -1, 0, 2, 0, 17, 0, 0, 1, -3, -2]
"""17 is in the bucket of 16, with a bit of 1."""


def _moved(weight: float, places: int) -> bytes:
    """Return the float32 that stands so many places above another one."""
    (bits,) = struct.unpack("<I", struct.pack("<f", weight))
    order = (bits + (1 << 31) if bits < 1 << 31 else (1 << 32) - 1 - bits) + places
    return struct.pack("<I", order - (1 << 31) if order >= 1 << 31 else (1 << 32) - 1 - order)


def _by_octave() -> Matrix:
    away = [-move if math.copysign(1, weight) < 0 else move for weight, move in zip(GRID_WEIGHTS, MOVES, strict=True)]
    matrix = Matrix([away[start : start + 4] for start in (0, 4, 8)], step=1.0, buckets=True)
    added = [int(abs(weight) < 4) for weight in GRID_WEIGHTS]
    matrix.symbols = [(table + more, symbol) for (table, symbol), more in zip(matrix.symbols, added, strict=True)]
    return matrix


MATRICES = [
    Matrix([[2, 0, -1, 3]], step=0.25, row_steps=bytes([8])),
    _by_octave(),
    Matrix([[0, 1, -3, 300]], low_bits=1, step=1.0),
    Matrix([[1, -1], [2, 0]], step=0.5),
    TRELLIS,
]
TABLES = [
    Table(253, [100, 300, 600, 1600, 600, 400, 400], 96),
    Table(253, [1, 95, 800, 2300, 400, 300, 100] + [0] * 12 + [100], 0),
]
_AFTER = {
    "raw": f32(0.5 + 1.0, -1.0, 2.0 - 0.5, 0.0 + 1.5),
    "grid": b"".join(map(_moved, GRID_WEIGHTS, MOVES)),
    # 1.0; -0.5 and one above it; 0.25 and three below it; -2.0 and 300 above it.
    "split": struct.pack("<4H", 0x3C00, 0xB7FF, 0x33FD, 0xBED4),
    "moments": f32(0.5, -0.5, 1.0, 0.0),
    "lowrank": f32(*LOWRANK_WEIGHTS),
    "trellis": f32(*(2 * weight for weight in TRELLIS_WEIGHTS)),
    "adaptive": f32(*ADAPTIVE_WEIGHTS),
    "integers": bytes.fromhex("69 f8 b0 78"),
}


def build_delta(replaced: Mapping[str, Replacement] | None = None) -> bytes:
    """Return the bytes of the seed. AssertionError if a replaced field isn't in it."""
    return join_fields(delta_fields(replaced))


def delta_fields(replaced: Mapping[str, Replacement] | None = None) -> Fields:
    """Return the same seed field by field."""
    write = FieldWriter(replaced or {})
    own = write("delta.modes", bytes(MODES[name] for name in ALL))
    own += write("delta.top", u8(TOP)) + write("delta.span", u8(SPAN))
    chunks = symbol_stream(write, MATRICES, TABLES, 1, own)
    sections = {
        MODEL: model_section(write),
        WEIGHTS: weights_section(write, changed_weights()),
        STREAMS: _streams(write, [join_fields(chunk) for chunk in chunks]),
        BASE: _base(write),
        TUNED: _tuned(write),
    }
    return seal(write, sections, [row for chunk in chunks for row in chunk])


def changed_weights() -> bytes:
    """Return the weights file that the valid seed and its base decode to."""
    out = b""
    for name in ALL:
        out += bytes(-len(out) % 64) + _AFTER[name]
    return out


def _streams(write: FieldWriter, chunks: list[bytes]) -> Fields:
    out = write("streams.count", varint(1)) + write("streams.codec", u8(7)) + write("streams.holes", varint(len(ALL)))
    out += write("streams.chunks", varint(len(chunks)))
    for chunk in chunks:
        out += write("streams.chunk_size", varint(len(chunk)))
    for chunk in chunks:
        out += write("streams.chunk_digest", hashlib.sha256(chunk).digest()[:16])
    return out + write("streams.end", b"")


def _base(write: FieldWriter) -> Fields:
    digest = build_seed()[24:56]
    return write("base.digest", digest) + write("base.depth", varint(1)) + write("base.end", b"")


def _tuned(write: FieldWriter) -> Fields:
    out = write("tuned.mode", string("small")) + write("tuned.metric", string("accuracy"))
    return out + write("tuned.before", f32(0.5)) + write("tuned.after", f32(0.75)) + write("tuned.end", b"")
