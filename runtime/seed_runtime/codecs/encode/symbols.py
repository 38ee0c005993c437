"""Encode side of symbol streams: head, lanes, low planes and escapes (SPEC.md, "Symbol streams").

Memory: `encode` needs at most WORKING_BYTES_PER_SYMBOL for each symbol of its stream, and WORKING_BYTES_FIXED, beside
the matrices that it is given. Whoever has little memory makes streams of fewer symbols.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from seed_runtime.codecs.encode import lanes as lane_coder
from seed_runtime.codecs.encode.contexts import CLASSES, Classes
from seed_runtime.codecs.encode.packing import pack
from seed_runtime.codecs.lanes import SLOTS
from seed_runtime.codecs.planes import ESCAPE
from seed_runtime.format import primitives
from seed_runtime.limits import CHUNK_DECODED_MAX, LANES_LOG2_MAX, STEPS_MAX

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

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
_COUNTS_CACHED = 1 << 14
"""Number of symbols from which a matrix keeps its histogram, which takes 40 KB, for the next size that is asked for."""
_TABLE_ENTRY_BITS = 9.0
"""Average size of a frequency in a packed head, for deciding whether two classes share a table [bit]."""
_TABLE_BITS = 24
"""Size of a table in a packed head without its frequencies [bit]."""


@dataclass(frozen=True, eq=False)
class CodedMatrix:
    """A matrix ready for the lanes: its live symbols, the bits below them, and its classes. Equal only to itself."""

    symbols: U8
    """`(live rows * live columns,)`."""
    classes: Classes
    low_bits: int = 0
    low: npt.NDArray[np.uint32] | None = None
    """As `symbols`, each below 2**low_bits."""
    escaped: npt.NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    """Values of the symbols that are ESCAPE, in order."""
    step: float | None = None
    row_steps: U8 | None = None
    """`(rows,)`, eighths of an octave above `step`."""

    @property
    def counts(self) -> I64:
        """Number of symbols under each class, `(CLASSES, 256)`."""
        return self._counts.astype(np.int64) if self.symbols.size >= _COUNTS_CACHED else self._count()

    @property
    def low_bytes(self) -> int:
        """Size of the low planes before they are packed [B]."""
        return -(-self.symbols.size * self.low_bits // 8)

    @property
    def side_bits(self) -> float:
        """Size of row classes, column classes and row steps under their own entropy [bit]."""
        arrays = [self.classes.rows, self.classes.cols]
        arrays += [] if self.row_steps is None else [self.row_steps]
        return sum(entropy_bits(np.bincount(array)[None]) for array in arrays)

    @cached_property
    def _counts(self) -> npt.NDArray[np.uint32]:
        return self._count().astype(np.uint32)

    def _count(self) -> I64:
        key = self.classes.of_symbols().reshape(-1).astype(np.uint16)
        key <<= np.uint16(8)
        key |= self.symbols
        return np.bincount(key, minlength=CLASSES * 256).reshape(CLASSES, 256)


@dataclass(frozen=True)
class SymbolStream:
    """The coded chunks of a stream, and the entropy of its symbols."""

    chunks: list[bytes]
    entropy_bits: float
    """Entropy of the symbols under their classes, before any table is rounded."""


@dataclass(frozen=True)
class StreamEstimate:
    """How many bytes a stream will take, without coding it."""

    chunks: tuple[int, ...]
    """Size of each chunk, within 0.1 % and not below what coding gives [B]."""
    tensors: tuple[float, ...]
    """Size of each matrix under the stream's tables, and its share of what all of them share [B]."""

    @property
    def size(self) -> int:
        """Size of the whole stream [B]."""
        return sum(self.chunks)


def histogram(matrices: Sequence[CodedMatrix]) -> I64:
    """Count the symbols under each class over all matrices, `(CLASSES, 256)`."""
    counts = np.zeros((CLASSES, 256), np.int64)
    for matrix in matrices:
        counts += matrix.counts
    return counts


def entropy_bits(counts: I64) -> float:
    """Compute the entropy of symbols under their classes, from `(classes, symbols)` counts."""
    total = counts.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(-np.where(counts > 0, counts * np.log2(counts / total), 0).sum())


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
        coded = _coded(matrices, layout, progress)
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
            bounds = _coded(matrices, layout, None).bounds
        else:
            bounds = lane_coder.estimated_bounds(layout.merged, layout.frequencies, 1 << layout.lanes_log2)
        for number, (first, last) in enumerate(layout.spans(bounds)):
            states = 4 << layout.lanes_log2 if number == 0 else 0
            count = len(primitives.varint(last - first))
            chunks.append(states + count + 2 * (last - first) + len(layout.below[number]))
    own = [_matrix_bytes(matrix, layout) for matrix in matrices]
    shared = sum(chunks) - sum(own)
    total = sum(own)
    shares = [size / total if total else 1 / len(own) for size in own]
    return StreamEstimate(tuple(chunks), tuple(size + shared * share for size, share in zip(own, shares, strict=True)))


@dataclass(frozen=True)
class _Layout:
    """What the symbols of a stream are coded with, and everything in its chunks but the lanes' words."""

    head: bytes
    lanes_log2: int
    of_class: U8
    """Number of the table of each class."""
    merged: I64
    """Number of symbols under each table, `(tables, 256)`."""
    frequencies: I64
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
    tables = _shared_tables(counts)
    bits = entropy_bits(counts)
    total = sum(matrix.symbols.size for matrix in matrices)
    below = _below(matrices)
    lanes_log2 = _lanes_log2(bits / 8, sum(map(len, below)), total)
    merged = np.stack([counts[group].sum(axis=0) for group in tables.groups])
    frequencies = np.stack([lane_coder.normalized(row) for row in merged])
    head = prefix + _head(matrices, lanes_log2, tables, frequencies, quantized)
    return _Layout(head, lanes_log2, tables.of_class, merged, frequencies, below, total, bits)


def _packed_head(head: bytes) -> bytes:
    packing, packed = pack(head)
    return primitives.uint(packing, 1) + primitives.varint(len(head)) + packed


def _coded(
    matrices: Sequence[CodedMatrix], layout: _Layout, progress: Callable[[int], None] | None
) -> lane_coder.Coded:
    symbols = np.concatenate([matrix.symbols for matrix in matrices])
    classes = np.concatenate([layout.of_class[matrix.classes.of_symbols()].reshape(-1) for matrix in matrices])
    return lane_coder.encode(symbols, classes, layout.frequencies, 1 << layout.lanes_log2, progress)


def _matrix_bytes(matrix: CodedMatrix, layout: _Layout) -> float:
    """Size of one matrix under the stream's tables: symbols, low bits, escapes, classes and steps."""
    counts = matrix.counts
    used = counts > 0
    frequencies = layout.frequencies[layout.of_class][used]
    bits = float((counts[used] * np.log2(SLOTS / frequencies)).sum())
    return (bits + matrix.side_bits) / 8 + matrix.low_bytes + 4 * matrix.escaped.size


def _below(matrices: Sequence[CodedMatrix]) -> list[bytes]:
    """Lay out what stands in each chunk behind its words: low planes, then escapes."""
    ends = np.cumsum([matrix.symbols.size for matrix in matrices]).tolist()
    found = []
    for start in range(0, ends[-1], CHUNK_DECODED_MAX):
        stop = min(start + CHUNK_DECODED_MAX, ends[-1])
        planes, escapes = [], []
        for matrix, end in zip(matrices, ends, strict=True):
            begin = end - matrix.symbols.size
            a, b = max(start, begin) - begin, min(stop, end) - begin
            if a < b:
                planes += _planes(matrix, a, b)
                before = np.count_nonzero(matrix.symbols[:a] == ESCAPE) if matrix.escaped.size else 0
                within = np.count_nonzero(matrix.symbols[a:b] == ESCAPE) if matrix.escaped.size else 0
                escapes.append(matrix.escaped[before : before + within].astype("<i4").tobytes())
        found.append(b"".join(planes + escapes))
    return found


@dataclass(frozen=True)
class _Tables:
    groups: list[slice]
    """Neighbouring classes that share a table."""
    of_class: U8
    """Table of each class."""


def _shared_tables(counts: I64) -> _Tables:
    """Merge neighbouring classes while a table costs more than it saves."""
    used = np.flatnonzero(counts.sum(axis=1))
    last = int(used[-1]) + 1 if used.size else 1
    groups = [slice(number, number + 1) for number in range(last)]
    costs = [_cost(counts[group].sum(axis=0)) for group in groups]
    merged = [_cost(counts[a.start : b.stop].sum(axis=0)) for a, b in pairwise(groups)]
    while len(groups) > 1:
        gains = [costs[i] + costs[i + 1] - merged[i] for i in range(len(merged))]
        best = int(np.argmax(gains))
        if gains[best] < 0:
            break
        groups[best : best + 2] = [slice(groups[best].start, groups[best + 1].stop)]
        costs[best : best + 2] = [merged[best]]
        # Only the pairs with the new group have another cost.
        first = max(best - 1, 0)
        pairs = pairwise(groups[first : best + 2])
        merged[first : best + 2] = [_cost(counts[a.start : b.stop].sum(axis=0)) for a, b in pairs]
    of_class = np.zeros(CLASSES, np.uint8)
    for number, group in enumerate(groups):
        of_class[group] = number
    of_class[last:] = len(groups) - 1
    return _Tables(groups, of_class)


def _cost(counts: I64) -> float:
    """Compute the bits of symbols and of their table."""
    present = counts[counts > 0]
    if not present.size:
        return 0.0
    return float(-(present * np.log2(present / present.sum())).sum()) + _TABLE_ENTRY_BITS * present.size + _TABLE_BITS


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
    tables: _Tables,
    frequencies: I64,
    quantized: bool,
) -> bytes:
    out = [primitives.uint(lanes_log2, 1), primitives.varint(tables.groups[-1].stop)]
    for group, row in zip(tables.groups, frequencies, strict=True):
        out.append(_table(row, quantized))
        out += [primitives.varint(0)] * (group.stop - group.start - 1)
    flagged = []
    for matrix in matrices:
        rows, cols, steps = matrix.classes.rows, matrix.classes.cols, matrix.row_steps
        arrays = {1: None if (rows == 1).all() else rows, 2: None if (cols == 1).all() else cols, 4: steps}
        flagged.append(arrays)
        flags = sum(flag for flag, array in arrays.items() if array is not None)
        out += [primitives.varint(cols.size), primitives.uint(matrix.low_bits, 1), primitives.uint(flags, 1)]
        if quantized:
            assert matrix.step is not None
            out.append(primitives.f32(matrix.step))
    for flag in (4, 1, 2):
        out += [array.tobytes() for arrays in flagged if (array := arrays[flag]) is not None]
    return b"".join(out)


def _table(frequencies: I64, quantized: bool) -> bytes:
    """Write a table as the shortest run of symbols, modulo 256, that holds all but the escape."""
    counts = frequencies.copy()
    out = []
    escape = 0
    if quantized:
        escape, counts[ESCAPE] = int(counts[ESCAPE]), 0
    present = np.flatnonzero(counts)
    gaps = np.diff(np.concatenate([present, present[:1] + 256]))
    widest = int(np.argmax(gaps))
    first = int(present[(widest + 1) % present.size])
    count = 256 - int(gaps[widest]) + 1
    out = [primitives.varint(count)] + ([primitives.varint(escape)] if quantized else []) + [primitives.uint(first, 1)]
    out += [primitives.varint(int(counts[(first + place) % 256])) for place in range(count)]
    return b"".join(out)


def _planes(matrix: CodedMatrix, start: int, stop: int) -> list[bytes]:
    if not matrix.low_bits:
        return []
    assert matrix.low is not None
    low = np.ascontiguousarray(matrix.low[start:stop])
    octets = low.view(np.uint8).reshape(-1, 4)
    planes = [octets[:, place].tobytes() for place in range(matrix.low_bits // 8)]
    planes += [_bit_plane(low, bit) for bit in range(matrix.low_bits // 8 * 8, matrix.low_bits)]
    out = []
    for plane in planes:
        packing, data = (0, plane) if _noise(plane) else pack(plane, thorough=False)
        out.append(primitives.uint(packing, 1) + (primitives.varint(len(data)) if packing else b"") + data)
    return out


def _bit_plane(values: npt.NDArray[np.uint32], bit: int) -> bytes:
    bits = (values >> np.uint32(bit) & np.uint32(1)).astype(np.uint8)
    return np.packbits(bits, bitorder="little").tobytes()


def _noise(plane: bytes) -> bool:
    """Return whether bytes are too even for deflate to gain 2 %; it saves most of the time of lossless encoding."""
    counts = np.bincount(np.frombuffer(plane, np.uint8), minlength=256)
    share = counts[counts > 0] / len(plane)
    return float(-(share * np.log2(share)).sum()) > 8 * 0.98 and len(plane) > 4096
