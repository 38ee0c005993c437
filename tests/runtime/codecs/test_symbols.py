from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest

from seed_runtime.codecs import grid
from seed_runtime.codecs.arrays import WINDOW
from seed_runtime.codecs.encode import grid as grid_encoder
from seed_runtime.codecs.encode import symbols as encoder
from seed_runtime.codecs.encode.grid import QuantizedMatrix
from seed_runtime.codecs.matrix import rectangles
from seed_runtime.errors import FormatError, LimitError, UnsupportedError
from seed_runtime.limits import CHUNK_DECODED_MAX, LANES_LOG2_MAX, SIDE_MAX, STEPS_MAX
from tests.support.streams import RARE, cuts, data, decode, floats, head, hole, packed, shape, table, varint

SMALL = [head(), data()]


def test_a_stream_written_by_hand_decodes() -> None:
    assert floats("grid", hole(2, 2), SMALL) == [[0.5, 0], [1.0, 0]]


def test_a_stream_cut_at_any_byte_is_refused() -> None:
    for chunks in cuts(SMALL):
        with pytest.raises(FormatError):
            decode("grid", [hole(2, 2)], chunks)


def test_a_class_without_a_table_of_its_own_shares_the_one_before() -> None:
    # Row classes 1 and 2: class 1 uses class 0's table again.
    shared = head(classes=2, tables=table(0, RARE) + varint(0), shapes=shape(2, 0, 1), arrays=b"\x01\x02")
    assert floats("grid", hole(2, 2), [shared, data()]) == [[0.5, 0], [1.0, 0]]


def test_rows_and_columns_of_class_0_are_dead() -> None:
    dead = head(shapes=shape(3, 0, 3), arrays=b"\x01\x00\x01" + b"\x00\x01\x01")
    assert floats("grid", hole(3, 3), [dead, data()]) == [[0, 0.5, 0], [0, 0, 0], [0, 1.0, 0]]


@pytest.mark.parametrize("arrays", [b"\x00\x00\x01\x01", b"\x01\x01\x00\x00"])
def test_a_matrix_without_live_symbols_has_no_data_chunk(arrays: bytes) -> None:
    empty = head(shapes=shape(2, 0, 3), arrays=arrays)
    assert floats("grid", hole(2, 2), [empty]) == [[0, 0], [0, 0]]
    with pytest.raises(FormatError, match="more chunks"):
        decode("grid", [hole(2, 2)], [empty, data()])


def test_lanes_run_on_from_one_matrix_to_the_next() -> None:
    # One row, a dead matrix, another row: the same four symbols.
    split = head(shapes=shape(2) + shape(3, 0, 1) + shape(2, step=2.0), arrays=b"\x00")
    decoded = decode("grid", [hole(2), hole(1, 3), hole(1, 2)], [split, data()])
    assert np.frombuffer(decoded, "<f4").tolist() == [0.5, 0, 0, 0, 0, 4.0, 0]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"lanes_log2": LANES_LOG2_MAX + 1}, "lanes are too many"),
        ({"classes": 0, "tables": b""}, "at least 1"),
        ({"classes": 257, "tables": table(0, RARE) + bytes(256)}, "limit of 256"),
        ({"classes": 65, "tables": table(0, RARE) * 65}, "limit of 64"),
        ({"classes": 2}, "sum 0"),
        ({"tables": varint(0)}, "no table to share"),
        ({"tables": table(0, RARE, count=2)}, "sum"),
        ({"tables": table(0, (4093, 1, 1))}, "sum 4095"),
        ({"tables": table(0, (4095, 1, 1))}, "sum 4097"),
        ({"tables": table(0, (4096,))}, "limit of 4,095"),
        ({"tables": table(0, (), escape=4096, count=1)}, "limit of 4,095"),
        ({"tables": table(0, [16] * 257)}, "limit of 256"),
        ({"tables": table(0x7F, (4094, 2))}, "lists the escape"),
        ({"shapes": shape(0)}, "at least 1"),
        ({"shapes": shape(3)}, "do not divide"),
        ({"shapes": shape(SIDE_MAX + 1)}, "limit of 262,144"),
        ({"shapes": shape(2, low_bits=25)}, "low bits are too many"),
        ({"shapes": shape(2, flags=32)}, "flags"),
        ({"shapes": shape(2, flags=0x80)}, "flags"),
        ({"shapes": shape(2, step=float("nan"))}, "step"),
        ({"shapes": shape(2, step=float("inf"))}, "step"),
        ({"shapes": shape(2, step=-1.0)}, "step"),
        ({"shapes": shape(2, step=0.0)}, "step"),
        ({"shapes": shape(2, step=-0.0)}, "step"),
        ({"shapes": shape(2, flags=1), "arrays": b"\x01\x02"}, "class without a table"),
        ({"shapes": shape(2, flags=2), "arrays": b"\xff\x01"}, "class without a table"),
        ({"shapes": shape(2, flags=3), "arrays": b"\xff\x01\xff\x01"}, "class without a table"),
        ({"shapes": shape(2, flags=1), "arrays": b"\x01"}, "row classes ends 1 bytes past"),
        ({"shapes": shape(2, flags=4), "arrays": b"\x01"}, "row steps ends 1 bytes past"),
        ({"shapes": shape(2, flags=8), "arrays": b"\x01"}, "column steps ends 1 bytes past"),
        ({"tail": b"\x00"}, "too many"),
    ],
)
def test_a_head_that_lies_is_refused(changed: dict[str, object], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        decode("grid", [hole(2, 2)], [head(**changed), data()])  # type: ignore[arg-type]


def test_row_steps_that_leave_float32_are_refused() -> None:
    far = head(shapes=shape(2, flags=4, step=3e38), arrays=b"\x00\xff")
    with pytest.raises(FormatError, match="step"):
        decode("grid", [hole(2, 2)], [far, data()])


@pytest.mark.parametrize("size", [0, len(SMALL[0]) - 3, len(SMALL[0]) - 1])
def test_a_head_of_another_size_than_announced_is_refused(size: int) -> None:
    with pytest.raises(FormatError, match="announced"):
        decode("grid", [hole(2, 2)], [packed(SMALL[0][2:], size=size), data()])


def test_a_packing_that_came_later_asks_for_a_newer_runtime() -> None:
    with pytest.raises(UnsupportedError, match="packing 9"):
        decode("grid", [hole(2, 2)], [packed(SMALL[0][2:], packing=9), data()])


def test_a_head_that_asks_for_gigabytes_is_refused_before_it_is_unpacked() -> None:
    with pytest.raises(LimitError):
        decode("grid", [hole(2, 2)], [packed(b"", packing=1, size=1 << 32), data()])


def test_sides_are_limited_before_anything_of_their_size_is_allocated() -> None:
    tracemalloc.start()
    with pytest.raises(LimitError, match="rows and columns"):
        decode("grid", [hole(1 << 38)], [head(shapes=shape(1)), data()])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"states": (0x01000FFE,)}, "past the end"),
        ({"states": (0x01000FFE, 0xFFFF)}, "state is below 65,536"),
        ({"count": 2}, "past the end"),
        ({"count": 0}, "words end early|no int32s"),
        ({"count": 1 << 30}, "limit"),
        ({"words": ()}, "words end early"),
        ({"words": (0x0FFF, 0)}, "left over"),
        ({"states": (0x01000FFE, 0x10041)}, "do not end where they began"),
        ({"words": (0x0FFD,)}, "do not end where they began"),
        ({"escapes": b"\x00\x00\x00\x00"}, "1 escapes are left over"),
        ({"escapes": b"\x00\x00\x00"}, "no int32s"),
    ],
)
def test_a_data_chunk_that_lies_is_refused(changed: dict[str, object], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        decode("grid", [hole(2, 2)], [head(), data(**changed)])  # type: ignore[arg-type]


@pytest.mark.parametrize(("chunks", "message"), [([], "head"), (SMALL[:1], "data"), ([*SMALL, b""], "more chunks")])
def test_chunks_missing_and_chunks_too_many_are_refused(chunks: list[bytes], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        decode("grid", [hole(2, 2)], chunks)


def test_rectangles_cover_a_range_in_order() -> None:
    cells = np.arange(35).reshape(5, 7)
    for start in range(35):
        for stop in range(start, 36):
            parts = [cells[a:b, c:d].ravel() for a, b, c, d in rectangles(start, stop, 7)]
            assert len(parts) <= 3
            assert np.array_equal(np.concatenate([*parts, cells[:0, 0]]), np.arange(start, stop))


def _random_stream(rows: int, cols: int) -> list[bytes]:
    rng = np.random.default_rng(rows)
    integers = rng.integers(-300, 300, (rows, cols)).astype(np.int32)
    integers[5] = 0
    return encoder.encode([grid_encoder.matrix_of(QuantizedMatrix(integers, 0.25))]).chunks


def _peak(rows: int, cols: int) -> int:
    chunks = _random_stream(rows, cols)

    def views() -> Iterator[memoryview]:
        while chunks:
            yield memoryview(chunks.pop(0))

    tracemalloc.start()
    total = sum(block.size for block in grid.decode([hole(rows, cols)], views(), "stream 0"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == rows * cols
    return peak


def test_memory_does_not_grow_with_the_stream() -> None:
    one_chunk = CHUNK_DECODED_MAX // 512
    small, large = _peak(2 * one_chunk, 512), _peak(3 * one_chunk, 512)
    assert large < small + (256 << 10)
    assert large < 8 << 20


def test_chunks_and_windows_may_end_within_a_row() -> None:
    # 1,001 columns divide neither the window nor the chunk.
    rows, cols = CHUNK_DECODED_MAX // 1001 + 400, 1001
    rng = np.random.default_rng(1)
    integers = rng.integers(-2000, 2000, (rows, cols)).astype(np.int32)
    integers[7:500:3] = 0
    integers[:, 100] = 0
    coded = encoder.encode([grid_encoder.matrix_of(QuantizedMatrix(integers, 0.5))])
    assert len(coded.chunks) == 3
    assert len(coded.chunks[1]) > WINDOW
    decoded = np.frombuffer(decode("grid", [hole(rows, cols)], coded.chunks), "<f4").reshape(rows, cols)
    assert np.array_equal(decoded, integers * np.float32(0.5))


def test_too_few_lanes_for_many_symbols_are_refused_before_a_step_is_taken() -> None:
    # One lane and a sure symbol: 417 bytes would keep a device busy for ten seconds a million symbols.
    lonely = head(lanes_log2=0, shapes=shape(STEPS_MAX + 1))
    with pytest.raises(LimitError, match="steps of a chunk"):
        decode("grid", [hole(STEPS_MAX + 1)], [lonely])
