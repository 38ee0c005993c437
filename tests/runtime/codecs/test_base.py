"""A codec that codes differences: it gets the base's values of a hole window by window."""

from __future__ import annotations

import hashlib
import io
import tracemalloc
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from seed_runtime import codecs
from seed_runtime.assembly.assemble import check_only, decode_streams
from seed_runtime.codecs import BaseWeights, Codec
from seed_runtime.codecs.arrays import Values
from seed_runtime.errors import FormatError
from seed_runtime.format.dtypes import FLOAT32
from seed_runtime.format.header import Header, Hole, ModelInfo, Part, WeightsInfo
from seed_runtime.format.reader import SeedReader
from seed_runtime.format.writer import stream_of
from tests.support.seed_builder import build_seed

WINDOW = 1 << 14
DIFFERENCES = 0xF0
"""A codec that only these tests have: float32 differences, one chunk a hole."""


def decode(
    holes: Sequence[Hole], chunks: Iterator[memoryview], where: str, base: BaseWeights | None = None, _cores: int = 1, /
) -> Iterator[Values]:
    if base is None:
        raise FormatError(where, "its codec needs a base")
    for index, (hole, chunk) in enumerate(zip(holes, chunks, strict=True)):
        differences = np.frombuffer(chunk, "<f4")
        for start in range(0, hole.count, WINDOW):
            stop = min(start + WINDOW, hole.count)
            yield base.read(index, start, stop) + differences[start:stop]


class Ramp:
    """A base whose element i of hole h is 1000 * h + i. It never has a whole tensor in memory."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int, int]] = []

    def read(self, hole: int, start: int, stop: int) -> Values:
        self.asked.append((hole, start, stop))
        return np.arange(start, stop, dtype=np.float32) + np.float32(1000 * hole)


@pytest.fixture(autouse=True)
def _codec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(codecs.CODECS, DIFFERENCES, Codec(DIFFERENCES, "differences", decode))


def header_of(counts: Sequence[int], chunks: Sequence[Sequence[bytes]], holes_of: Sequence[int]) -> Header:
    holes, offset = [], 0
    for count in counts:
        holes.append(Hole(FLOAT32, (count,), 0, offset))
        offset += 4 * count
    streams, first = [], 0
    for coded, taken in zip(chunks, holes_of, strict=True):
        streams.append(stream_of(DIFFERENCES, first, taken, coded))
        first += taken
    part, model = Part(1, 0, 0, 0, bytes(32)), ModelInfo("m", 1, 1, 1, 1)
    return Header(model, WeightsInfo(offset, bytes(32)), (part,), tuple(holes), tuple(streams))


def test_differences_are_added_to_the_base_window_by_window() -> None:
    counts, base, out = [5, WINDOW + 7, 3], Ramp(), bytearray()
    differences = [np.full(count, number + 0.5, np.float32) for number, count in enumerate(counts)]
    chunks = [[differences[0].tobytes()], [differences[1].tobytes(), differences[2].tobytes()]]
    digest = decode_streams(
        header_of(counts, chunks, [1, 2]),
        lambda index, _: iter([memoryview(chunk) for chunk in chunks[index]]),
        out.extend,
        base=base,
    )
    expected = np.concatenate(
        [np.arange(count, dtype=np.float32) + 1000 * hole + differences[hole] for hole, count in enumerate(counts)]
    ).astype("<f4")
    assert bytes(out) == expected.tobytes()
    assert digest == hashlib.sha256(expected.tobytes()).digest()
    # Holes are counted from the stream's first one by the codec, from the seed's first one by the base.
    assert base.asked == [(0, 0, 5), (1, 0, WINDOW), (1, WINDOW, WINDOW + 7), (2, 0, 3)]


def test_memory_does_not_grow_with_the_base() -> None:
    peaks = []
    for count in (8 * WINDOW, 32 * WINDOW):
        chunk = memoryview(bytes(4 * count))
        header = header_of([count], [[bytes(chunk)]], [1])
        tracemalloc.start()
        decode_streams(header, lambda index, _, chunk=chunk: iter([chunk]), lambda data: None, base=Ramp())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + (1 << 12)


def test_a_codec_of_differences_says_that_its_base_is_missing() -> None:
    header = header_of([1], [[bytes(4)]], [1])
    with pytest.raises(FormatError, match="stream 0: its codec needs a base"):
        decode_streams(header, lambda index, _: iter([memoryview(bytes(4))]), lambda data: None)


def test_codecs_that_need_no_base_ignore_it() -> None:
    base = Ramp()
    check_only(SeedReader(io.BytesIO(build_seed()), "m.seed"), base=base)
    assert base.asked == []
