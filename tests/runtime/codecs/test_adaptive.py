from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from seed_runtime.codecs import adaptive, wavefront, waves
from seed_runtime.codecs.bit_lanes import BitLanes
from seed_runtime.codecs.encode import adaptive as encoder
from seed_runtime.codecs.encode import grid, symbols
from seed_runtime.codecs.encode.matrix import CodedMatrix
from seed_runtime.codecs.mixing import COUNT_MAX, Contexts, Mixer
from seed_runtime.codecs.waves import Extent
from seed_runtime.errors import FormatError, LimitError
from seed_runtime.limits import ADAPTIVE_ESCAPES_MAX, CHUNK_DECODED_MAX, WAVE_MAX
from tests.support.streams import cuts, decode, floats, hole, packed, varint

# 1 and -2, from the last decision on, in one lane; yes is the first (p) slots, no the last (4096 - p):
#   -2 is negative:      p = 2048, yes: 0x10000 = 32 * 2048          -> 32 << 12               = 0x20000
#   -2 isn't above 2:    p = 1951, no:  0x20000 = 61 * 2145 + 227    -> 61 << 12 | 227 + 1951  = 0x3d882
#   -2 is above 1:       p = 1951, yes: 0x3d882 = 129 * 1951 + 355   -> 129 << 12 | 355        = 0x81163
#   -2 is above 0:       p = 1951, yes: 0x81163 = 271 * 1951 + 18    -> 271 << 12 | 18         = 0x10f012
#   1 is not negative:   p = 2048, no:  0x10f012 = 542 * 2048 + 18   -> 542 << 12 | 18 + 2048  = 0x21e812
#   1 isn't above 1:     p = 1759, no:  0x21e812 = 950 * 2337 + 1948 -> 950 << 12 | 1948 + 1759 = 0x3b6e7b
#   1 is above 0:        p = 1759, yes: 0x3b6e7b = 2214 * 1759 + 481 -> 2214 << 12 | 481       = 0x8a61e1
# The first p: a mean of 2048 has the logarithm 2816, so A has the level 56, which begins with 4 yes and 8 no, and B the
# level 14, with 5 and 7: 19660 * (811 - 1046 + 885 - 1000) div 65536 = -105, and L(1759) - L(2337) = -105.
HEAD = packed(b"\0" + varint(2) + varint(1) + b"\0" + struct.pack("<f", 0.5))
SMALL = [HEAD, bytes.fromhex("e1618a00 00")]


def _head(matrices: int = 1, lanes_log2: int = 0, cols: int = 2, taps: int = 1) -> bytes:
    record = varint(cols) + varint(taps) + (varint(1) if taps > 1 else b"") + b"\0" + struct.pack("<f", 0.5)
    return packed(bytes([lanes_log2]) + record * matrices)


def _states(lanes: int = 1) -> bytes:
    return struct.pack("<I", 1 << 16) * lanes + varint(0)


def _sparse(rng: np.random.Generator, shape: tuple[int, int], scale: float = 0.4) -> CodedMatrix:
    rows, cols = (np.exp(rng.normal(0, 0.5, size)) for size in shape)
    integers = np.rint(rng.laplace(0, scale, shape) * rows[:, None] * cols).astype(np.int32)
    return grid.matrix_of(grid.QuantizedMatrix(integers, 0.5))


def _encoded(*matrices: CodedMatrix) -> list[bytes]:
    stream = encoder.encode(matrices)
    assert stream is not None
    return stream.chunks


class _Decisions:
    """Decides as a function of probabilities, cells and a magnitude says."""

    def __init__(self, decide: Callable[[np.ndarray, np.ndarray, int], np.ndarray]) -> None:
        self._decide = decide

    def __call__(self, chances: np.ndarray, cells: np.ndarray, above: int) -> np.ndarray:
        return self._decide(chances, cells, above)

    def few(self, chances: Sequence[int], cells: Sequence[int], above: int) -> list[bool]:
        return self._decide(np.array(chances), np.array(cells), above).tolist()


def test_decisions_written_by_hand_decode() -> None:
    assert floats("adaptive", hole(1, 2), SMALL) == [[0.5, -1.0]]


def test_the_encoder_writes_the_same_bytes() -> None:
    integers = np.array([[1, -2]], np.int32)
    assert _encoded(grid.matrix_of(grid.QuantizedMatrix(integers, 0.5))) == SMALL


def test_a_stream_cut_at_any_byte_is_refused(rng: np.random.Generator) -> None:
    for shape, chunks in (((1, 2), SMALL), ((9, 7), _encoded(_sparse(rng, (9, 7), 9.0)))):
        for cut in cuts(chunks):
            with pytest.raises(FormatError):
                decode("adaptive", [hole(*shape)], cut)


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([], "head is missing"),
        (SMALL[:1], "data is missing"),
        ([*SMALL, b""], "more chunks"),
        ([HEAD, SMALL[1] + b"\0"], "1 bytes too many"),
        ([HEAD, b"\xff\xff\0\0\0"], "state is below"),
        ([HEAD, _states()], "lanes do not end|end early"),
    ],
)
def test_chunks_that_are_wrong_are_refused(chunks: list[bytes], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        decode("adaptive", [hole(1, 2)], chunks)


def test_a_type_that_is_not_a_float_is_refused() -> None:
    with pytest.raises(FormatError, match="does not decode int8"):
        decode("adaptive", [hole(1, 2, dtype="int8")], SMALL)


@pytest.mark.parametrize(
    ("shapes", "lanes_log2", "cols", "message"),
    [
        ([(1025, 1024)], 8, 1024, "live elements: 1,049,600"),
        ([(2, 8000)] * 3, 0, 8000, "live rows and columns|waves"),
        ([(17, 4081)], 4, 4081, "waves: 4,097"),
        ([(1, 1)] * 8193, 1, 1, "elements of a wave: 8,193"),
        ([(2, 1024)] * 40, 0, 1024, "live rows and columns: 41,040"),
        ([(91, 91)], 0, 91, "steps of the lanes: 8,281"),
    ],
)
def test_work_beyond_a_limit_is_refused_before_it_is_begun(
    shapes: list[tuple[int, int]], lanes_log2: int, cols: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adaptive, "Wavefront", None)
    chunks = [_head(len(shapes), lanes_log2, cols), _states(1 << lanes_log2)]
    with pytest.raises(LimitError, match=message):
        decode("adaptive", [hole(*shape) for shape in shapes], chunks)


def test_a_matrix_at_the_limit_of_waves_is_coded_and_a_larger_one_is_left_to_other_codecs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(adaptive, "WAVES_MAX", 50)
    ones = np.ones((11, 40), np.float32)
    chunks = _encoded(grid.matrix_of(grid.round_to_nearest(ones, 1.0)))
    assert decode("adaptive", [hole(11, 40)], chunks) == ones.tobytes()
    assert encoder.encode([grid.matrix_of(grid.round_to_nearest(np.ones((12, 40), np.float32), 1.0))]) is None


@pytest.mark.parametrize("scale", [0.2, 1.0, 30.0])
def test_the_integers_are_those_of_grid(scale: float, rng: np.random.Generator) -> None:
    shapes = [(30, 40), (7, 18), (1, 25), (12, 1)]
    matrices = [_sparse(rng, shape, scale) for shape in shapes]
    matrices[1] = replace(matrices[1], kernel=(9, 3))
    holes = [hole(*shape) for shape in shapes]
    assert decode("adaptive", holes, _encoded(*matrices)) == decode("grid", holes, symbols.encode(matrices).chunks)


def test_fewer_bytes_than_tables_where_rows_and_columns_differ(rng: np.random.Generator) -> None:
    matrix = _sparse(rng, (200, 150))
    assert sum(map(len, _encoded(matrix))) < 0.98 * sum(map(len, symbols.encode([matrix]).chunks))


def test_memory_stays_below_what_plans_count(rng: np.random.Generator) -> None:
    # Many narrow matrices: as many elements in a wave, and as many rows, as a stream of this size can have.
    matrices = [_sparse(rng, (16, 16)) for _ in range(300)]
    chunks = _encoded(*matrices)
    holes = [hole(16, 16)] * len(matrices)
    decode("adaptive", holes[:1], _encoded(matrices[0]))  # tables that stay
    tracemalloc.start()
    total = sum(block.size for block in adaptive.decode(holes, iter([memoryview(chunk) for chunk in chunks]), ""))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 256 * len(matrices)
    # Windows, and objects of each matrix, are counted elsewhere.
    assert peak < adaptive.held_bytes([256] * len(matrices)) + (1 << 20) + 1600 * len(matrices)
    assert adaptive.held_bytes([CHUNK_DECODED_MAX] * 9) < 16 << 20


def test_a_wave_of_single_elements_stays_below_what_plans_count() -> None:
    # As many elements in one wave as there may be, all of which take every decision.
    count = WAVE_MAX
    largest = _Decisions(lambda chances, cells, above: np.full(chances.size, above < wavefront.ESCAPE - 1))
    wavefront.Wavefront([Extent(1, 1)]).run(largest)  # tables
    tracemalloc.start()
    front = wavefront.Wavefront([Extent(1, 1)] * count)
    front.run(largest)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (front.cells != 0).sum() == count
    assert peak < adaptive.held_bytes([1] * count)


@pytest.mark.slow
def test_as_many_escapes_as_there_may_be_stay_below_what_plans_count(monkeypatch: pytest.MonkeyPatch) -> None:
    side = 128
    assert side * side == ADAPTIVE_ESCAPES_MAX
    integers = np.full((side, side), 1 << 23, np.int32)
    chunks = _encoded(grid.matrix_of(grid.QuantizedMatrix(integers, 0.5)))
    # Nothing else may hide in what the limits allow.
    monkeypatch.setattr(adaptive, "WAVE_MAX", side)
    monkeypatch.setattr(waves, "TOGETHER", side)
    monkeypatch.setattr(adaptive, "LIVE_SIDE_MAX", 2 * side)
    tracemalloc.start()
    blocks = adaptive.decode([hole(side, side)], iter([memoryview(chunk) for chunk in chunks]), "")
    total = sum(int((block == np.float32(1 << 22)).sum()) for block in blocks)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == side * side
    # Windows, counts and tables: 117 KB more were measured.
    assert peak < adaptive.held_bytes([side * side]) + (1 << 18)


def test_more_escapes_than_the_limit_are_refused_and_left_to_other_codecs(monkeypatch: pytest.MonkeyPatch) -> None:
    integers = np.array([[15, 14, -15, 700]], np.int32)
    matrix = grid.matrix_of(grid.QuantizedMatrix(integers, 1.0))
    monkeypatch.setattr(adaptive, "ADAPTIVE_ESCAPES_MAX", 3)
    chunks = _encoded(matrix)
    assert floats("adaptive", hole(1, 4), chunks) == integers.tolist()
    monkeypatch.setattr(adaptive, "ADAPTIVE_ESCAPES_MAX", 2)
    with pytest.raises(LimitError, match="escapes: 3"):
        decode("adaptive", [hole(1, 4)], chunks)
    monkeypatch.setattr(encoder, "ADAPTIVE_ESCAPES_MAX", 2)
    assert encoder.encode([matrix]) is None


@pytest.mark.parametrize("extent", [Extent(1 << 15, 0, 1 << 17, 9), Extent(0, 1 << 15)])
def test_a_matrix_without_elements_takes_no_cells(extent: Extent) -> None:
    front = wavefront.Wavefront([extent, Extent(1, 1)])
    assert front.starts[:2] == [0, 0]
    assert extent.inside(front.cells[:0]).shape == (extent.rows, extent.cols)


def test_predictions_follow_what_was_decided() -> None:
    contexts, mixer = Contexts(4), Mixer(2)
    index = np.array([[0, 2], [4, 4]])
    assert mixer.predict(contexts.opinions(index)).tolist() == [2048, 2048]
    for _ in range(2000):
        opinions, decided = contexts.opinions(index), np.array([True, False])
        mixer.learn(opinions, mixer.predict(opinions), decided)
        contexts.count(index, decided)
    sure, unlikely = mixer.predict(contexts.opinions(index)).tolist()
    assert sure > 4000
    assert unlikely < 100
    assert contexts.counts.reshape(-1, 2).sum(1).max() <= COUNT_MAX


def test_opinions_of_many_decisions_are_those_of_each(rng: np.random.Generator) -> None:
    contexts = Contexts(9)
    index = 2 * rng.integers(0, 9, (2, 30))
    contexts.count(index, rng.random(30) < 0.3)
    each = [contexts.opinions(index[:, place : place + 1]) for place in range(30)]
    assert np.array_equal(contexts.opinions(index), np.concatenate(each, 1))
    assert len(np.unique(contexts.opinions(index))) > 2


def test_a_few_decisions_are_predicted_and_learnt_as_many_are(rng: np.random.Generator) -> None:
    many, few = Mixer(3), Mixer(3)
    for size in (1, 2, 15, 16, 1, 40):
        opinions, decided = rng.integers(-9000, 9000, (3, size)), rng.random(size) < 0.3
        each = list(zip(*opinions.tolist(), strict=True))
        chances = many.predict(opinions)
        assert chances.tolist() == few.predict_few(each)
        many.learn(opinions, chances, decided)
        few.learn_few(each, chances.tolist(), decided.tolist())


@pytest.mark.parametrize("lanes", [1, 4, 50])
def test_a_few_decisions_take_the_words_that_many_do(lanes: int, rng: np.random.Generator) -> None:
    states, words = rng.integers(1 << 16, 1 << 20, lanes, np.uint32), memoryview(rng.bytes(400))
    many, few = BitLanes(states, words, "many"), BitLanes(states, words, "few")
    for size in (1, 3, 60, 2, 40):
        chances = rng.integers(1, 4096, size)
        assert many.decide(chances).tolist() == few.decide_few(chances.tolist())
    for lane in (many.decide, few.decide_few):
        with pytest.raises(FormatError, match="end early"):
            lane(np.full(9000, 2048))


def test_an_expected_magnitude_is_the_product_of_its_factors(rng: np.random.Generator) -> None:
    extents = [Extent(60, 50)]
    front, seen = wavefront.Wavefront(extents), []
    values = np.zeros(front.starts[-1], np.int64)
    rows, cols = np.arange(60) % 3, np.arange(50) % 2
    extents[0].inside(values)[:] = 3 * (rows[:, None] == 2) * (cols == 1)

    def decide(chances: np.ndarray, cells: np.ndarray, above: int) -> np.ndarray:
        known = np.abs(values[cells]) > above if above >= 0 else values[cells] < 0
        seen.append(np.where(known, chances, 4096 - chances))
        return known

    front.run(_Decisions(decide))
    assert np.array_equal(extents[0].inside(front.cells), extents[0].inside(values))
    # 3,000 elements, of which every sixth is 3: learnt within some hundred decisions.
    assert -np.log2(np.concatenate(seen) / 4096).sum() < 1500


def test_the_head_tells_which_matrices_are_on_a_trellis(rng: np.random.Generator) -> None:
    matrices = [_sparse(rng, (9, 7)), replace(_sparse(rng, (9, 7)), delay=7)]
    head = memoryview(_encoded(*matrices)[0])
    assert adaptive.trellises([hole(9, 7)] * 2, head, "stream 0") == [False, True]
