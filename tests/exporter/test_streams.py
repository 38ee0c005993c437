"""Weights and plans in, streams out, and the same weights back from the device's decoder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from seed_exporter.build import streams
from seed_exporter.build.streams import Plans
from seed_exporter.codecs import adaptive, raw
from seed_exporter.codecs.grid import CODEC as GRID
from seed_exporter.codecs.grid import GridPlan
from seed_exporter.codecs.raw import RawPlan
from seed_exporter.codecs.split import SplitPlan
from seed_exporter.graph.model import Graph
from seed_exporter.loaders import load
from seed_exporter.quantize import allocate, lowrank
from seed_exporter.quantize.methods import published
from seed_runtime import codecs as decoders
from seed_runtime.codecs.encode.grid import QuantizedMatrix
from seed_runtime.format.dtypes import BY_NAME
from seed_runtime.format.header import Hole
from tests.exporter.support.exporting import codecs_of, decoded, graph_of, holding, tensor, uniform, units_of

# Everything that a model can hold: random bits are NaN payloads, denormals and infinities as well.
TYPES = sorted(set(BY_NAME) - {"bool"})


def bits(dtype: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    kind = BY_NAME[dtype]
    size = kind.size(int(np.prod(shape)))
    data = rng.integers(0, 256, size, np.uint8)
    if kind.bits < 8 and int(np.prod(shape)) % 2:
        data[-1] &= 0x0F
    return data.view(kind.storage)


def check_exact(graph: Graph, plans: Plans, folder: Path) -> None:
    back = decoded(graph, plans, folder)
    assert back.keys() == graph.weights.keys()
    for name, weight in graph.weights.items():
        assert back[name].tobytes() == weight.data.tobytes(), name


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(48, 80), (777,), (3, 5, 7, 11)])
def test_lossless_keeps_every_bit_of_every_type(
    dtype: str, shape: tuple[int, ...], rng: np.random.Generator, tmp_path: Path
) -> None:
    graph = load(holding(tensor("w", BY_NAME[dtype].code, shape, bits(dtype, shape, rng))))
    check_exact(graph, allocate.lossless(graph), tmp_path)


def test_lossless_keeps_booleans_and_all_types_side_by_side(rng: np.random.Generator, tmp_path: Path) -> None:
    tensors = [tensor(dtype, BY_NAME[dtype].code, (31, 33), bits(dtype, (31, 33), rng)) for dtype in TYPES]
    tensors.append(tensor("bool", TensorProto.BOOL, (500,), rng.integers(0, 2, 500, np.uint8)))
    graph = load(holding(*tensors))
    check_exact(graph, allocate.lossless(graph), tmp_path)


def test_lossless_keeps_named_special_values(tmp_path: Path) -> None:
    info = np.finfo(np.float32)
    special = [np.inf, -np.inf, 0.0, -0.0, info.max, info.min, info.tiny, info.smallest_subnormal, 1.0]
    values = np.array(special * 20, np.float32)
    payloads = np.array([0x7FC00001, 0xFFC12345, 0x7F800001, 0xFF800001] * 20, np.uint32).view(np.float32)
    graph = graph_of(values=values, payloads=payloads)
    check_exact(graph, allocate.lossless(graph), tmp_path)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8", "uint8", "float64", "int64"])
@pytest.mark.parametrize("fill", [0, 1])
def test_zero_and_constant_tensors_take_next_to_nothing(dtype: str, fill: int, tmp_path: Path) -> None:
    data = np.full((256, 256), fill, BY_NAME[dtype].storage)
    graph = load(holding(tensor("w", BY_NAME[dtype].code, (256, 256), data)))
    plans = uniform(graph, 0.1, 10)
    if not plans["w"].adjustable:  # a constant matrix is quantized as any other
        check_exact(graph, plans, tmp_path)
    check_exact(graph, allocate.lossless(graph), tmp_path)
    for chosen in (plans, allocate.lossless(graph)):
        assert sum(stream.size for stream in streams.encode(graph, chosen, jobs=1)) < 1000


def test_denormal_and_huge_matrices_survive_the_default_plans(rng: np.random.Generator, tmp_path: Path) -> None:
    noise = rng.standard_normal((40, 40))
    arrays = {
        "denormal": (noise * 1e-41).astype(np.float32),
        "huge": (noise * 1e37).astype(np.float32),
        "double": noise * 1e300,
        "plain": noise.astype(np.float32),
    }
    graph = graph_of(**arrays)
    back = decoded(graph, uniform(graph, 0.05, 23), tmp_path)
    for name in ("denormal", "huge", "double"):
        assert back[name].tobytes() == arrays[name].tobytes()
    assert np.abs(back["plain"] - arrays["plain"]).max() <= 0.03


@pytest.mark.parametrize("count", [1, 15, 16, 17, 63, 64, 65, 1023])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_tiny_tensors_come_back_at_any_length(
    count: int, dtype: type, rng: np.random.Generator, tmp_path: Path
) -> None:
    graph = graph_of(w=rng.standard_normal(count).astype(dtype), other=np.ones(40, np.float32))
    check_exact(graph, allocate.lossless(graph), tmp_path)


def test_a_matrix_that_rounds_to_nothing_decodes_to_zeros(rng: np.random.Generator, tmp_path: Path) -> None:
    graph = graph_of(w=rng.standard_normal((64, 64)).astype(np.float32))
    plans = {"w": GridPlan(step=1e3)}
    (stream,) = streams.encode(graph, plans, jobs=1)
    assert stream.size < 150
    assert stream.entropy_bits == 0
    assert not decoded(graph, plans, tmp_path)["w"].any()


def test_dead_matrices_among_live_ones_keep_their_place(rng: np.random.Generator, tmp_path: Path) -> None:
    arrays = {name: rng.standard_normal((40, 40)).astype(np.float32) for name in "abcd"}
    arrays["d"][:, 7] = arrays["d"][9] = 0
    graph = graph_of(**arrays)
    plans = {name: GridPlan(step=step) for name, step in zip("abcd", (1e3, 0.125, 1e3, 0.125), strict=True)}
    back = decoded(graph, plans, tmp_path)
    for name, plan in plans.items():
        assert np.array_equal(back[name], np.rint(arrays[name] / plan.step) * np.float32(plan.step)), name


@pytest.mark.parametrize("length", [3_000_000, 3_000_017])
def test_vectors_of_millions_break_no_limit(length: int, rng: np.random.Generator, tmp_path: Path) -> None:
    values = rng.standard_normal(length // 100 + 1, np.float32).repeat(100)[:length]
    graph = load(holding(tensor("w", TensorProto.FLOAT, (length,), values)))
    for plans in (allocate.lossless(graph), uniform(graph, 0.1, 7)):
        # 3,000,017 is prime: no rows and columns.
        assert codecs_of(plans) == {"w": "split" if length == 3_000_000 else "raw"}
    check_exact(graph, allocate.lossless(graph), tmp_path)


def test_weights_of_one_codec_and_type_share_a_stream(rng: np.random.Generator) -> None:
    noise = rng.standard_normal((40, 40))
    graph = graph_of(
        a=noise.astype(np.float32), b=noise.astype(np.float16), c=(2 * noise).astype(np.float32), d=np.arange(90)
    )
    coded = streams.encode(graph, allocate.lossless(graph), jobs=1)
    assert [(stream.codec.name, sorted(stream.names)) for stream in coded] == [
        ("raw", ["d"]), ("split", ["b"]), ("split", ["a", "c"]),
    ]  # fmt: skip
    # Steps make symbols alike whatever the type was.
    plans = {name: GridPlan(step=0.1) for name in "abc"} | {"d": RawPlan()}
    assert [stream.codec.name for stream in streams.encode(graph, plans, jobs=1)] == ["raw", "grid"]
    assert sorted(streams.order_of(coded)) == ["a", "b", "c", "d"]


def _sparse(rng: np.random.Generator, shape: tuple[int, ...], scale: float) -> Graph:
    """Return a graph of weights whose rows and columns have scales of their own, and die at a step of 1."""
    rows, cols = (np.exp(rng.normal(0, 0.6, size)) for size in shape)
    return graph_of(w=(rng.laplace(0, scale, shape) * rows[:, None] * cols).astype(np.float32))


def test_a_sparse_stream_of_some_kilobytes_is_coded_without_tables(
    rng: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adaptive, "BYTES_LEAST", 1000)
    graph, plans = _sparse(rng, (150, 200), 0.4), {"w": GridPlan(1.0)}
    encoder = streams.StreamEncoder(graph, jobs=1)
    (sized,), (coded,) = encoder.estimate(plans), streams.encode(graph, plans, jobs=1)
    assert sized.codec.name == coded.codec.name == "adaptive"
    assert encoder.encode(plans)[0].chunks == coded.chunks
    assert sized.sizes.size == coded.size
    assert sum(sized.sizes.tensors) == pytest.approx(coded.size)
    prepared = [GRID.prepare(graph.weights["w"], plans["w"], 0)]
    assert coded.size < 0.98 * GRID.estimate(prepared).size
    assert np.array_equal(decoded(graph, plans, tmp_path)["w"], np.rint(graph.weights["w"].data))


def test_only_trained_plans_are_coded_without_tables_where_a_stream_is_smaller_still(rng: np.random.Generator) -> None:
    graph, plans = _sparse(rng, (150, 200), 0.4), {"w": GridPlan(1.0)}
    found = [streams.StreamEncoder(graph, 1, trained=trained).encode(plans)[0] for trained in (False, True)]
    assert [stream.codec.name for stream in found] == ["grid", "adaptive"]
    assert found[1].size < found[0].size < adaptive.BYTES_LEAST


def test_a_long_vector_is_coded_without_tables_beside_matrices(rng: np.random.Generator) -> None:
    matrix = rng.laplace(0, 0.4, (150, 200)).astype(np.float32) * np.exp(rng.normal(0, 0.6, (150, 1)))
    graph = graph_of(w=matrix.astype(np.float32), v=np.rint(rng.normal(0, 6, 9000)).astype(np.float32))
    plans = dict.fromkeys(graph.weights, GridPlan(1.0))
    (stream,) = streams.StreamEncoder(graph, 1, trained=True).encode(plans)
    assert stream.codec.name == "adaptive"
    held = [graph.weights[name] for name in stream.names]
    holes, chunks = [Hole(each.dtype, each.shape, 0) for each in held], [memoryview(each) for each in stream.chunks]
    windows = decoders.BY_NAME["adaptive"].decode(holes, iter(chunks), "stream")
    values = np.concatenate([window.reshape(-1).copy() for window in windows])
    assert np.array_equal(values, np.concatenate([np.rint(each.data).reshape(-1) for each in held]))


@pytest.mark.parametrize(("shape", "scale"), [((150, 200), 20.0), ((3, 5000), 2.0)], ids=["fine", "long"])
def test_other_streams_keep_their_tables(
    shape: tuple[int, int], scale: float, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adaptive, "BYTES_LEAST", 1000)
    graph, plans = _sparse(rng, shape, scale), {"w": GridPlan(1.0)}
    assert [stream.codec.name for stream in streams.encode(graph, plans, jobs=1)] == ["grid"]


@pytest.mark.parametrize(
    ("limit", "value"), [("BYTES_LEAST", 20_000), ("BYTES_MAX", 2000), ("CHUNK_DECODED_MAX", 2000)]
)
def test_streams_of_other_sizes_keep_their_tables(
    limit: str, value: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, plans = _sparse(rng, (150, 200), 0.4), {"w": GridPlan(1.0)}
    monkeypatch.setattr(adaptive, "BYTES_LEAST", 1000)
    monkeypatch.setattr(adaptive, limit, value)
    assert [stream.codec.name for stream in streams.encode(graph, plans, jobs=1)] == ["grid"]


def test_a_codec_that_saves_less_than_a_hundredth_is_not_taken(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, plans = _sparse(rng, (150, 200), 0.4), {"w": GridPlan(1.0)}
    monkeypatch.setattr(adaptive, "BYTES_LEAST", 1000)
    monkeypatch.setattr(adaptive, "_GAIN_LEAST", 0.5)
    assert [stream.codec.name for stream in streams.encode(graph, plans, jobs=1)] == ["grid"]


def test_a_stream_that_would_outgrow_its_limit_becomes_two(
    rng: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = {f"w{index}": rng.standard_normal((40, 40)).astype(np.float32) for index in range(5)}
    graph = graph_of(**arrays)
    monkeypatch.setattr(streams, "STREAM_SYMBOLS_MAX", 3300)
    coded = streams.encode(graph, allocate.lossless(graph), jobs=1)
    assert [len(stream.names) for stream in coded] == [2, 2, 1]
    check_exact(graph, allocate.lossless(graph), tmp_path)


def test_progress_counts_every_element_once(rng: np.random.Generator) -> None:
    graph = graph_of(w=rng.standard_normal((64, 64)).astype(np.float32), i=np.arange(100))
    seen: list[int] = []
    streams.encode(graph, uniform(graph, 0.1, 10), jobs=1, progress=seen.append)
    assert sum(seen) == graph.parameters


@pytest.mark.parametrize("method", ["lossless", "uniform", "lowrank", "published"])
def test_more_jobs_give_the_same_bytes(method: str, rng: np.random.Generator) -> None:
    arrays = {f"w{index}": rng.standard_normal((96, 64)).astype(np.float32) for index in range(6)}
    arrays["low"] = (rng.standard_normal((200, 4)) @ rng.standard_normal((4, 200))).astype(np.float32)
    graph = graph_of(**arrays)

    def chunks(jobs: int) -> list[list[bytes]]:
        plans = uniform(graph, 0.05, 10)
        if method == "lossless":
            plans = allocate.lossless(graph)
        elif method == "lowrank":
            plans = lowrank.replace_where_cheaper(graph, plans, list(arrays), jobs)
        elif method == "published":
            plans = published.plans_of(graph, units_of(graph), 30_000, 10)
        return [stream.chunks for stream in streams.encode(graph, plans, jobs=jobs)]

    assert chunks(1) == chunks(2)


@pytest.mark.usefixtures("threads_for_small_models")
def test_an_encoder_gives_the_same_streams_whatever_it_coded_before(rng: np.random.Generator) -> None:
    arrays = {f"w{index}": rng.standard_normal((64, 48)).astype(np.float32) for index in range(3)}
    arrays["b"] = rng.standard_normal(300).astype(np.float32)
    graph = graph_of(low=(rng.standard_normal((80, 3)) @ rng.standard_normal((3, 80))).astype(np.float32), **arrays)
    coarse, fine = uniform(graph, 0.5, 7), uniform(graph, 0.05, 10)
    factored = lowrank.replace_where_cheaper(graph, fine, ["low"], 1)
    assert codecs_of(factored)["low"] == "lowrank"
    mixed = {**fine, "w1": coarse["w1"]}
    encoder = streams.StreamEncoder(graph, jobs=2)
    for plans in (coarse, fine, fine, mixed, factored, coarse, allocate.lossless(graph), factored, mixed):
        assert encoder.estimate(plans) == streams.StreamEncoder(graph, jobs=1, keep=False).estimate(plans)
        assert encoder.encode(plans) == streams.encode(graph, plans, jobs=1)
    seen: list[int] = []
    for _ in range(2):
        encoder.encode(fine, progress=seen.append)
        assert sum(seen) == graph.parameters
        seen.clear()
    assert [stream.names for stream in encoder.estimate(fine, names=["w2", "b"])] == [["b"], ["w2"]]


def test_what_had_to_be_coded_to_learn_its_size_is_not_coded_again(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = graph_of(i=rng.integers(0, 9, 4000), w=rng.standard_normal((64, 48)).astype(np.float32))
    plans = uniform(graph, 0.1, 10)
    expected = streams.encode(graph, plans, jobs=1)
    encoder = streams.StreamEncoder(graph, jobs=1)
    encoder.estimate(plans)
    monkeypatch.setattr(type(raw.CODEC), "encode", None)
    assert encoder.encode(plans) == expected


def test_other_plans_of_a_weight_are_sized_under_the_tables_of_the_others(rng: np.random.Generator) -> None:
    # Rows of all scales, so that there is a table for each.
    scales = np.exp(rng.normal(0, 0.7, (200, 1)))
    arrays = {f"w{index}": (scales * rng.standard_normal((200, 100))).astype(np.float32) for index in range(4)}
    graph = graph_of(b=rng.standard_normal(300).astype(np.float32), i=np.arange(500), **arrays)
    plans = uniform(graph, 0.3, 10)
    encoder = streams.StreamEncoder(graph, jobs=2)
    step = plans["w1"].step
    wanted = [GridPlan(step * factor) for factor in (0.7, 1.0, 1.4)]
    found = encoder.estimate_candidates(plans, {"w1": wanted, "b": [plans["b"]], "i": [RawPlan()]})
    assert [len(found[name]) for name in ("w1", "b", "i")] == [3, 1, 1]
    # 20,000 weights: half a bit for a factor of 1.4.
    fine, same, coarse = found["w1"]
    assert (fine - same, same - coarse) == pytest.approx((1250, 1250), rel=0.1)
    # What it really takes more, with tables made anew.
    before = encoder.estimate(plans)[-1].sizes.size
    for plan, size in zip(wanted, found["w1"], strict=True):
        after = encoder.estimate({**plans, "w1": plan})[-1].sizes.size
        assert after - before == pytest.approx(size - same, abs=0.02 * same)
    sizes = encoder.estimate_bytes(plans)
    assert same == pytest.approx(sizes["w1"], rel=0.05)
    assert found["i"][0] == pytest.approx(sizes["i"], rel=0.05)
    # A codec without a stream so far.
    (alone,) = encoder.estimate_candidates(plans, {"w2": [SplitPlan()]})["w2"]
    assert alone > 3 * same


def test_integers_that_were_found_elsewhere_are_coded_as_they_are(rng: np.random.Generator, tmp_path: Path) -> None:
    graph = graph_of(w=rng.standard_normal((60, 50)).astype(np.float32))
    integers = rng.integers(-9, 9, (60, 50)).astype(np.int32)
    rows, cols = (rng.integers(0, 20, side).astype(np.uint8) for side in (60, 50))
    matrix = QuantizedMatrix(integers, 0.25, row_steps=rows, col_steps=cols)
    plan = GridPlan.of(matrix)
    assert plan == GridPlan.of(matrix)
    assert plan != GridPlan.of(QuantizedMatrix(integers, 0.25))
    assert plan.describe() == "step 0.25, scaled by row and column"
    assert GridPlan.of(replace(matrix, col_steps=None)).describe() == "step 0.25, scaled by row"
    assert GridPlan.of(replace(matrix, row_steps=None)).describe() == "step 0.25, scaled by column"
    back = decoded(graph, {"w": plan}, tmp_path)["w"]
    assert back.tobytes() == matrix.values().tobytes() == streams.restored(graph.weights["w"], plan).tobytes()
    # A plan that is compared with others and kept is found again, whatever it holds.
    encoder = streams.StreamEncoder(graph)
    assert encoder.estimate({"w": plan}) == encoder.estimate({"w": plan})
    assert encoder.encode({"w": plan}) == streams.encode(graph, {"w": plan})


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
def test_weights_are_known_as_a_device_will_have_them_before_they_are_coded(
    dtype: str, rng: np.random.Generator, tmp_path: Path
) -> None:
    kind = BY_NAME[dtype]
    values = rng.standard_normal((60, 50)).astype(np.float32)
    values[7], values[:, 3], values[1, 1] = 0, 0, 3e4  # dead rows and columns, and an escape
    stored = (values.view(np.uint32) >> 16).astype(np.uint16) if dtype == "bfloat16" else values.astype(kind.storage)
    tensors = [
        tensor("w", kind.code, (60, 50), stored),
        tensor("v", kind.code, (50,), stored[0]),
        tensor("i", TensorProto.INT64, (60,), np.arange(60)),
    ]
    graph = load(holding(*tensors))
    for step in (0.3, 1e-6):
        plans = uniform(graph, 1.0, 5) | {"w": GridPlan(step=float(np.float32(step)))}
        back = decoded(graph, plans, tmp_path)
        for name, weight in graph.weights.items():
            assert streams.restored(weight, plans[name]).tobytes() == back[name].tobytes(), name
