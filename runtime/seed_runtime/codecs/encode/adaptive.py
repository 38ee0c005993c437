"""Encode side of `adaptive`: the decoder's walk with known integers, and the lanes' words for what it decides.

Memory: 3 bytes for each decision, some two of which an element takes, 14 while they are coded, and the walk's cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from seed_runtime.codecs.adaptive import (
    CHANNELS,
    COLUMN_STEPS,
    LIVE_PARTS,
    ROW_STEPS,
    ROWS,
    TRELLIS,
    WIDTH_OF_NONE,
    Work,
)
from seed_runtime.codecs.arrays import I64
from seed_runtime.codecs.encode import lanes as lane_coder
from seed_runtime.codecs.encode.matrix import CodedMatrix
from seed_runtime.codecs.encode.packing import pack
from seed_runtime.codecs.encode.symbols import SymbolStream
from seed_runtime.codecs.lanes import SLOTS
from seed_runtime.codecs.planes import ESCAPE as ESCAPE_SYMBOL
from seed_runtime.codecs.wavefront import ESCAPE, SIGN, Wavefront
from seed_runtime.codecs.waves import Extent
from seed_runtime.format import primitives
from seed_runtime.limits import ADAPTIVE_ESCAPES_MAX, LANES_LOG2_MAX, STEPS_MAX, WAVES_MAX

Bools = npt.NDArray[np.bool_]
I32 = npt.NDArray[np.int32]

_STATES_SHARE: Final = 0.006
"""Share of a stream's bytes that the states of its lanes may take, half of whose bits carry decisions."""


def encode(matrices: Sequence[CodedMatrix]) -> SymbolStream | None:
    """Code all matrices as one stream; None where they are too large for it, or have too many large magnitudes.

    Args:
        matrices: in the order of their holes.
    """
    planes = [_Plane.of(matrix) for matrix in matrices]
    work = Work.of([plane.extent for plane in planes])
    if any(value > limit for _, value, limit in work.bounds()):
        return None
    if sum(int(np.count_nonzero(np.abs(plane.integers) >= ESCAPE)) for plane in planes) > ADAPTIVE_ESCAPES_MAX:
        return None
    recorder = _Recorder()
    for plane in planes:
        for live in plane.mixed_axes():
            recorder.record(np.full(live.size, LIVE_PARTS * _share(live), np.int64), live)
    flags = recorder.count
    wavefront = Wavefront([plane.extent for plane in planes])
    known = np.zeros(wavefront.starts[-1], np.int32)
    for plane, start, stop in zip(planes, wavefront.starts, wavefront.starts[1:], strict=False):
        plane.extent.inside(known[start:stop])[:] = plane.integers

    wavefront.run(_Known(known, recorder))
    lanes_log2 = _lanes_log2(recorder.bits / 8, max(flags, work.elements))
    coded = recorder.coded(1 << lanes_log2)
    head = primitives.uint(lanes_log2, 1) + b"".join(plane.record() for plane in planes)
    steps = [codes for matrix in matrices if (codes := matrix.row_steps) is not None]
    steps += [codes for matrix in matrices if (codes := matrix.col_steps) is not None]
    head += b"".join(codes.tobytes() for codes in steps)
    packing, packed = pack(head)
    data = coded.states.astype("<u4").tobytes() + primitives.varint(coded.words.size)
    data += coded.words.astype("<u2", copy=False).tobytes()
    for cells in wavefront.escaped:
        data += b"".join(primitives.varint(abs(value) - ESCAPE) for value in known.take(cells).tolist())
    return SymbolStream([primitives.uint(packing, 1) + primitives.varint(len(head)) + packed, data], recorder.bits)


@dataclass(frozen=True, eq=False)
class _Plane:
    """The integers of a matrix's live rows and channels."""

    matrix: CodedMatrix
    rows: Bools
    channels: Bools
    extent: Extent
    integers: I32

    @classmethod
    def of(cls, matrix: CodedMatrix) -> _Plane:
        """Find what lives; of a channel that lives, all taps do. A long vector is folded: it has fewer waves then."""
        classes = matrix.classes
        taps, width = matrix.kernel or (1, WIDTH_OF_NONE)
        rows, cols = classes.rows > 0, classes.cols > 0
        if rows.size == 1 and np.count_nonzero(cols) > WAVES_MAX and matrix.row_steps is matrix.col_steps is None:
            return cls._folded(matrix, cols)
        channels: Bools = np.any(cols.reshape(-1, taps), axis=1)
        extent = Extent(int(np.count_nonzero(rows)), int(np.count_nonzero(channels)) * taps, taps, width)
        integers = np.zeros((extent.rows, extent.cols), np.int32)
        values = _values(matrix)
        integers[:, cols[np.repeat(channels, taps)]] = values.reshape(len(integers), -1) if values.size else 0
        return cls(matrix, rows, channels, extent, integers)

    @classmethod
    def _folded(cls, matrix: CodedMatrix, live: Bools) -> _Plane:
        """Lay a vector out in as many rows as columns, or nearly, dead elements as zeros."""
        rows = next(rows for rows in range(int(live.size**0.5), 0, -1) if live.size % rows == 0)
        whole = np.zeros(live.size, np.int32)
        whole[live] = _values(matrix)
        extent = Extent(rows, live.size // rows)
        all_live = np.ones(extent.rows, np.bool_), np.ones(extent.cols, np.bool_)
        return cls(matrix, *all_live, extent, whole.reshape(extent.rows, extent.cols))

    def mixed_axes(self) -> list[Bools]:
        """Return which rows and which channels live, of the axes along which not all do."""
        return [live for live in (self.rows, self.channels) if not live.all()]

    def record(self) -> bytes:
        """Lay out the head's record."""
        matrix = self.matrix
        assert matrix.step is not None
        given = {ROW_STEPS: matrix.row_steps, COLUMN_STEPS: matrix.col_steps, TRELLIS: matrix.delay}
        flags = sum(flag for flag, value in given.items() if value is not None)
        flags |= sum(flag for flag, live in ((ROWS, self.rows), (CHANNELS, self.channels)) if not live.all())
        taps, width = self.extent.taps, self.extent.width
        record = primitives.varint(self.channels.size * taps) + primitives.varint(taps)
        record += primitives.varint(width) if taps > 1 else b""
        record += primitives.uint(flags, 1) + primitives.f32(matrix.step)
        record += primitives.varint(matrix.delay) if matrix.delay is not None else b""
        return record + bytes(_share(live) for live in self.mixed_axes())


def _values(matrix: CodedMatrix) -> I32:
    """Return the integers of live rows and columns, flat."""
    values = matrix.symbols.view(np.int8).astype(np.int32)
    values[matrix.symbols == ESCAPE_SYMBOL] = matrix.escaped
    return values if matrix.low is None else values << np.int32(matrix.low_bits) | matrix.low.view(np.int32)


class _Recorder:
    """What the walk decides, and under which probabilities."""

    def __init__(self) -> None:
        self._decided: list[Bools] = []
        self._chances: list[npt.NDArray[np.uint16]] = []
        self.count = 0
        """Number of decisions."""
        self.bits = 0.0
        """Their code length."""

    def record(self, chances: I64, decided: Bools) -> Bools:
        """Take decisions, and return them."""
        self._decided.append(decided)
        self._chances.append(chances.astype(np.uint16))
        self.count += decided.size
        self.bits -= float(np.log2(np.where(decided, chances, SLOTS - chances) / SLOTS).sum())
        return decided

    def coded(self, lanes: int) -> lane_coder.Coded:
        """Code all decisions."""
        # Yes is symbol 0: it has the lower slots. The probability is the class.
        symbols = (~np.concatenate([np.empty(0, np.bool_), *self._decided])).astype(np.uint8)
        classes = np.concatenate([np.empty(0, np.uint16), *self._chances])
        parts = np.arange(SLOTS)
        return lane_coder.encode(symbols, classes, np.stack((parts, SLOTS - parts), 1), lanes)


class _Known:
    """Makes the walk's decisions as integers have them, and records them."""

    def __init__(self, integers: I32, recorder: _Recorder) -> None:
        self._integers, self._recorder = integers, recorder

    def __call__(self, chances: I64, cells: I64, above: int) -> Bools:
        values = self._integers.take(cells)
        return self._recorder.record(chances, values < 0 if above == SIGN else np.abs(values) > above)

    def few(self, chances: Sequence[int], cells: Sequence[int], above: int) -> list[bool]:
        decided: list[bool] = self(np.array(chances, np.int64), np.array(cells, np.int64), above).tolist()
        return decided


def _share(live: Bools) -> int:
    """Return the share of what lives in 256ths, 1 to 255."""
    return min(max(round(256 * np.count_nonzero(live) / live.size), 1), 255)


def _lanes_log2(coded_bytes: float, decisions: int) -> int:
    """Choose the number of lanes for decisions of so many bytes, `decisions` of them in a kind at most."""
    lanes = max(coded_bytes * _STATES_SHARE / 4, 1)
    least = -(-decisions // STEPS_MAX)
    return min(max(int(np.log2(lanes)), max(least - 1, 0).bit_length()), LANES_LOG2_MAX)
