from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest

from seed_runtime.codecs import lowrank
from seed_runtime.codecs.encode import grid as grid_encoder
from seed_runtime.codecs.encode import symbols
from seed_runtime.codecs.encode.grid import QuantizedMatrix
from seed_runtime.codecs.encode.matrix import CodedMatrix
from seed_runtime.errors import FormatError, LimitError
from tests.support.streams import cuts, data, decode, floats, head, hole, shape, table, varint

# Frequencies 2048, 1024, 1024. Four symbols, V's two before U's two, over two lanes, from the last step on:
#   lane 0, third symbol: 0x10000 = 64 * 1024 -> 64 << 12 | 3072 = 0x40c00
#           0: 0x40c00 = 129 * 2048 + 1024 -> 129 << 12 | 1024 = 0x81400
#   lane 1, 0: 0x10000 = 32 * 2048 -> 0x20000
#           second symbol: 0x20000 = 128 * 1024 -> 128 << 12 | 2048 = 0x80800
# From byte 255 on, third and second are -1 and 1; from byte 0 on, they are 2 and 1.
DATA = data(states=(0x81400, 0x80800), words=())
SIGNED, PLAIN = table(255, (1024, 2048, 1024)), table(0, (2048, 1024, 1024))
FACTORS = shape(2, step=0.5) + shape(1, step=0.25)


def _prefix(cols: int = 2, rank: int = 1, shifts: bytes = b"\x01") -> bytes:
    return varint(cols) + varint(rank) + shifts


SMALL = [head(prefix=_prefix(), tables=SIGNED, shapes=FACTORS), DATA]


def test_a_product_written_by_hand_decodes() -> None:
    # V = [0, 1] << 1, U = [-1, 0], scale 0.5 * 0.25.
    assert floats("lowrank", hole(2, 2), SMALL) == [[0, -0.25], [0, 0]]


def test_zeros_have_no_sign() -> None:
    # -1 * 0: one BLAS leaves -0.0, another 0.0.
    assert decode("lowrank", [hole(2, 2)], SMALL)[:4] == bytes(4)


def test_a_stream_cut_at_any_byte_is_refused() -> None:
    for chunks in cuts(SMALL):
        with pytest.raises(FormatError):
            decode("lowrank", [hole(2, 2)], chunks)


def test_rows_of_the_left_factor_may_have_steps_of_their_own() -> None:
    # Code 12 is three steps; the second row of U is 0, so the first one gets it.
    shapes = shape(2, step=0.5) + shape(1, flags=4, step=0.25)
    chunks = [head(prefix=_prefix(), tables=SIGNED, shapes=shapes, arrays=b"\x0c\x00"), DATA]
    assert floats("lowrank", hole(2, 2), chunks) == [[0, -0.75], [0, 0]]


def test_columns_of_the_right_factor_may_have_steps_of_their_own() -> None:
    # Code 12 is three steps; that of the dead column isn't looked at.
    shapes = shape(2, flags=8, step=0.5) + shape(1, step=0.25)
    chunks = [head(prefix=_prefix(), tables=SIGNED, shapes=shapes, arrays=b"\x00\x0c"), DATA]
    assert floats("lowrank", hole(2, 2), chunks) == [[0, -0.75], [0, 0]]
    shapes = shape(3, flags=10, step=2.0**90) + shape(1, step=0.25)
    arrays = b"\x00\xff\x0c" + b"\x01\x00\x01"
    chunks = [head(prefix=_prefix(cols=3), tables=SIGNED, shapes=shapes, arrays=arrays), DATA]
    assert floats("lowrank", hole(2, 3), chunks) == [[0, 0, -3 * 2.0**89], [0, 0, 0]]


def test_dead_rows_of_the_left_factor_are_zero() -> None:
    shapes = shape(2, step=0.5) + shape(1, flags=5, step=0.25)
    chunks = [head(prefix=_prefix(), tables=SIGNED, shapes=shapes, arrays=b"\xff\x0c\x00" + b"\x00\x01\x01"), DATA]
    assert floats("lowrank", hole(3, 2), chunks) == [[0, 0], [0, -0.75], [0, 0]]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"prefix": _prefix(cols=0)}, "at least 1"),
        ({"prefix": _prefix(cols=3)}, "do not divide"),
        ({"prefix": _prefix(cols=(1 << 18) + 1)}, "limit of 262,144"),
        ({"prefix": _prefix(rank=0, shifts=b"")}, "at least 1"),
        ({"prefix": _prefix(rank=3, shifts=bytes(3))}, "limit of 2"),
        ({"prefix": _prefix(rank=2)}, "no table to share"),
        ({"prefix": _prefix(shifts=b"\x18")}, "shift of 24"),
        ({"prefix": _prefix(cols=1)}, "do not divide|wide"),
        ({"shapes": shape(1, step=0.5) + shape(1, step=0.25)}, "wide"),
        ({"shapes": shape(2, flags=4) + shape(1), "arrays": b"\x00"}, "right factor has steps"),
        ({"shapes": shape(2) + shape(1, flags=8), "arrays": b"\x00"}, "left factor has steps"),
        ({"shapes": shape(2, flags=8, step=2.0**80) + shape(1), "arrays": b"\x00\xff"}, "scale"),
        ({"shapes": shape(2, step=1e30) + shape(1, step=1e30)}, "scale"),
        ({"shapes": shape(2, step=1e15) + shape(1, step=2e15)}, "scale"),
        ({"shapes": shape(2, step=1e-30) + shape(1, step=1e-30)}, "scale"),
        ({"prefix": b""}, "at least|limit|past the end|lanes"),
    ],
)
def test_a_head_that_lies_is_refused(changed: dict[str, bytes], message: str) -> None:
    fields = {"prefix": _prefix(), "tables": SIGNED, "shapes": FACTORS, **changed}
    with pytest.raises(FormatError, match=message):
        decode("lowrank", [hole(2, 2)], [head(**fields), DATA])  # type: ignore[arg-type]


def test_factors_too_large_to_hold_are_refused_before_they_are_read() -> None:
    with pytest.raises(LimitError, match="right factor"):
        decode("lowrank", [hole(8, 1 << 18)], [head(prefix=varint(1 << 18) + varint(5) + bytes(5)), DATA])


@pytest.mark.parametrize(("rows", "cols", "most"), [(1, 900, 1), (7, 3, 3), (3, 7, 3), (2000, 1030, 1024)])
def test_a_rank_is_at_most_the_shorter_side(rows: int, cols: int, most: int) -> None:
    with pytest.raises(LimitError, match=f"rank: {most + 1:,} exceeds the limit of {most:,}"):
        decode("lowrank", [hole(rows, cols)], [head(prefix=varint(cols) + varint(most + 1) + bytes(most + 1)), DATA])


def test_sums_that_float32_does_not_hold_are_refused() -> None:
    # V = [0, 1] << shift, U = [2, 0].
    exact, beyond = (head(prefix=_prefix(shifts=bytes([s])), tables=PLAIN, shapes=FACTORS) for s in (22, 23))
    assert floats("lowrank", hole(2, 2), [exact, DATA]) == [[0, 2**23 / 8], [0, 0]]
    with pytest.raises(FormatError, match="16777216 are not exact"):
        decode("lowrank", [hole(2, 2)], [beyond, DATA])


@pytest.mark.parametrize("dtype", ["int8", "int64"])
def test_types_that_hold_no_fractions_are_refused(dtype: str) -> None:
    with pytest.raises(FormatError, match=f"does not decode {dtype}"):
        decode("lowrank", [hole(2, 2, dtype=dtype)], SMALL)


@pytest.mark.parametrize("chunks", [[], SMALL[:1], [*SMALL, b""]])
def test_chunks_missing_and_chunks_too_many_are_refused(chunks: list[bytes]) -> None:
    with pytest.raises(FormatError):
        decode("lowrank", [hole(2, 2)], chunks)


def _coded(u: np.ndarray, v: np.ndarray, shifts: list[int], step: float) -> tuple[list[CodedMatrix], bytes]:
    prefix = varint(v.shape[1]) + varint(len(shifts)) + bytes(shifts)
    return [grid_encoder.matrix_of(QuantizedMatrix(v, 1.0)), grid_encoder.matrix_of(QuantizedMatrix(u, step))], prefix


def test_every_machine_gets_the_product_of_the_integers(rng: np.random.Generator) -> None:
    shapes = [(300, 40, 5), (2, 70_000, 2), (70, 33, 33), (4000, 3, 1), (5, 6, 4)]
    matrices, prefix, expected = [], b"", []
    for rows, cols, rank in shapes:
        u, v = rng.integers(-99, 100, (rows, rank), np.int32), rng.integers(-99, 100, (rank, cols), np.int32)
        u[rng.random(rows) < 0.3], v[:, rng.random(cols) < 0.3] = 0, 0
        if (rows, cols) == (5, 6):
            u[...] = 0
        shifts = rng.integers(0, 4, rank).tolist()
        coded, head_ = _coded(u, v, shifts, 1e-3)
        matrices, prefix = matrices + coded, prefix + head_
        exact = u.astype(np.int64) @ (v.astype(np.int64) << np.array(shifts)[:, None])
        expected.append((exact.astype(np.float32) * np.float32(1e-3)).ravel())
    chunks = symbols.encode(matrices, prefix=prefix).chunks
    decoded = decode("lowrank", [hole(rows, cols) for rows, cols, _ in shapes], chunks)
    assert decoded == np.concatenate(expected).tobytes()


def test_memory_does_not_grow_with_the_rows() -> None:
    rng = np.random.default_rng(0)
    v = rng.integers(-20, 20, (64, 64), np.int32)

    def peak(rows: int) -> int:
        coded, prefix = _coded(rng.integers(-20, 20, (rows, 64), np.int32), v, [0] * 64, 0.5)
        chunks = symbols.encode(coded, prefix=prefix).chunks

        def views() -> Iterator[memoryview]:
            while chunks:
                yield memoryview(chunks.pop(0))

        tracemalloc.start()
        total = sum(block.size for block in lowrank.decode([hole(rows, 64)], views(), "stream 0"))
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert total == rows * 64
        return top

    # 3.2 MiB more of W. The classes of rows and a second chunk are held.
    assert peak(33_000) < peak(20_000) + (1 << 20)
