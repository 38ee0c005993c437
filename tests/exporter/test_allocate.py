"""Which codec each weight gets: what is quantized, what is kept, and what it is kept at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from seed_exporter.calibrate.weight_scales import root_mean_square
from seed_exporter.codecs.base import Plan
from seed_exporter.codecs.grid import GridPlan
from seed_exporter.codecs.moments import MomentsPlan
from seed_exporter.codecs.raw import RawPlan
from seed_exporter.codecs.split import SplitPlan
from seed_exporter.graph.model import Graph
from seed_exporter.loaders import load
from seed_exporter.quantize import allocate, lowrank
from seed_exporter.quantize.methods import published
from seed_exporter.quantize.steps import UNIT_TO_SCALE_MAX
from tests.exporter.support.exporting import codecs_of, decoded, graph_of, holding, tensor, uniform, units_of


def matrix(rng: np.random.Generator, rows: int = 48, cols: int = 64, scale: float = 1.0) -> np.ndarray:
    return (scale * rng.standard_normal((rows, cols))).astype(np.float32)


def test_matrices_are_quantized_vectors_rounded_and_integers_kept(rng: np.random.Generator) -> None:
    graph = graph_of(
        matrix=matrix(rng),
        bias=rng.standard_normal(64).astype(np.float32),
        small=rng.standard_normal((8, 8)).astype(np.float32),
        table=rng.integers(0, 9, (40, 40)),
    )
    plans = uniform(graph, 0.1, 10)
    step = float(np.float32(0.1 * units_of(graph)["matrix"]))
    assert plans == {
        "matrix": GridPlan(step),
        "bias": SplitPlan(10),
        "small": SplitPlan(10),
        "table": RawPlan(),
    }


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan, np.float32(3e38)])
def test_a_matrix_that_no_step_suits_is_kept_exactly(bad: float, rng: np.random.Generator, tmp_path: Path) -> None:
    odd = matrix(rng)
    odd[3, 5] = bad
    graph = graph_of(odd=odd, other=matrix(rng))
    plans = uniform(graph, 0.1, 7)
    assert plans["odd"] == SplitPlan()
    assert isinstance(plans["other"], GridPlan)
    assert decoded(graph, plans, tmp_path)["odd"].tobytes() == odd.tobytes()


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e25])
def test_zero_tiny_and_huge_matrices_come_back_as_they_were(
    scale: float, rng: np.random.Generator, tmp_path: Path
) -> None:
    odd = matrix(rng, scale=scale)
    graph = graph_of(odd=odd, other=matrix(rng))
    assert decoded(graph, uniform(graph, 0.1, 7), tmp_path)["odd"].tobytes() == odd.tobytes()


@pytest.mark.parametrize("scale", [1e-18, 1e-4, 1e4, 1e15])
def test_a_matrix_of_another_scale_than_the_rest_is_neither_wiped_out_nor_cut(
    scale: float, rng: np.random.Generator, tmp_path: Path
) -> None:
    # At the default about 7 bits are spent on a weight: a step of .06 or so of the scale.
    arrays = {f"w{index}": matrix(rng) for index in range(4)} | {"odd": matrix(rng, scale=scale)}
    graph = graph_of(**arrays)
    steps = units_of(graph)
    assert 1 / UNIT_TO_SCALE_MAX <= steps["odd"] / root_mean_square(graph.weights["odd"]) <= UNIT_TO_SCALE_MAX * 1.0001
    back = decoded(graph, uniform(graph, 0.06, 7), tmp_path)["odd"]
    assert np.abs(back - arrays["odd"]).max() <= 0.3 * scale


def test_steps_lie_between_a_matrix_own_scale_and_that_of_all(rng: np.random.Generator) -> None:
    graph = graph_of(small=matrix(rng, scale=0.1), large=matrix(rng, scale=10))
    steps = units_of(graph)
    assert steps["small"] == pytest.approx(0.1**0.5, rel=0.1)
    assert steps["large"] == pytest.approx(10**0.5, rel=0.1)


def test_the_scales_of_a_quantized_model_stay_exact(rng: np.random.Generator, tmp_path: Path) -> None:
    scales = rng.random((1, 2048)).astype(np.float32)
    offsets = rng.standard_normal((64, 32)).astype(np.float32)
    graph = graph_of(codes=rng.integers(-128, 127, (64, 2048)).astype(np.int8), scales=scales, offsets=offsets)
    assert units_of(graph) == {}
    back = decoded(graph, uniform(graph, 1.0, allocate.VECTOR_BITS[-1]), tmp_path)
    assert back["scales"].tobytes() == scales.tobytes()
    assert back["offsets"].tobytes() == offsets.tobytes()


def test_lossless_splits_what_has_exponents_and_leaves_the_rest_raw(rng: np.random.Generator) -> None:
    graph = graph_of(
        single=matrix(rng),
        half=matrix(rng).astype(np.float16),
        double=matrix(rng).astype(np.float64),
        codes=np.arange(400, dtype=np.uint8),
        indices=np.arange(400),
        vector=np.ones(20, np.float32),
    )
    assert codecs_of(allocate.lossless(graph)) == {
        "single": "split", "half": "split", "double": "raw", "codes": "split", "indices": "raw", "vector": "split",
    }  # fmt: skip
    assert all(plan.describe() == "exact" for plan in allocate.lossless(graph).values())


def low_rank(rng: np.random.Generator, rank: int, side: int = 256) -> np.ndarray:
    return (rng.standard_normal((side, rank)) @ rng.standard_normal((rank, side))).astype(np.float32)


def chosen(graph: Graph, coarseness: float = 0.05) -> dict[str, Plan]:
    plans = uniform(graph, coarseness, 10)
    return lowrank.replace_where_cheaper(graph, plans, lowrank.candidates(graph, plans), jobs=1)


def test_factors_are_chosen_for_an_exactly_low_rank_matrix_and_not_for_noise(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    arrays = {"low": low_rank(rng, 8), "noise": rng.standard_normal((256, 256)).astype(np.float32)}
    graph = graph_of(**arrays)
    plans = chosen(graph)
    assert codecs_of(plans) == {"low": "lowrank", "noise": "grid"}
    # At the same distortion as the grid, which they were compared with.
    grid = decoded(graph, uniform(graph, 0.05, 10), tmp_path)
    both = decoded(graph, plans, tmp_path)
    errors = [float(np.square(back["low"] - arrays["low"]).mean()) for back in (grid, both)]
    assert errors[1] <= errors[0] * 1.001


def test_factors_are_not_chosen_where_a_low_rank_hides_below_much_noise(rng: np.random.Generator) -> None:
    graph = graph_of(w=low_rank(rng, 8) + 8 * rng.standard_normal((256, 256)).astype(np.float32))
    assert codecs_of(chosen(graph)) == {"w": "grid"}


def test_integers_that_calibration_found_are_not_replaced_by_factors(rng: np.random.Generator) -> None:
    graph = graph_of(a=low_rank(rng, 4), b=low_rank(rng, 4))
    plans = uniform(graph, 0.05, 10)
    plans["a"] = GridPlan.of(plans["a"].quantize(graph.weights["a"]))
    assert lowrank.candidates(graph, plans) == ["b"]


def test_factors_are_tried_only_where_asked(rng: np.random.Generator) -> None:
    graph = graph_of(a=low_rank(rng, 4), b=low_rank(rng, 4))
    plans = lowrank.replace_where_cheaper(graph, uniform(graph, 0.05, 10), ["b"], jobs=2)
    assert codecs_of(plans) == {"a": "grid", "b": "lowrank"}


def test_the_published_method_gets_as_many_components_as_its_share_holds(rng: np.random.Generator) -> None:
    graph = graph_of(a=matrix(rng, 128, 64), b=matrix(rng, 64, 64))
    units = units_of(graph)
    plans = published.plans_of(graph, units, 6000, 10)
    assert plans["a"] == MomentsPlan((4000 // 2 - 64) // (128 + 64))
    assert plans["b"] == MomentsPlan((2000 // 2 - 64) // (64 + 64))
    assert published.plans_of(graph, units, 10, 10)["a"] == MomentsPlan(0)


def test_a_prime_length_of_millions_is_left_raw() -> None:
    graph = load(holding(tensor("w", TensorProto.UINT8, (1, 3_000_017), np.zeros(3_000_017, np.uint8))))
    assert allocate.lossless(graph) == {"w": RawPlan()}
