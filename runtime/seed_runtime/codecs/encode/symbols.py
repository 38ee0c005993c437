"""Encode side of symbol streams: head, lanes, low planes and escapes (SPEC.md, "Symbol streams").

Memory: `encode` needs at most WORKING_BYTES_PER_SYMBOL for each symbol of its stream, and WORKING_BYTES_FIXED, beside
the matrices that it is given. Whoever has little memory makes streams of fewer symbols.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from seed_runtime.codecs.encode import buckets
from seed_runtime.codecs.encode import lanes as lane_coder
from seed_runtime.codecs.encode.matrix import I64, CodedMatrix, entropy_bits, histogram
from seed_runtime.codecs.encode.packing import pack
from seed_runtime.codecs.encode.planes import packed_planes
from seed_runtime.codecs.encode.tables import Tables
from seed_runtime.codecs.planes import ESCAPE
from seed_runtime.format import primitives
from seed_runtime.limits import CHUNK_DECODED_MAX, LANES_LOG2_MAX, STEPS_MAX

WORKING_BYTES_PER_SYMBOL: Final = 12
"""Most memory that encoding takes for each symbol of a stream, low bits included [B]."""
WORKING_BYTES_FIXED: Final = 8 << 20
"""Most memory that encoding takes beyond that, for tables, lanes and the block that is being coded [B]."""

_QUICKLY_CODED = 1 << 16
"""Number of symbols up to which coding takes some milliseconds, so that a size is found by coding."""
_STATES_SHARE = 0.006
"""Share of the symbols' bytes that the states of their lanes may take: the more lanes, the faster they decode."""
_STATES_SHARE_SMALL = 0.003
"""Share of a whole stream's bytes, low planes and escapes counted, that up to _LANES_SMALL lanes may take."""
_LANES_SMALL = 2048
"""Number of lanes below which a step's fixed cost is most of its time: 13 us of 17 at 1,024 lanes, of 27 at 4,096 (one
core)."""


@dataclass(frozen=True)
class SymbolStream:
    """The coded chunks of a stream, and the entropy of its symbols."""

    chunks: list[bytes]
    entropy_bits: float
    """Entropy of the symbols under their classes, before any table is rounded."""


@dataclass(frozen=True)
class StreamEstimate:
    """Size that a stream will have, computed without coding it."""

    chunks: tuple[int, ...]
    """Size of each chunk, within 0.1 % and not below what coding gives [B]."""
    tensors: tuple[float, ...]
    """Size of each matrix under the stream's tables, and its share of what all of them share [B]."""
    coded: SymbolStream | None = field(default=None, compare=False, repr=False)
    """The stream itself, where its size could be found only by coding it."""

    @property
    def size(self) -> int:
        """Size of the whole stream [B]."""
        return sum(self.chunks)


def encode(
    matrices: Sequence[CodedMatrix], progress: Callable[[int], None] | None = None, *, prefix: bytes = b""
) -> SymbolStream:
    """Code all matrices as one stream.

    Args:
        matrices: in the order of their symbols.
        progress: called with the number of symbols coded since its last call.
        prefix: a codec's own fields, which stand before the head's.
    """
    layout = _layout(matrices, prefix)
    chunks = [_packed_head(layout.head)]
    if layout.total:
        coded = _coded(layout, progress)
        words = coded.words.astype("<u2", copy=False)
        for number, (first, last) in enumerate(layout.spans(coded.bounds)):
            states = coded.states.astype("<u4").tobytes() if number == 0 else b""
            count = primitives.varint(last - first)
            chunks.append(states + count + words[first:last].tobytes() + layout.below[number])
    return SymbolStream(chunks, layout.entropy_bits)


def estimate(matrices: Sequence[CodedMatrix], *, prefix: bytes = b"") -> StreamEstimate:
    """Compute the sizes that `encode` would give from the same tables, without the lanes, which take most of its time.

    Args:
        matrices: as for `encode`.
        prefix: as for `encode`.
    """
    layout = _layout(matrices, prefix)
    chunks = [len(_packed_head(layout.head))]
    if layout.total:
        if layout.total <= _QUICKLY_CODED:
            bounds = _coded(layout, None).bounds
        else:
            tables = layout.tables
            bounds = lane_coder.estimated_bounds(tables.counts, tables.frequencies, 1 << layout.lanes_log2)
        for number, (first, last) in enumerate(layout.spans(bounds)):
            states = 4 << layout.lanes_log2 if number == 0 else 0
            count = len(primitives.varint(last - first))
            chunks.append(states + count + 2 * (last - first) + len(layout.below[number]))
    own = [layout.tables.bytes_of(matrix) for matrix in matrices]
    shared = sum(chunks) - sum(own)
    total = sum(own)
    shares = [size / total if total else 1 / len(own) for size in own]
    return StreamEstimate(tuple(chunks), tuple(size + shared * share for size, share in zip(own, shares, strict=True)))


@dataclass(frozen=True, eq=False)
class _Layout:
    """Head, lanes and tables with which a stream's symbols are coded, and all of its chunks but the lanes' words."""

    matrices: Sequence[CodedMatrix]
    """What is coded, with the symbols escaped that the tables leave out."""
    head: bytes
    lanes_log2: int
    tables: Tables
    below: list[bytes]
    """Low planes and escapes of each chunk."""
    total: int
    """Number of symbols."""
    entropy_bits: float

    def spans(self, bounds: I64) -> list[tuple[int, int]]:
        """List the first and the last word of each chunk."""
        starts = range(0, self.total, CHUNK_DECODED_MAX)
        ends = [min(start + CHUNK_DECODED_MAX, self.total) for start in starts]
        return [
            (int(bounds[start >> self.lanes_log2]), int(bounds[-(-end >> self.lanes_log2)]))
            for start, end in zip(starts, ends, strict=True)
        ]


def _layout(matrices: Sequence[CodedMatrix], prefix: bytes) -> _Layout:
    quantized = matrices[0].step is not None
    counts = histogram(matrices)
    tables = Tables.of_counts(counts, with_escape=quantized)
    bits = entropy_bits(counts)
    total = sum(matrix.symbols.size for matrix in matrices)
    matrices = [tables.escape_rare(matrix) for matrix in matrices]
    below = _below(matrices)
    lanes_log2 = _lanes_log2(bits / 8, sum(map(len, below)), total)
    head = prefix + _head(matrices, lanes_log2, tables, quantized)
    return _Layout(matrices, head, lanes_log2, tables, below, total, bits)


def _packed_head(head: bytes) -> bytes:
    packing, packed = pack(head)
    return primitives.uint(packing, 1) + primitives.varint(len(head)) + packed


def _coded(layout: _Layout, progress: Callable[[int], None] | None) -> lane_coder.Coded:
    matrices = layout.matrices
    symbols = np.concatenate([matrix.symbols for matrix in matrices])
    of_class = layout.tables.of_class
    classes = np.concatenate([of_class[matrix.classes.of_symbols()].reshape(-1) for matrix in matrices])
    return lane_coder.encode(symbols, classes, layout.tables.frequencies, 1 << layout.lanes_log2, progress)


def _below(matrices: Sequence[CodedMatrix]) -> list[bytes]:
    """Lay out what stands in each chunk behind its words: low planes, then escapes."""
    ends = np.cumsum([matrix.symbols.size for matrix in matrices]).tolist()
    found = []
    for start in range(0, ends[-1], CHUNK_DECODED_MAX):
        stop = min(start + CHUNK_DECODED_MAX, ends[-1])
        spans: list[tuple[CodedMatrix, int, int]] = []
        escapes = []
        for matrix, end in zip(matrices, ends, strict=True):
            begin = end - matrix.symbols.size
            a, b = max(start, begin) - begin, min(stop, end) - begin
            if a < b:
                spans.append((matrix, a, b))
                before = np.count_nonzero(matrix.symbols[:a] == ESCAPE) if matrix.escaped.size else 0
                within = np.count_nonzero(matrix.symbols[a:b] == ESCAPE) if matrix.escaped.size else 0
                escapes.append(matrix.escaped[before : before + within].astype("<i4").tobytes())
        found.append(b"".join(packed_planes(spans) + _bits_of_buckets(spans) + escapes))
    return found


def _bits_of_buckets(spans: Sequence[tuple[CodedMatrix, int, int]]) -> list[bytes]:
    """Lay out the bits below the symbols of a chunk that are buckets; nothing where none of its matrices has any."""
    parts = [(matrix.symbols[a:b], matrix.below[a:b]) for matrix, a, b in spans if matrix.below is not None]
    if not parts:
        return []
    symbols, below = (np.concatenate(each) for each in zip(*parts, strict=True))
    return [buckets.pack(symbols, below)]


def _lanes_log2(coded_bytes: float, other_bytes: int, symbols: int) -> int:
    """Choose the number of lanes for symbols that take `coded_bytes`, with `other_bytes` beside them in the stream."""
    states = min((coded_bytes + other_bytes) * _STATES_SHARE_SMALL, 4 * _LANES_SMALL)
    states = max(states, coded_bytes * _STATES_SHARE)
    lanes = max(min(states / 4, symbols), 1)
    # A constant matrix has next to no bytes, and with one lane a step for each symbol: a million took 100 s.
    least = -(-min(symbols, CHUNK_DECODED_MAX) // STEPS_MAX)
    return min(max(int(np.log2(lanes)), (least - 1).bit_length()), LANES_LOG2_MAX)


def _head(
    matrices: Sequence[CodedMatrix],
    lanes_log2: int,
    tables: Tables,
    quantized: bool,
) -> bytes:
    classes = max(matrix.classes.reach for matrix in matrices)
    out = [primitives.uint(lanes_log2, 1), tables.pack(with_escape=quantized, classes=classes)]
    flagged = []
    for matrix in matrices:
        rows, cols = matrix.classes.rows, matrix.classes.cols
        arrays = {1: None if (rows == 1).all() else rows, 2: None if (cols == 1).all() else cols}
        arrays |= {4: matrix.row_steps, 8: matrix.col_steps}
        flagged.append(arrays)
        flags = sum(flag for flag, array in arrays.items() if array is not None)
        flags |= 16 if matrix.delay is not None else 0
        out += [primitives.varint(cols.size), primitives.uint(matrix.low_bits, 1), primitives.uint(flags, 1)]
        if quantized:
            assert matrix.step is not None
            out.append(primitives.f32(matrix.step))
        if matrix.delay is not None:
            out.append(primitives.varint(matrix.delay))
    for flag in (4, 8, 1, 2):
        out += [array.tobytes() for arrays in flagged if (array := arrays[flag]) is not None]
    return b"".join(out)
