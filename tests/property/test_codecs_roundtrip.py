"""What is encoded decodes to the same values, and damaged streams are refused as broken seeds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seed_exporter.codecs import lowrank, moments
from seed_exporter.quantize.factorize import factorize
from seed_runtime import generator
from seed_runtime.codecs.encode import grid, raw, split, symbols
from seed_runtime.errors import FormatError, UnsupportedError
from seed_runtime.format.dtypes import BY_NAME
from seed_runtime.format.header import Hole
from tests.support.streams import decode, hole

SHAPES = st.lists(st.tuples(st.integers(1, 24), st.integers(1, 24)), min_size=1, max_size=4)
SEEDS = st.integers(0, 1 << 32)


def _integers(seed: int, shape: tuple[int, int]) -> np.ndarray:
    """Draw integers of any magnitude up to 2**23, with dead rows, dead columns and outliers."""
    rng = np.random.default_rng(seed)
    values = rng.laplace(0, 2.0 ** rng.uniform(-3, 20), shape)
    values[rng.random(shape) < 0.05] *= 1000
    values[rng.random(shape[0]) < 0.2] = 0
    values[:, rng.random(shape[1]) < 0.2] = 0
    return np.clip(np.rint(values), -(1 << 23), 1 << 23).astype(np.int32)


def _codes(seed: int, length: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 40, length).astype(np.uint8)


def _on_trellis(integers: np.ndarray, delay: int) -> np.ndarray:
    grids, values = [0] * integers.size, integers.ravel().tolist()
    for place in range(integers.size):
        for back, taken in ((1, grids), (2, values), (3, grids)):
            if place >= back * delay:
                grids[place] ^= taken[place - back * delay] & 1
    return 2 * integers - np.reshape(grids, integers.shape) * np.sign(integers)


def _factors(codes: np.ndarray) -> np.ndarray:
    return (8 + codes % 8) * 2.0 ** (codes // 8 - 3.0)


@settings(max_examples=40)
@given(SHAPES, SEEDS, st.floats(1e-20, 1e20), st.booleans(), st.booleans(), st.integers(0, 600))
def test_grid_decodes_to_integers_times_steps(
    shapes: list[tuple[int, int]], seed: int, step: float, row_steps: bool, col_steps: bool, delay: int
) -> None:
    step = float(np.float32(step))
    tensors = [_integers(seed + place, shape) for place, shape in enumerate(shapes)]
    matrices, expected = [], []
    for tensor in tensors:
        rows, cols = _codes(seed, len(tensor)) * row_steps, _codes(seed + 1, tensor.shape[1]) * col_steps
        steps = rows if row_steps else None, cols if col_steps else None
        on_trellis = 0 < delay <= tensor.size
        if on_trellis:
            tensor //= 2
        matrices.append(grid.matrix_of(grid.QuantizedMatrix(tensor, step, *steps, delay=delay if on_trellis else None)))
        scale = (np.float64(step) * _factors(rows)).astype(np.float32)[:, None]
        values = _on_trellis(tensor, delay) if on_trellis else tensor
        widened = (values.astype(np.float32) * _factors(cols)).astype(np.float32)
        expected.append((widened * scale).ravel())
    decoded = decode("grid", [hole(*shape) for shape in shapes], symbols.encode(matrices).chunks)
    assert decoded == np.concatenate(expected).tobytes()


@settings(max_examples=60)
@given(SHAPES, SEEDS, st.sampled_from(["float32", "float16", "bfloat16", "int8", "uint8"]), st.integers(0, 3))
def test_split_returns_every_bit(shapes: list[tuple[int, int]], seed: int, dtype: str, kind: int) -> None:
    rng, storage = np.random.default_rng(seed), BY_NAME[dtype].storage
    tensors = []
    for shape in shapes:
        size = shape[0] * shape[1] * storage.itemsize
        data = rng.integers(0, [1, 4, 64, 256][kind], size, np.uint8)
        tensors.append(data.view(storage).reshape(shape))
    chunks = symbols.encode([split.matrix_of(tensor, BY_NAME[dtype]) for tensor in tensors]).chunks
    decoded = decode("split", [hole(*shape, dtype=dtype) for shape in shapes], chunks)
    assert decoded == b"".join(tensor.tobytes() for tensor in tensors)


@settings(max_examples=60)
@given(st.binary(min_size=1, max_size=400), st.sampled_from([1, 2, 4, 8]), st.booleans())
def test_raw_returns_every_byte(data: bytes, width: int, thorough: bool) -> None:
    chunks = raw.encode(data, width, work=None if thorough else raw.Work(0))
    assert decode("raw", [hole(len(data), dtype="uint8")], chunks) == data


@settings(max_examples=40)
@given(SHAPES, SEEDS, st.floats(1e-4, 0.9), st.integers(1, 6))
def test_lowrank_decodes_to_what_was_promised(
    shapes: list[tuple[int, int]], seed: int, distortion: float, rank: int
) -> None:
    rng, coded, holes = np.random.default_rng(seed), [], []
    for rows, cols in shapes:
        weights = (rng.standard_normal((rows, rank)) @ rng.standard_normal((rank, cols))).astype(np.float32)
        mse = distortion * float(np.square(weights).mean())
        factors = factorize(weights, mse)
        if factors is not None:
            assert factors.mse <= mse
            coded.append(factors)
            holes.append(hole(rows, cols))
    if coded:
        expected = b"".join(factors.values().tobytes() for factors in coded)
        assert decode("lowrank", holes, lowrank.CODEC.encode(coded).chunks) == expected


@settings(max_examples=40)
@given(SHAPES, SEEDS, st.floats(0, 1), st.booleans(), st.floats(-10, 10))
def test_moments_decode_to_what_was_promised(
    shapes: list[tuple[int, int]], seed: int, share: float, noise: bool, exponent: float
) -> None:
    rng, tensors = np.random.default_rng(seed), []
    for rows, cols in shapes:
        weights = (rng.standard_normal((rows, cols)) * 10.0**exponent).astype(np.float32)
        weights[rng.random((rows, cols)) < 0.3] = 0
        components = int(share * moments.components_max(rows, cols))
        tensors.append(moments.reduce(weights, components, rng_seed=seed % (1 << 32), noise=noise))
    decoded = decode("moments", [hole(*shape) for shape in shapes], moments.CODEC.encode(tensors).chunks)
    assert decoded == b"".join(tensor.values().tobytes() for tensor in tensors)


@given(st.integers(0, (1 << 64) - 1), st.integers(0, 1 << 62), st.integers(0, 50), st.integers(0, 50))
def test_the_generator_depends_on_the_place_alone(seed: int, start: int, first: int, count: int) -> None:
    whole = generator.raw(seed, start, first + count)
    assert np.array_equal(whole[first:], generator.raw(seed, start + first, count))


def _grid_stream() -> tuple[list[Hole], list[bytes]]:
    tensors = [_integers(5, (9, 11)), _integers(9, (4, 7)) // 2, np.zeros((3, 2), np.int32)]
    matrices = [
        grid.matrix_of(
            grid.QuantizedMatrix(tensor, 0.5, _codes(1, tensor.shape[0]), _codes(2, tensor.shape[1]), delay=delay)
        )
        for tensor, delay in zip(tensors, (None, 2, 5), strict=True)
    ]
    return [hole(*tensor.shape) for tensor in tensors], symbols.encode(matrices).chunks


def _split_stream() -> tuple[list[Hole], list[bytes]]:
    data = np.random.default_rng(2).standard_normal((6, 9)).astype(np.float32)
    return [hole(6, 9)], symbols.encode([split.matrix_of(data, BY_NAME["float32"])]).chunks


def _lowrank_stream() -> tuple[list[Hole], list[bytes]]:
    data = np.outer(np.arange(1, 10), np.arange(1, 8)).astype(np.float32)
    factors = factorize(data, 0.5)
    assert factors is not None
    return [hole(9, 7)], lowrank.CODEC.encode([factors]).chunks


def _moments_stream() -> tuple[list[Hole], list[bytes]]:
    data = np.random.default_rng(3).standard_normal((9, 7)).astype(np.float32)
    return [hole(9, 7)], moments.CODEC.encode([moments.reduce(data, 2)]).chunks


def _raw_stream() -> tuple[list[Hole], list[bytes]]:
    return [hole(50)], raw.encode(bytes(range(100)) * 2, 4)


Maker = Callable[[], tuple[list[Hole], list[bytes]]]
STREAMS: dict[str, Maker] = {
    "grid": _grid_stream, "split": _split_stream, "lowrank": _lowrank_stream, "moments": _moments_stream,
    "raw": _raw_stream,
}  # fmt: skip


@pytest.mark.parametrize("codec", STREAMS)
@settings(max_examples=100)
@given(data=st.data())
def test_a_damaged_stream_is_refused_or_decodes_to_its_size(codec: str, data: Any) -> None:
    # Digests catch damage before it comes here; an attacker's digests are all right.
    holes, chunks = STREAMS[codec]()
    for _ in range(data.draw(st.integers(1, 3))):
        index = data.draw(st.integers(0, len(chunks) - 1))
        chunk = bytearray(chunks[index])
        place = data.draw(st.integers(0, len(chunk) - 1))
        chunk[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
        chunks[index] = bytes(chunk) or b"\x00"
    try:
        decoded = decode(codec, holes, chunks)
    except (FormatError, UnsupportedError):
        return
    assert len(decoded) == sum(one.size for one in holes)


@pytest.mark.parametrize("codec", STREAMS)
def test_a_damaged_head_is_refused_or_decodes_to_its_size(codec: str) -> None:
    # Unpacked, so that damage reaches the fields behind the packing: every byte, every value that says much.
    holes, chunks = STREAMS[codec]()
    if codec == "raw":
        return
    head = _unpacked(chunks[0])
    for place in range(2, len(head)):
        for value in (0, 1, 2, 0x7F, 0x80, 0xFF, head[place] ^ 1, head[place] + 1 & 0xFF):
            lied = head[:place] + bytes([value]) + head[place + 1 :]
            try:
                decoded = decode(codec, holes, [lied, *chunks[1:]])
            except (FormatError, UnsupportedError):
                continue
            assert len(decoded) == sum(one.size for one in holes)


def _unpacked(chunk: bytes) -> bytes:
    from seed_runtime.format import packing, primitives

    cursor = primitives.Cursor(chunk, "head")
    kind, size = cursor.uint(1, "packing"), cursor.varint("size", limit=1 << 20)
    data = packing.unpack(kind, cursor.take(cursor.remaining, "head"), size, "head")
    return b"\x00" + primitives.varint(size) + bytes(data)
