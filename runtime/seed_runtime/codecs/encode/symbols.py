"""Encode side of symbol streams: head, lanes, low planes and escapes (SPEC.md, "Symbol streams")."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from seed_runtime.codecs.encode import lanes as lane_coder
from seed_runtime.codecs.encode.contexts import CLASSES, Classes
from seed_runtime.codecs.encode.packing import pack
from seed_runtime.codecs.planes import ESCAPE
from seed_runtime.format import primitives
from seed_runtime.limits import CHUNK_DECODED_MAX, LANES_LOG2_MAX, STEPS_MAX

U8 = npt.NDArray[np.uint8]

_QUICKLY_CODED = 1 << 16
"""Symbols that are coded in some milliseconds: their size needn't be estimated."""
_STATES_SHARE = 0.006
"""Of the bytes that symbols take, for the states of their lanes: the more lanes, the faster they decode."""
_STATES_SHARE_SMALL = 0.003
"""Of a whole stream's bytes, low planes and escapes counted, up to _LANES_SMALL lanes."""
_LANES_SMALL = 2048
"""With fewer, a step's fixed cost is most of its time: 13 us of 17 at 1,024 lanes, of 27 at 4,096 (one core)."""


@dataclass(frozen=True)
class CodedMatrix:
    """A matrix ready for the lanes: its live symbols, what lies below them, and its classes."""

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


@dataclass(frozen=True)
class SymbolStream:
    """The coded chunks, and what the coder can say about them."""

    chunks: list[bytes]
    entropy_bits: float
    """Of the symbols under their classes, before any table is rounded."""
    histogram: npt.NDArray[np.int64]


def histogram(matrices: Sequence[CodedMatrix]) -> npt.NDArray[np.int64]:
    """`(CLASSES, 256)` counts of symbols under classes."""
    counts = np.zeros(CLASSES * 256, np.int64)
    for matrix in matrices:
        key = matrix.classes.of_symbols().reshape(-1).astype(np.uint16)
        key <<= np.uint16(8)
        key |= matrix.symbols
        counts += np.bincount(key, minlength=CLASSES * 256)
    return counts.reshape(CLASSES, 256)


def entropy_bits(counts: npt.NDArray[np.int64]) -> float:
    """Of symbols under classes, `(classes, symbols)` counts."""
    total = counts.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(-np.where(counts > 0, counts * np.log2(counts / total), 0).sum())


def encode(
    matrices: Sequence[CodedMatrix],
    progress: Callable[[int], None] | None = None,
    *,
    prefix: bytes = b"",
    sizes_only: bool = False,
) -> SymbolStream:
    """One stream of all matrices.

    Args:
        matrices: in the order of their symbols.
        progress: gets the symbols coded since its last call.
        prefix: a codec's own fields, before the head's.
        sizes_only: leave the lanes' words at zero, as many as the tables' cross-entropy says (within 0.1 %): a search
            asks for the size many times, and the lanes take most of the time.
    """
    quantized = matrices[0].step is not None
    counts = histogram(matrices)
    tables = _shared_tables(counts, quantized)
    bits = entropy_bits(counts)
    total = sum(matrix.symbols.size for matrix in matrices)
    below = _below(matrices)
    lanes_log2 = _lanes_log2(bits / 8, sum(map(len, below)), total)
    merged = np.stack([counts[group].sum(axis=0) for group in tables.groups])
    frequencies = np.stack([lane_coder.normalized(row) for row in merged])
    head = prefix + _head(matrices, lanes_log2, tables, frequencies, quantized)
    packing, packed = pack(head)
    chunks = [primitives.uint(packing, 1) + primitives.varint(len(head)) + packed]
    if not total:
        return SymbolStream(chunks, bits, counts)
    if sizes_only and total > _QUICKLY_CODED:
        coded = lane_coder.unwritten(merged, frequencies, 1 << lanes_log2)
    else:
        symbols = np.concatenate([matrix.symbols for matrix in matrices])
        classes = np.concatenate([tables.of_class[matrix.classes.of_symbols()].reshape(-1) for matrix in matrices])
        coded = lane_coder.encode(symbols, classes, frequencies, 1 << lanes_log2, progress)
    words, bounds = coded.words.astype("<u2", copy=False), coded.bounds
    for start, planes in zip(range(0, total, CHUNK_DECODED_MAX), below, strict=True):
        stop = min(start + CHUNK_DECODED_MAX, total)
        first, last = bounds[start >> lanes_log2], bounds[-(-stop >> lanes_log2)]
        states = coded.states.astype("<u4").tobytes() if start == 0 else b""
        chunks.append(states + primitives.varint(int(last - first)) + words[first:last].tobytes() + planes)
    return SymbolStream(chunks, bits, counts)


def _below(matrices: Sequence[CodedMatrix]) -> list[bytes]:
    """What stands in each chunk behind its words: low planes, then escapes."""
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


def _shared_tables(counts: npt.NDArray[np.int64], quantized: bool) -> _Tables:
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


def _cost(counts: npt.NDArray[np.int64]) -> float:
    """Bits of symbols and their table: some 9 for each frequency."""
    present = counts[counts > 0]
    if not present.size:
        return 0.0
    return float(-(present * np.log2(present / present.sum())).sum()) + 9.0 * present.size + 24


def _lanes_log2(coded_bytes: float, other_bytes: int, symbols: int) -> int:
    """Lanes of symbols that take `coded_bytes`, with `other_bytes` beside them in the stream."""
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
    frequencies: npt.NDArray[np.int64],
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


def _table(frequencies: npt.NDArray[np.int64], quantized: bool) -> bytes:
    """The shortest run of symbols, modulo 256, that holds all but the escape."""
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
    """Whether bytes are too even for deflate to gain 2 %; saves most of the time of lossless encoding."""
    counts = np.bincount(np.frombuffer(plane, np.uint8), minlength=256)
    share = counts[counts > 0] / len(plane)
    return float(-(share * np.log2(share)).sum()) > 8 * 0.98 and len(plane) > 4096
