"""What our encoders write, read by the runtime and by the decoder that was written from SPEC.md alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from seed_exporter.codecs import lowrank, moments
from seed_exporter.quantize.factorize import factorize
from seed_runtime import codecs, generator
from seed_runtime.codecs.encode import adaptive, grid, raw, split, symbols
from seed_runtime.format.dtypes import BY_NAME
from seed_runtime.format.header import Hole
from tests.golden import plain
from tests.golden.plain_float import rounded


def both(codec: str, holes: list[Hole], chunks: list[bytes]) -> tuple[bytes, bytes]:
    number = codecs.BY_NAME[codec].number
    views = iter([memoryview(chunk) for chunk in chunks])
    ours = b"".join(np.ascontiguousarray(part).tobytes() for part in codecs.CODECS[number].decode(holes, views, codec))
    theirs = plain.CODECS[number]([plain.Hole(hole.dtype.code, 0, list(hole.dims)) for hole in holes], chunks)
    return ours, theirs


def hole(dtype: str, *dims: int) -> Hole:
    return Hole(BY_NAME[dtype], dims, 0)


@pytest.mark.parametrize("step", [0.5, 0.02, 1e-5])
def test_grid(step: float, rng: np.random.Generator) -> None:
    first = rng.laplace(size=(40, 30)).astype(np.float32) * np.geomspace(0.05, 2, 30, dtype=np.float32)
    first[5:9], first[:, 7] = 0, 0
    second = rng.laplace(size=(7, 50)).astype(np.float32)
    second[3, 3] = 4000 * step
    coded = [grid.matrix_of(grid.round_to_nearest(matrix, step)) for matrix in (first, second)]
    holes = [hole("float32", 40, 5, 6), hole("bfloat16", 350)]
    ours, theirs = both("grid", holes, symbols.encode(coded).chunks)
    assert ours == theirs
    assert np.abs(np.frombuffer(ours[: first.nbytes], np.float32) - first.reshape(-1)).max() <= step * 0.51


def test_grid_with_planes_joined_and_alone(rng: np.random.Generator) -> None:
    shapes = [(3, 5), (80, 60), (1, 7), (64, 64), (2, 9)]
    steps = [1e-5, 1e-3, 0.02, 0.01, 1e-6]
    weights = [rng.laplace(size=shape).astype(np.float32) for shape in shapes]
    coded = [grid.matrix_of(grid.round_to_nearest(weight, step)) for weight, step in zip(weights, steps, strict=True)]
    assert len({matrix.low_bits for matrix in coded}) > 3
    ours, theirs = both("grid", [hole("float32", *shape) for shape in shapes], symbols.encode(coded).chunks)
    assert ours == theirs


@pytest.mark.parametrize("delay", [1, 61, 1000])
def test_grid_on_a_trellis(delay: int, rng: np.random.Generator) -> None:
    integers = [np.rint(rng.laplace(0, scale, (40, 50))).astype(np.int32) for scale in (1, 2, 300)]
    for each in integers:
        each[5:9], each[:, 7], each[20, 3] = 0, 0, 5000
    codes = rng.integers(0, 30, 90).astype(np.uint8)
    coded = [grid.matrix_of(grid.QuantizedMatrix(each, 0.03, codes[:40], codes[40:], delay=delay)) for each in integers]
    coded.append(grid.matrix_of(grid.QuantizedMatrix(integers[1], 0.25)))
    holes = [hole(dtype, 40, 50) for dtype in ("float32", "bfloat16", "float16", "float64")]
    ours, theirs = both("grid", holes, symbols.encode(coded).chunks)
    assert ours == theirs


@pytest.mark.slow
def test_grid_on_a_trellis_over_more_than_one_chunk(rng: np.random.Generator) -> None:
    integers = np.rint(rng.laplace(0, 2, (10_600, 100))).astype(np.int32)
    integers[7:9000:1000] = 0
    stream = symbols.encode([grid.matrix_of(grid.QuantizedMatrix(integers, 0.5, delay=25_600))])
    assert len(stream.chunks) == 3
    ours, theirs = both("grid", [hole("float32", 10_600, 100)], stream.chunks)
    assert ours == theirs


@pytest.mark.slow
def test_grid_over_more_than_one_chunk(rng: np.random.Generator) -> None:
    # The second chunk begins within the first matrix's low planes, and has an escape.
    first, second = (rng.laplace(size=(rows, 100)).astype(np.float32) for rows in (10_490, 200))
    first[10_489, 99], first[0, 0] = 900, 900
    coded = [grid.matrix_of(grid.round_to_nearest(matrix, 0.03)) for matrix in (first, second)]
    assert coded[0].low_bits > 0
    stream = symbols.encode(coded)
    assert len(stream.chunks) == 3
    ours, theirs = both("grid", [hole("float32", 10_490, 100), hole("float16", 200, 100)], stream.chunks)
    assert ours == theirs


@pytest.mark.parametrize("scale", [0.3, 1.0, 6.0])
def test_adaptive(scale: float, rng: np.random.Generator) -> None:
    shapes = [(12, 18), (9, 36), (1, 40), (25, 1), (4, 6)]
    kernels = [None, (9, 3), None, None, (3, 3)]
    coded = []
    for number, (shape, kernel) in enumerate(zip(shapes, kernels, strict=True)):
        rows, cols = (np.exp(rng.normal(0, 0.5, size)) for size in shape)
        integers = np.rint(rng.laplace(0, scale, shape) * rows[:, None] * cols).astype(np.int32)
        integers[::3], integers[:, 5:9] = integers[::3] * (number != 0), 0
        integers[-1, 0] = 15 if number == 1 else -700
        codes = [rng.integers(0, 30, size).astype(np.uint8) if number == 1 else None for size in shape]
        matrix = grid.QuantizedMatrix(integers, 0.03, *codes, delay=4 if number == 3 else None)
        coded.append(replace(grid.matrix_of(matrix), kernel=kernel))
    coded.append(grid.matrix_of(grid.QuantizedMatrix(np.zeros((3, 3), np.int32), 1.0)))
    assert any(matrix.low_bits for matrix in coded)
    stream = adaptive.encode(coded)
    assert stream is not None
    dtypes = ("float32", "bfloat16", "float16", "float64", "float32")
    holes = [hole(dtype, *shape) for dtype, shape in zip(dtypes, shapes, strict=True)] + [hole("float32", 9)]
    ours, theirs = both("adaptive", holes, stream.chunks)
    assert ours == theirs
    assert ours == both("grid", holes, symbols.encode(coded).chunks)[0]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8", "uint8", "int4"])
def test_split(dtype: str, rng: np.random.Generator) -> None:
    storage = BY_NAME[dtype].storage
    data = rng.normal(size=(30, 20)).astype(np.float32)
    stored = data.astype(storage) if storage.kind == "f" else (data.view(np.uint32) >> 16).astype(storage)
    count = 1200 if dtype == "int4" else 600
    chunks = symbols.encode([split.matrix_of(stored, BY_NAME[dtype])]).chunks
    ours, theirs = both("split", [hole(dtype, count)], chunks)
    assert ours == theirs == stored.tobytes()


def test_raw(rng: np.random.Generator) -> None:
    data = np.cumsum(rng.integers(0, 3, 500)).astype(np.int64)
    ours, theirs = both("raw", [hole("int64", 300), hole("int64", 200)], raw.encode(data.tobytes(), 8))
    assert ours == theirs == data.tobytes()


def test_lowrank(rng: np.random.Generator) -> None:
    weights = (rng.normal(size=(48, 3)) @ rng.normal(size=(3, 36))).astype(np.float32)
    factors = factorize(weights, 1e-3)
    assert factors is not None
    ours, theirs = both("lowrank", [hole("float32", 48, 36)], lowrank.CODEC.encode([factors]).chunks)
    assert ours == theirs
    assert np.square(np.frombuffer(ours, np.float32) - weights.reshape(-1)).mean() < 0.1


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_moments(dtype: str, rng: np.random.Generator) -> None:
    weights = rng.normal(size=(30, 25)).astype(np.float32)
    ours, theirs = both(
        "moments", [hole(dtype, 30, 25)], moments.CODEC.encode([moments.reduce(weights, 4, rng_seed=9)]).chunks
    )
    assert ours == theirs


def test_the_generator() -> None:
    seed = 0x1234_5678_9ABC_DEF0
    assert generator.raw(seed, 5, 3).tolist() == [plain.splitmix(seed, index) for index in (5, 6, 7)]
    assert generator.normal(7, 2, 4, 0.25, 1.5).tolist() == [plain.normal(7, index, 0.25, 1.5) for index in range(2, 6)]
    uniform = [rounded(rounded((plain.splitmix(7, index) >> 40) * 2.0**-24 * 2.0) - 1.0) for index in range(4)]
    assert generator.uniform(7, 0, 4, -1.0, 1.0).tolist() == uniform
    integers = [10 + ((plain.splitmix(7, index) >> 32) * 90 >> 32) for index in range(4)]
    assert generator.integers(7, 0, 4, 10, 100).tolist() == integers
