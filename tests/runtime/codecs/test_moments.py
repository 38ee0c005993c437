from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest

from seed_runtime import generator
from seed_runtime.codecs import moments
from seed_runtime.errors import FormatError, LimitError
from seed_runtime.limits import CHUNK_DECODED_MAX
from tests.support.streams import cuts, decode, floats, hole, packed, varint


def _head(
    cols: int = 2,
    components: int = 1,
    seed: int = 0,
    mean: float = 0.0,
    deviation: float = 0.0,
    threshold: float = 0.0,
) -> bytes:
    return varint(cols) + varint(components) + varint(seed) + struct.pack("<3f", mean, deviation, threshold)


# Mean row 1, 2; component 1, -1; scores 0.5, 2: float16 3c00 4000, 3c00 bc00, 3800 4000.
HALVES = bytes.fromhex("003c 0040 003c 00bc 0038 0040")
DATA = b"\x00\x01" + HALVES
SMALL = [packed(_head()), DATA]


def test_components_written_by_hand_decode() -> None:
    # 1 + 0.5 * 1, 2 + 0.5 * -1; 1 + 2 * 1, 2 + 2 * -1
    assert floats("moments", hole(2, 2), SMALL) == [[1.5, 1.5], [3, 0]]


def test_planes_of_bytes_are_interleaved_again() -> None:
    planes = b"\x00\x02" + HALVES[::2] + HALVES[1::2]
    assert floats("moments", hole(2, 2), [SMALL[0], planes]) == [[1.5, 1.5], [3, 0]]


def test_without_components_there_is_the_mean_row() -> None:
    chunks = [packed(_head(components=0)), b"\x00\x01" + HALVES[:4]]
    assert floats("moments", hole(3, 2), chunks) == [[1, 2], [1, 2], [1, 2]]


def test_weights_below_the_threshold_are_zero() -> None:
    chunks = [packed(_head(threshold=1.5)), b"\x00\x01" + bytes.fromhex("003c 0040 003c 00bc 0038 003c")]
    # 1 + 1 * 1 = 2 and 2 - 1 = 1: below. 1.5 is not.
    assert floats("moments", hole(2, 2), chunks) == [[1.5, 1.5], [2, 0]]


def test_noise_is_the_generators_and_follows_the_place_of_a_weight() -> None:
    chunks = [packed(_head(seed=7, mean=0.25, deviation=0.5)), DATA]
    noise = generator.normal(7, 0, 4, 0.25, 0.5).reshape(2, 2)
    expected = np.array([[1.5, 1.5], [3, 0]], np.float32) + noise
    assert floats("moments", hole(2, 2), chunks) == expected.tolist()


def test_tensors_of_one_stream_follow_each_other() -> None:
    heads = _head() + _head(cols=1, components=0)
    chunks = [packed(heads), b"\x00\x01" + HALVES + b"\x00\xbc"]
    decoded = decode("moments", [hole(2, 2), hole(2, dtype="float16")], chunks)
    assert decoded == np.float32([1.5, 1.5, 3, 0]).tobytes() + np.float16([-1, -1]).tobytes()


def test_a_stream_cut_at_any_byte_is_refused() -> None:
    for chunks in cuts(SMALL):
        with pytest.raises(FormatError):
            decode("moments", [hole(2, 2)], chunks)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"cols": 0}, "at least 1"),
        ({"cols": 3}, "do not divide"),
        ({"cols": (1 << 18) + 1}, "limit of 262,144"),
        ({"components": 3}, "limit of 2"),
        ({"components": 0}, "12 bytes unpacked|announced"),
        ({"seed": 1 << 32}, "limit of 4,294,967,295"),
        ({"mean": float("nan")}, "mean of nan"),
        ({"mean": float("-inf")}, "mean of inf"),
        ({"mean": 1e30}, "mean"),
        ({"mean": -1e-30}, "mean"),
        ({"deviation": float("nan")}, "deviation of nan"),
        ({"deviation": -1.0}, "deviation of -1"),
        ({"deviation": 1e-38}, "deviation"),
        ({"threshold": -0.5}, "threshold"),
        ({"threshold": float("inf")}, "threshold"),
    ],
)
def test_a_head_that_lies_is_refused(changed: dict[str, float], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        decode("moments", [hole(2, 2)], [packed(_head(**changed)), DATA])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rows", "cols", "components", "limit"),
    [(2000, 2000, 1025, "1,024"), (8, 1 << 18, 5, "4,194,304"), (4, 2000, 5, "4"), (2000, 4, 5, "4")],
)
def test_components_are_limited_before_they_are_read(rows: int, cols: int, components: int, limit: str) -> None:
    with pytest.raises(LimitError, match=f"limit of {limit};"):
        decode("moments", [hole(rows, cols)], [packed(_head(cols, components)), DATA])


@pytest.mark.parametrize(
    "chunks",
    [
        [],
        SMALL[:1],
        [*SMALL, b""],
        [packed(_head() + b"\x00"), DATA],
        [SMALL[0], DATA + b"\x00"],
        [SMALL[0], b"\x00\x05" + HALVES],
        [SMALL[0], b"\x00\x08" + HALVES],
        [packed(_head(), size=1 << 21), DATA],
    ],
)
def test_chunks_that_lie_are_refused(chunks: list[bytes]) -> None:
    with pytest.raises(FormatError):
        decode("moments", [hole(2, 2)], chunks)


@pytest.mark.parametrize("half", [b"\x00\x7c", b"\x00\xfc", b"\x01\x7e"])
def test_infinities_and_nans_are_refused(half: bytes) -> None:
    for place in range(0, len(HALVES), 2):
        with pytest.raises(FormatError, match="not a number"):
            decode("moments", [hole(2, 2)], [SMALL[0], b"\x00\x01" + HALVES[:place] + half + HALVES[place + 2 :]])


def test_integers_are_refused() -> None:
    with pytest.raises(FormatError, match="does not decode int8"):
        decode("moments", [hole(2, 2, dtype="int8")], SMALL)


def test_every_operation_is_rounded_in_its_order(rng: np.random.Generator) -> None:
    rows, cols, n = 5, 3, 3
    mean, components, scores = (
        rng.standard_normal(shape).astype(np.float16) for shape in ((cols,), (n, cols), (rows, n))
    )
    halves = np.concatenate([part.ravel() for part in (mean, components, scores)])
    chunks = [packed(_head(cols, n, 3, 0.1, 0.7)), b"\x00\x01" + halves.tobytes()]
    noise = generator.normal(3, 0, rows * cols, 0.1, 0.7)
    expected = []
    for i in range(rows):
        for j in range(cols):
            total = np.float32(mean[j])
            for r in range(n):
                total = np.float32(total + np.float32(np.float32(scores[i, r]) * np.float32(components[r, j])))
            expected.append(np.float32(total + noise[i * cols + j]))
    assert decode("moments", [hole(rows, cols)], chunks) == np.array(expected, np.float32).tobytes()


def test_rows_wider_than_a_window_decode_in_segments(rng: np.random.Generator) -> None:
    cols = 70_001
    halves = rng.standard_normal(cols + cols + 3).astype(np.float16)
    mean, component, scores = (part.astype(np.float32) for part in np.split(halves, [cols, 2 * cols]))
    chunks = [packed(_head(cols, 1, 9, 0.0, 0.1)), b"\x00\x01" + halves.tobytes()]
    noise = generator.normal(9, 0, 3 * cols, 0.0, 0.1).reshape(3, cols)
    expected = mean + scores[:, None] * component + noise
    assert decode("moments", [hole(3, cols)], chunks) == expected.tobytes()


def test_memory_does_not_grow_with_the_rows() -> None:
    def peak(rows: int) -> int:
        def coded() -> Iterator[memoryview]:
            yield memoryview(packed(_head(16, 16, 0, 0.0, 0.1)))
            left = 2 * (16 + 16 * 16 + 16 * rows)
            while left:
                size = min(left, CHUNK_DECODED_MAX)
                yield memoryview(b"\x00\x01" + bytes(size))
                left -= size

        tracemalloc.start()
        total = sum(block.size for block in moments.decode([hole(rows, 16)], coded(), "stream 0"))
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert total == 16 * rows
        return top

    assert peak(160_000) < peak(80_000) + (64 << 10)
