"""Matrices of codec 8 as decisions and bytes, by the walk of the decoder that was written from SPEC.md alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.golden.plain_adaptive import Plane, coded, walk
from tests.support.spec_bytes import f32, u8, u16, u32, varint


@dataclass(frozen=True)
class AdaptiveMatrix:
    """The values of a matrix as rows of integers, and its fields in the head; shares are None where all live."""

    values: Sequence[Sequence[int]]
    step: float = 1.0
    taps: int = 1
    width: int = 2
    live_rows: int | None = None
    live_channels: int | None = None
    row_steps: bytes | None = None
    col_steps: bytes | None = None
    delay: int | None = None

    @property
    def flags(self) -> int:
        """The flags that its fields imply."""
        given = (self.live_rows, self.live_channels, self.row_steps, self.col_steps, self.delay)
        return sum(1 << bit for bit, value in enumerate(given) if value is not None)

    def live(self) -> tuple[list[bool], list[bool]]:
        """Return which rows and which channels live: those that aren't zero, or all."""
        rows = [self.live_rows is None or any(row) for row in self.values]
        starts = range(0, len(self.values[0]), self.taps)
        channels = [
            self.live_channels is None or any(any(row[start : start + self.taps]) for row in self.values)
            for start in starts
        ]
        return rows, channels

    def record(self) -> bytes:
        """Return its record in the head."""
        out = varint(len(self.values[0])) + varint(self.taps) + (varint(self.width) if self.taps > 1 else b"")
        out += u8(self.flags) + f32(self.step) + (b"" if self.delay is None else varint(self.delay))
        return out + bytes(share for share in (self.live_rows, self.live_channels) if share is not None)


def decisions(matrices: Sequence[AdaptiveMatrix]) -> tuple[list[tuple[int, bool]], list[int]]:
    """Return all decisions with their probabilities, and what stands in `escapes`."""
    out: list[tuple[int, bool]] = []
    planes, live = [], []
    for matrix in matrices:
        rows, channels = matrix.live()
        for share, flags in ((matrix.live_rows, rows), (matrix.live_channels, channels)):
            if share is not None:
                out += [(16 * share, flag) for flag in flags]
        kept = [place for place, lives in enumerate(channels) for _ in range(matrix.taps) if lives]
        cols = [place * matrix.taps + number % matrix.taps for number, place in enumerate(kept)]
        live.append([[matrix.values[row][col] for col in cols] for row, lives in enumerate(rows) if lives])
        planes.append(Plane(sum(rows), len(cols), matrix.taps, matrix.width))

    def decide(p: int, matrix: int, row: int, col: int, above: int) -> bool:
        value = live[matrix][row][col]
        out.append((p, value < 0 if above < 0 else abs(value) > above))
        return out[-1][1]

    escaped = walk(planes, decide)
    return out, [abs(live[matrix][row][col]) - 15 for matrix, row, col in escaped]


def chunks(matrices: Sequence[AdaptiveMatrix], lanes_log2: int = 0) -> list[bytes]:
    """Return both chunks of a stream."""
    decided, escapes = decisions(matrices)
    states, words = coded(decided, 1 << lanes_log2)
    raw = u8(lanes_log2) + b"".join(matrix.record() for matrix in matrices)
    raw += b"".join(matrix.row_steps or b"" for matrix in matrices)
    raw += b"".join(matrix.col_steps or b"" for matrix in matrices)
    data = b"".join(map(u32, states)) + varint(len(words)) + b"".join(map(u16, words)) + b"".join(map(varint, escapes))
    return [u8(0) + varint(len(raw)) + raw, data]
