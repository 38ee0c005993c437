"""Decodes the symbols of matrices, for `grid`, `split` and `lowrank` (SPEC.md, "Symbol streams").

The lanes run on across rows, matrices and chunks. A symbol's class is the sum of its row's and its column's; rows and
columns of class 0 are dead: nothing is coded for them and they decode to zeros.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import accumulate, islice
from typing import Final

import numpy as np

from seed_runtime.codecs.arrays import F32, U8, U32, WINDOW, Index
from seed_runtime.codecs.buckets import Buckets
from seed_runtime.codecs.lanes import SLOTS, STATE_LEAST, LaneDecoder, decoding_table
from seed_runtime.codecs.matrix import Matrix, Piece, factors_of, rectangles, rows_by_class, steps_of_rows
from seed_runtime.codecs.planes import ESCAPE, Escapes, LowPlanes, Span, read_planes
from seed_runtime.codecs.windows import (
    BESIDE_LEAST,
    Windows,
    WindowsBeside,
    WindowsHere,
    can_decode_beside,
)
from seed_runtime.errors import FormatError, LimitError
from seed_runtime.format.packing import unpack
from seed_runtime.format.primitives import Cursor
from seed_runtime.limits import (
    CHUNK_CODED_MAX,
    CHUNK_DECODED_MAX,
    CLASSES_MAX,
    DELAY_MAX,
    LANES_LOG2_MAX,
    LOW_BITS_MAX,
    SIDE_MAX,
    STEPS_MAX,
    TABLES_MAX,
)

Counts = Sequence[int] | Callable[[Cursor], Sequence[int]]
"""Elements of each matrix, or a function that reads them: a codec's own fields stand before the head's."""
Offsets = Callable[[int, int, int], U8 | None]
"""Gives what symbols `start` to `stop` of a matrix add to their classes, beside rows and columns; None for nothing."""

STEP_LEAST: Final = 2.0**-126
"""Smallest quantization step: below, some machines flush to zero, and the bits would differ."""

_ROW_CLASSES, _COLUMN_CLASSES, _ROW_STEPS, _COLUMN_STEPS, _TRELLIS = 1, 2, 4, 8, 16
"""Bits of a matrix's flags."""


class SymbolReader:
    """Decodes one stream's symbols, window by window.

    Memory: WINDOW symbols and classes, the coded chunk, its low planes and escapes, and the head's tables. With a
    process beside this one, BESIDE_BYTES and three coded chunks more.
    """

    def __init__(
        self,
        chunks: Iterator[memoryview],
        counts: Counts,
        *,
        quantized: bool,
        where: str,
        cores: int = 1,
        trellis: bool = False,
        offsets: Offsets | None = None,
        in_buckets: Callable[[int], bool] = lambda matrix: False,
    ) -> None:
        """Read the head.

        Args:
            chunks: of the stream, from its first one on.
            counts: elements of each matrix. Where there is none, nothing else is in the stream.
            quantized: the head has quantization steps, and symbols may be escapes.
            where: names the stream in error messages.
            cores: more than one to decode the lanes of a long stream in a process beside, where there may be one.
            trellis: matrices may have a trellis.
            offsets: asked for each matrix; who gives some has seen that no class is beyond the last one.
            in_buckets: asked whether a matrix's symbols are buckets.

        Raises:
            FormatError: the head breaks a rule of SPEC.md.
        """
        self._offsets, self._in_buckets = offsets, in_buckets
        self._chunks, self._quantized, self.where, self._cores = chunks, quantized, where, cores
        self._flags = _ROW_CLASSES | _COLUMN_CLASSES
        self._flags |= (_ROW_STEPS | _COLUMN_STEPS if quantized else 0) | (_TRELLIS if trellis else 0)
        self._rows_of, self._least_row = -1, np.uint32(0)
        self._rows: U32 | None = None
        head = Cursor(self._chunk("head"), f"{where}: head")
        packing = head.uint(1, "packing")
        size = head.varint("size", limit=CHUNK_DECODED_MAX)
        raw = unpack(packing, head.take(head.remaining, "head"), size, head.where)
        self._read_head(Cursor(raw, head.where), counts)
        steps = -(-min(sum(matrix.count for matrix in self.matrices), CHUNK_DECODED_MAX) >> self._lanes_log2)
        if steps > STEPS_MAX:
            raise LimitError(f"{head.where}: steps of a chunk", steps, STEPS_MAX)

    def pieces(self) -> Iterator[Piece]:
        """Yield all symbols in order, as pieces that stay within one matrix and one window.

        The arrays of a piece are overwritten by the next one.

        Raises:
            FormatError: a chunk breaks a rule of SPEC.md, or is missing or left over.
        """
        ends = list(accumulate(matrix.count for matrix in self.matrices))
        index = 0
        with self._loaded(ends) as loaded:
            for chunk_start, chunk_stop, payload, windows in loaded:
                planes = self._read_planes(payload, ends, chunk_start, chunk_stop)
                buckets = self._read_buckets(payload, ends, chunk_start, chunk_stop)
                escapes = Escapes(payload)
                for start in range(chunk_start, chunk_stop, WINDOW):
                    stop = min(start + WINDOW, chunk_stop)
                    symbols = windows.take(start, stop)
                    for matrix, a, b, offset in self._spans(ends, start, stop):
                        yield from self._empty(index, matrix)
                        index = matrix + 1
                        window = symbols[offset : offset + b - a]
                        where = escapes.find(window) if self._escapes else _NOWHERE
                        low = planes[matrix].low(a, b) if matrix in planes else None
                        high = buckets.integers(window) if buckets and self._in_buckets(matrix) else None
                        escaped = escapes.take(where.size)
                        yield Piece(matrix, self.matrices[matrix], a, b, window, low, where, escaped, high)
                if buckets:
                    buckets.end()
                escapes.end()
                windows.end_chunk()
        yield from self._empty(index, len(self.matrices))
        if next(self._chunks, None) is not None:
            raise FormatError(self.where, "it has more chunks than its matrices need")

    @contextmanager
    def _loaded(self, ends: list[int]) -> Iterator[Iterator[tuple[int, int, Cursor, Windows]]]:
        """Give each chunk's first and last symbol, what stands behind its words, and the windows that have them."""
        total = ends[-1] if ends else 0
        windows: Windows | None = None

        def load(start: int) -> tuple[int, int, Cursor] | FormatError:
            nonlocal windows
            stop = min(start + CHUNK_DECODED_MAX, total)
            try:
                payload = Cursor(self._chunk("data"), f"{self.where}: chunk")
                if windows is None:
                    windows = self._windows(self._lanes(payload), ends)
                words = payload.take(2 * payload.varint("words", limit=CHUNK_CODED_MAX // 2), "words")
            except FormatError as error:
                return error
            windows.load(words, start, stop)
            return start, stop, payload

        def chunks() -> Iterator[tuple[int, int, Cursor, Windows]]:
            starts = iter(range(0, total, CHUNK_DECODED_MAX))
            ahead = deque(map(load, islice(starts, 1)))
            while ahead:
                if windows is not None:
                    ahead.extend(map(load, islice(starts, windows.ahead - len(ahead))))
                # What is wrong with a chunk is said in its turn: what is wrong with the one before comes first.
                if isinstance(chunk := ahead.popleft(), FormatError):
                    raise chunk
                assert windows is not None
                yield (*chunk, windows)
                if not ahead:
                    ahead.extend(map(load, islice(starts, 1)))

        try:
            yield chunks()
        finally:
            if windows is not None:
                windows.close()

    def _lanes(self, payload: Cursor) -> LaneDecoder:
        coded = payload.take(4 << self._lanes_log2, "lane states")
        states = np.frombuffer(coded, "<u4").astype(np.uint32)
        if (states < STATE_LEAST).any():
            raise FormatError(payload.where, f"a lane's state is below {STATE_LEAST:,}")
        return LaneDecoder(self._tables, states)

    def _windows(self, lanes: LaneDecoder, ends: list[int]) -> Windows:
        """Return windows of all symbols; beside this process where that may be and saves time."""

        def classes_into(start: int, stop: int, out: U32) -> None:
            for matrix, a, b, offset in self._spans(ends, start, stop):
                self._classes_into(matrix, a, b, out[offset : offset + b - a])

        if self._cores > 1 and ends[-1] >= BESIDE_LEAST and can_decode_beside():
            with suppress(OSError):
                return WindowsBeside(lanes, classes_into, ends[-1])
        return WindowsHere(lanes, classes_into, ends[-1])

    def _chunk(self, what: str) -> memoryview:
        chunk = next(self._chunks, None)
        if chunk is None:
            raise FormatError(self.where, f"its {what} is missing")
        return chunk

    def _empty(self, first: int, stop: int) -> Iterator[Piece]:
        """Yield a piece without symbols for each matrix of which every row or column is dead."""
        nothing = np.empty(0, np.uint8), None, _NOWHERE, np.empty(0, np.int32)
        for index in range(first, stop):
            yield Piece(index, self.matrices[index], 0, 0, *nothing)

    def _spans(self, ends: list[int], start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield `(matrix, start, stop, offset)` of each matrix among symbols `start` to `stop`, but empty ones."""
        index, position = bisect_right(ends, start), start
        while position < stop:
            end = min(ends[index], stop)
            begin = ends[index] - self.matrices[index].count
            if end > position:
                yield index, position - begin, end - begin, position - start
            position, index = end, index + 1

    @property
    def classes(self) -> int:
        """Number of classes that the head has."""
        return self._table_of.size

    def _classes_into(self, index: int, start: int, stop: int, out: U32) -> None:
        matrix, offset = self.matrices[index], 0
        added = None if self._offsets is None else self._offsets(index, start, stop)
        if self._rows_of != index:
            self._rows_of, self._least_row = index, matrix.row_class.min()
            self._rows = rows_by_class(matrix, self._least_row, self._table_of)
        for row, row_end, col, col_end in rectangles(start, stop, matrix.col_class.size):
            size = (row_end - row) * (col_end - col)
            block = out[offset : offset + size].reshape(row_end - row, col_end - col)
            if added is not None:
                by_class = matrix.row_class[row:row_end, None] + matrix.col_class[None, col:col_end]
                by_class += added[offset : offset + size].reshape(block.shape)
                self._table_of.take(by_class.astype(np.intp), None, block, "clip")
            elif self._rows is not None and col_end - col == matrix.col_class.size:
                # As indices: 32-bit systems cast no unsigned ones.
                index_of = (matrix.row_class[row:row_end] - self._least_row).astype(np.intp)
                self._rows.take(index_of, 0, block, "clip")
            else:
                by_class = matrix.row_class[row:row_end, None] + matrix.col_class[None, col:col_end]
                self._table_of.take(by_class.astype(np.intp), None, block, "clip")
            offset += size

    def _read_planes(self, payload: Cursor, ends: list[int], start: int, stop: int) -> dict[int, LowPlanes]:
        spans = {
            matrix: Span(low_bits, a, b)
            for matrix, a, b, _ in self._spans(ends, start, stop)
            if (low_bits := self.matrices[matrix].low_bits)
        }
        return read_planes(payload, spans)

    def _read_buckets(self, payload: Cursor, ends: list[int], start: int, stop: int) -> Buckets | None:
        """Read the bits of a chunk's buckets; None where no symbol of it is one."""
        has_any = any(self._in_buckets(matrix) for matrix, *_ in self._spans(ends, start, stop))
        return Buckets(payload) if has_any else None

    def _read_head(self, head: Cursor, counts: Counts) -> None:
        if callable(counts):
            counts = counts(head)
        self._lanes_log2, self.matrices = 0, list[Matrix]()
        if not counts:
            head.end()
            return
        self._lanes_log2 = head.uint(1, "lanes")
        if self._lanes_log2 > LANES_LOG2_MAX:
            raise FormatError(head.where, f"2**{self._lanes_log2} lanes are too many")
        classes = head.varint("classes", limit=CLASSES_MAX, least=1)
        # Where in `_tables` the slots of each class begin: classes that share a table share its place in the cache.
        self._table_of, self._escapes = np.empty(classes, np.uint32), False
        tables: list[U32] = []
        for number in range(classes):
            slots = self._read_table(head, own=not tables)
            if slots is not None:
                tables.append(slots)
            if len(tables) > TABLES_MAX:
                raise LimitError(f"{head.where}: tables", len(tables), TABLES_MAX)
            self._table_of[number] = (len(tables) - 1) * SLOTS
        self._tables = np.concatenate(tables)
        shapes = [self._read_shape(head, count) for count in counts]
        side = sum(rows + cols for rows, cols, *_ in shapes)
        if side > SIDE_MAX:
            raise LimitError(f"{head.where}: rows and columns", side, SIDE_MAX)
        arrays = [
            [
                np.frombuffer(head.take(size, name), np.uint8) if flags & flag else None
                for (rows, cols, _, flags, *_) in shapes
                for size in (cols if flag in (_COLUMN_CLASSES, _COLUMN_STEPS) else rows,)
            ]
            for flag, name in (
                (_ROW_STEPS, "row steps"),
                (_COLUMN_STEPS, "column steps"),
                (_ROW_CLASSES, "row classes"),
                (_COLUMN_CLASSES, "column classes"),
            )
        ]
        head.end()
        self.matrices = [
            _matrix(shape, *sides, classes=classes, where=head.where)
            for shape, *sides in zip(shapes, *arrays, strict=True)
        ]

    def _read_table(self, head: Cursor, *, own: bool) -> U32 | None:
        """Read the table of the next class, None where it shares the one before, unless it must have its own."""
        count = head.varint("symbols", limit=256)
        if not count:
            if own:
                raise FormatError(head.where, "the first class has no table to share")
            return None
        escape = head.varint("escape frequency", limit=SLOTS - 1) if self._quantized else 0
        first = head.uint(1, "first symbol")
        listed = [head.varint("frequency", limit=SLOTS - 1) for _ in range(count)]
        frequencies = np.zeros(256, np.uint32)
        frequencies[np.arange(first, first + count) & 0xFF] = listed
        if self._quantized and frequencies[ESCAPE]:
            raise FormatError(head.where, "a table lists the escape among its symbols")
        frequencies[ESCAPE] += escape
        if int(frequencies.sum()) != SLOTS:
            raise FormatError(head.where, f"a table's frequencies have the sum {int(frequencies.sum())}, not {SLOTS}")
        self._escapes |= escape > 0
        return decoding_table(frequencies)

    def _read_shape(self, head: Cursor, count: int) -> _Shape:
        cols = head.varint("columns", limit=SIDE_MAX, least=1)
        if count % cols:
            raise FormatError(head.where, f"{cols} columns do not divide {count:,} elements")
        low_bits, flags = head.uint(1, "low bits"), head.uint(1, "flags")
        if low_bits > LOW_BITS_MAX:
            raise FormatError(head.where, f"{low_bits} low bits are too many")
        if flags & ~self._flags:
            raise FormatError(head.where, f"flags {flags:#x} are unknown")
        step = head.f32("step") if self._quantized else 1.0
        if not STEP_LEAST <= step < float("inf"):
            raise FormatError(head.where, f"a quantization step of {step} is not valid")
        delay = head.varint("delay", limit=DELAY_MAX, least=1) if flags & _TRELLIS else None
        if delay is not None and delay > count:
            raise FormatError(head.where, f"a delay of {delay:,} is longer than its matrix of {count:,} elements")
        return count // cols, cols, low_bits, flags, step, delay


_Shape = tuple[int, int, int, int, float, int | None]
_NOWHERE: Index = np.empty(0, np.intp)


def _matrix(
    shape: _Shape,
    row_codes: U8 | None,
    col_codes: U8 | None,
    row_class: U8 | None,
    col_class: U8 | None,
    *,
    classes: int,
    where: str,
) -> Matrix:
    """Make the matrix of a head's record.

    Codes and classes are None where the head has none: one step, and class 1 along the whole axis.
    """
    rows, cols, low_bits, flags, step, delay = shape
    live_rows, row_offset = _offsets(row_class, rows)
    live_cols, col_offset = _offsets(col_class, cols)
    if row_offset.size and col_offset.size and int(row_offset.max()) + int(col_offset.max()) >= classes:
        raise FormatError(where, "a row and a column add up to a class without a table")
    steps = np.full((1, 1), step, np.float32)
    if row_codes is not None:
        steps = steps_of_rows(step, row_codes if live_rows is None else row_codes[live_rows])
        # An infinite step would make NaN of a zero.
        if not np.isfinite(steps).all():
            raise FormatError(where, "the quantization step of a row is not valid")
    col_factors: F32 | None = None
    if col_codes is not None:
        col_factors = factors_of(col_codes if live_cols is None else col_codes[live_cols])
    has_row_steps = bool(flags & _ROW_STEPS)
    return Matrix(
        rows, cols, low_bits, steps, col_factors, row_offset, col_offset, live_rows, live_cols, has_row_steps, delay
    )


def _offsets(classes: U8 | None, size: int) -> tuple[Index | None, U32]:
    """Return the live places of an axis, None when all are, and what each adds to the class of its elements."""
    if classes is None:
        return None, np.zeros(size, np.uint32)
    live = classes.nonzero()[0]
    if live.size < size:
        return live, classes[live].astype(np.uint32) - np.uint32(1)
    return None, classes.astype(np.uint32) - np.uint32(1)
