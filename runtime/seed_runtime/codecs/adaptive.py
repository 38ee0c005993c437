"""`adaptive`: `grid` for streams of some tens of kilobytes (SPEC.md, "Codec 8: adaptive").

Nothing is sent but which rows and channels live, and the integers of these: probabilities come from what was decoded
before. The whole stream is decoded at once, side by side, so it is small; its weights are then those of `grid`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from seed_runtime.codecs.arrays import I64, WINDOW, Index, Values
from seed_runtime.codecs.base import BaseWeights
from seed_runtime.codecs.bit_lanes import BitLanes
from seed_runtime.codecs.floats import STORED_AS
from seed_runtime.codecs.grid import weights_of
from seed_runtime.codecs.lanes import STATE_LEAST
from seed_runtime.codecs.matrix import Matrix, Piece, factors_of, steps_of_rows
from seed_runtime.codecs.planes import ESCAPE as ESCAPE_SYMBOL
from seed_runtime.codecs.symbols import STEP_LEAST
from seed_runtime.codecs.wavefront import ESCAPE, Wavefront
from seed_runtime.codecs.waves import Extent
from seed_runtime.errors import FormatError, LimitError
from seed_runtime.format.packing import unpack
from seed_runtime.format.primitives import Cursor
from seed_runtime.format.sections.holes import Hole
from seed_runtime.limits import (
    ADAPTIVE_ESCAPES_MAX,
    CHUNK_CODED_MAX,
    CHUNK_DECODED_MAX,
    DELAY_MAX,
    LANES_LOG2_MAX,
    LIVE_SIDE_MAX,
    SIDE_MAX,
    STEPS_MAX,
    WAVE_MAX,
    WAVES_MAX,
)

ROWS, CHANNELS, ROW_STEPS, COLUMN_STEPS, TRELLIS = 1, 2, 4, 8, 16
"""Bits of a matrix's flags: it has dead rows, dead channels, steps of rows, steps of columns, a trellis."""
LIVE_PARTS: Final = 16
"""Probability of a live row or channel for each unit of its share, in 4,096ths."""
WIDTH_OF_NONE: Final = 2
"""Width of the kernels of a matrix that has none: the second column to the left stands in for the tap above."""
_MAGNITUDE_MAX: Final = (1 << 31) - 1


@dataclass(frozen=True)
class _Record:
    """The head's fields of one matrix."""

    rows: int
    cols: int
    taps: int
    width: int
    flags: int
    step: float
    delay: int | None
    shares: tuple[int, int]
    """Share of live rows and of live channels, in 256ths; 0 where all live."""


@dataclass(frozen=True)
class Work:
    """What decoding matrices takes."""

    elements: int
    sides: int
    waves: int
    wave: int

    @classmethod
    def of(cls, extents: Sequence[Extent]) -> Work:
        """Sum up the work of some matrices."""
        return cls(
            sum(extent.rows * extent.cols for extent in extents),
            sum(extent.rows + extent.cols for extent in extents),
            max((extent.steps for extent in extents), default=0),
            sum(min(extent.rows, extent.cols) for extent in extents),
        )

    def bounds(self) -> list[tuple[str, int, int]]:
        """List what it is, how much, and how much it may be."""
        return [
            ("live elements", self.elements, CHUNK_DECODED_MAX),
            ("live rows and columns", self.sides, LIVE_SIDE_MAX),
            ("waves", self.waves, WAVES_MAX),
            ("elements of a wave", self.wave, WAVE_MAX),
        ]


def decode(
    holes: Sequence[Hole], chunks: Iterator[memoryview], where: str, _: BaseWeights | None = None, cores: int = 1
) -> Iterator[Values]:
    """Yield the elements of all holes in order (see codec.py). A window is overwritten by the next one.

    Memory: up to 6 bytes for each live element, CHUNK_DECODED_MAX of them at most; see `held_bytes`.
    """
    for hole in holes:
        if hole.dtype.name not in STORED_AS:
            raise FormatError(where, f"adaptive does not decode {hole.dtype.name}")
    lanes_log2, records, head = _read_records(_next(chunks, where, "head"), holes, where)
    row_codes, col_codes = _read_codes(head, records)
    head.end()

    data = Cursor(_next(chunks, where, "data"), f"{where}: chunk")
    states = np.frombuffer(data.take(4 << lanes_log2, "lane states"), "<u4")
    if (states < STATE_LEAST).any():
        raise FormatError(data.where, f"a lane's state is below {STATE_LEAST:,}")
    words = data.take(2 * data.varint("words", limit=CHUNK_CODED_MAX // 2), "words")
    lanes = BitLanes(states, words, data.where)
    _check_steps(sum(_flags_of(record) for record in records), lanes_log2, where)
    live = [[_decide_live(lanes, *axis) for axis in _axes(record)] for record in records]
    extents = [_extent(record, *axes) for record, axes in zip(records, live, strict=True)]
    _check_work(extents, lanes_log2, where)
    wavefront = Wavefront(extents)
    wavefront.run(_Decisions(lanes, where))
    lanes.end()
    escapes = _read_escapes(data, wavefront)
    if next(chunks, None) is not None:
        raise FormatError(where, "it has more chunks than a head and its data")
    matrices = [_matrix(*of, where) for of in zip(records, row_codes, col_codes, live, extents, strict=True)]
    yield from weights_of(_pieces(matrices, extents, wavefront, escapes), holes)


def trellises(holes: Sequence[Hole], head: memoryview, where: str) -> list[bool]:
    """Say of each hole whether its weights are on a trellis, by the head of the stream (see codec.py)."""
    return [record.delay is not None for record in _read_records(head, holes, where)[1]]


def held_bytes(counts: Sequence[int]) -> int:
    """Return the most that a stream of holes with so many elements holds [B]."""
    elements = min(sum(counts), CHUNK_DECODED_MAX)
    sides, wave, escapes = (min(elements, limit) for limit in (LIVE_SIDE_MAX, WAVE_MAX, ADAPTIVE_ESCAPES_MAX))
    return 6 * elements + 116 * sides + 600 * wave + 64 * escapes


def _next(chunks: Iterator[memoryview], where: str, what: str) -> memoryview:
    chunk = next(chunks, None)
    if chunk is None:
        raise FormatError(where, f"its {what} is missing")
    return chunk


def _read_records(chunk: memoryview, holes: Sequence[Hole], where: str) -> tuple[int, list[_Record], Cursor]:
    """Return the binary logarithm of the lanes, a record for each hole, and the head behind them."""
    head = Cursor(chunk, f"{where}: head")
    packing = head.uint(1, "packing")
    size = head.varint("size", limit=CHUNK_DECODED_MAX)
    head = Cursor(unpack(packing, head.take(head.remaining, "head"), size, head.where), head.where)
    lanes_log2 = head.uint(1, "lanes")
    if lanes_log2 > LANES_LOG2_MAX:
        raise FormatError(head.where, f"2**{lanes_log2} lanes are too many")
    records = [_read_record(head, hole.count) for hole in holes]
    if (sides := sum(record.rows + record.cols for record in records)) > SIDE_MAX:
        raise LimitError(f"{head.where}: rows and columns", sides, SIDE_MAX)
    return lanes_log2, records, head


def _read_record(head: Cursor, count: int) -> _Record:
    cols = head.varint("columns", limit=SIDE_MAX, least=1)
    if count % cols:
        raise FormatError(head.where, f"{cols} columns do not divide {count:,} elements")
    taps = head.varint("taps", limit=cols, least=1)
    if cols % taps:
        raise FormatError(head.where, f"{taps} taps do not divide {cols:,} columns")
    width = head.varint("width", limit=taps, least=1) if taps > 1 else WIDTH_OF_NONE
    flags = head.uint(1, "flags")
    if flags >= 2 * TRELLIS:
        raise FormatError(head.where, f"flags {flags:#x} are unknown")
    step = head.f32("step")
    if not STEP_LEAST <= step < float("inf"):
        raise FormatError(head.where, f"a quantization step of {step} is not valid")
    delay = head.varint("delay", limit=DELAY_MAX, least=1) if flags & TRELLIS else None
    if delay is not None and delay > count:
        raise FormatError(head.where, f"a delay of {delay:,} is longer than its matrix of {count:,} elements")
    shares = [head.uint(1, "share") if flags & flag else 0 for flag in (ROWS, CHANNELS)]
    if any(flags & flag and not share for flag, share in zip((ROWS, CHANNELS), shares, strict=True)):
        raise FormatError(head.where, "a share of live rows or channels is 0")
    return _Record(count // cols, cols, taps, width, flags, step, delay, (shares[0], shares[1]))


def _read_codes(head: Cursor, records: Sequence[_Record]) -> list[list[npt.NDArray[np.uint8] | None]]:
    """Read the steps of rows of all matrices, then those of columns; None for those that have none."""
    return [
        [
            np.frombuffer(head.take(size, name), np.uint8) if record.flags & flag else None
            for record in records
            for size in (record.rows if flag == ROW_STEPS else record.cols,)
        ]
        for flag, name in ((ROW_STEPS, "row steps"), (COLUMN_STEPS, "column steps"))
    ]


def _axes(record: _Record) -> list[tuple[int, int]]:
    """Return the length of each axis, rows and channels, and the share of what lives."""
    return [(record.rows, record.shares[0]), (record.cols // record.taps, record.shares[1])]


def _flags_of(record: _Record) -> int:
    return sum(size for size, share in _axes(record) if share)


def _decide_live(lanes: BitLanes, size: int, share: int) -> Index | None:
    """Return the live places of an axis, None where all are."""
    if not share:
        return None
    return lanes.decide(np.full(size, LIVE_PARTS * share, np.int64)).nonzero()[0]


class _Decisions:
    """Reads the walk's decisions from the lanes, and counts magnitudes from ESCAPE on before the walk keeps them."""

    def __init__(self, lanes: BitLanes, where: str) -> None:
        self._lanes, self._where = lanes, where
        self._escapes = 0

    def __call__(self, chances: I64, cells: I64, above: int) -> npt.NDArray[np.bool_]:
        decided = self._lanes.decide(chances)
        if above == ESCAPE - 1:
            self._count(int(np.count_nonzero(decided)))
        return decided

    def few(self, chances: Sequence[int], cells: Sequence[int], above: int) -> list[bool]:
        decided = self._lanes.decide_few(chances)
        if above == ESCAPE - 1:
            self._count(sum(decided))
        return decided

    def _count(self, escapes: int) -> None:
        self._escapes += escapes
        if self._escapes > ADAPTIVE_ESCAPES_MAX:
            raise LimitError(f"{self._where}: escapes", self._escapes, ADAPTIVE_ESCAPES_MAX)


def _extent(record: _Record, rows: Index | None, channels: Index | None) -> Extent:
    live_rows, live_channels = (
        size if live is None else live.size for (size, _), live in zip(_axes(record), (rows, channels), strict=True)
    )
    return Extent(live_rows, live_channels * record.taps, record.taps, record.width)


def _check_steps(decisions: int, lanes_log2: int, where: str) -> None:
    if (steps := -(-decisions >> lanes_log2)) > STEPS_MAX:
        raise LimitError(f"{where}: steps of the lanes", steps, STEPS_MAX)


def _check_work(extents: Sequence[Extent], lanes_log2: int, where: str) -> None:
    work = Work.of(extents)
    for what, value, limit in work.bounds():
        if value > limit:
            raise LimitError(f"{where}: {what}", value, limit)
    _check_steps(work.elements, lanes_log2, where)


def _read_escapes(data: Cursor, wavefront: Wavefront) -> tuple[Index, npt.NDArray[np.int32]]:
    """Read the magnitudes from ESCAPE on; return their cells in ascending order, and their values."""
    cells = np.concatenate([np.empty(0, np.int64), *wavefront.escaped])
    own = (ESCAPE + data.varint("escape", limit=_MAGNITUDE_MAX - ESCAPE) for _ in range(cells.size))
    magnitudes = np.fromiter(own, np.int32, cells.size)
    data.end()
    order = np.argsort(cells)
    cells = cells[order]
    return cells, magnitudes[order] * np.sign(wavefront.cells[cells])


def _matrix(
    record: _Record,
    row_codes: npt.NDArray[np.uint8] | None,
    col_codes: npt.NDArray[np.uint8] | None,
    live: Sequence[Index | None],
    extent: Extent,
    where: str,
) -> Matrix:
    rows, channels = live
    cols = None if channels is None else (channels[:, None] * record.taps + np.arange(record.taps)).reshape(-1)
    steps = np.full((1, 1), record.step, np.float32)
    if row_codes is not None:
        steps = steps_of_rows(record.step, row_codes if rows is None else row_codes[rows])
        if not np.isfinite(steps).all():
            raise FormatError(where, "the quantization step of a row is not valid")
    factors = None
    if col_codes is not None:
        factors = factors_of(col_codes if cols is None else col_codes[cols])
    return Matrix(
        record.rows,
        record.cols,
        0,
        steps,
        factors,
        np.zeros(extent.rows, np.uint32),
        np.zeros(extent.cols, np.uint32),
        rows,
        cols,
        row_codes is not None,
        record.delay,
    )


def _pieces(
    matrices: Sequence[Matrix], extents: Sequence[Extent], wavefront: Wavefront, escapes: tuple[Index, Values]
) -> Iterator[Piece]:
    """Yield the integers of each matrix, a window at a time."""
    cells, values = escapes
    for index, (matrix, extent) in enumerate(zip(matrices, extents, strict=True)):
        first, last = wavefront.starts[index : index + 2]
        own = values[slice(*np.searchsorted(cells, (first, last)))]
        integers = extent.inside(wavefront.cells[first:last]).reshape(-1)
        taken = 0
        for start in range(0, max(integers.size, 1), WINDOW):
            window = integers[start : start + WINDOW].copy()
            escaped = (np.abs(window) == ESCAPE).nonzero()[0]
            symbols = window.view(np.uint8)
            symbols[escaped] = ESCAPE_SYMBOL
            mine = own[taken : taken + escaped.size]
            taken += escaped.size
            yield Piece(index, matrix, start, start + window.size, symbols, None, escaped, mine)
