"""What `--method` chooses: sizes that were asked for are kept and used, and the published method for comparison."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import click
import numpy as np
import onnx
import pytest

from seed_exporter import loaders
from seed_exporter.build import draft
from seed_exporter.build.streams import Plans, StreamEncoder, encode
from seed_exporter.calibrate import SPECTRA, WEIGHT_SCALES, collect
from seed_exporter.cli.export import command
from seed_exporter.codecs.grid import GridPlan
from seed_exporter.codecs.lowrank import LowRankPlan
from seed_exporter.evaluate import compare, run
from seed_exporter.evaluate.model_files import write_model_files
from seed_exporter.graph.model import Graph, Weight
from seed_exporter.quantize import allocate
from seed_exporter.quantize.methods import METHODS, Choice, Evaluator
from seed_exporter.results import Options
from seed_exporter.skeletons import builder_for
from seed_runtime.codecs.encode import raw
from tests.exporter.support.exporting import NOBODY, codecs_of, dense, graph_of, layers

FRONT = 400


def evaluator_of(model: onnx.ModelProto | Graph, folder: Path, goal: int | None = None) -> Evaluator:
    graph = model if isinstance(model, Graph) else loaders.load(model)
    (folder / "original").mkdir()
    write_model_files(graph, folder / "original")
    (spec,) = graph.model.graph.input
    dims = [dim.dim_value or 16 for dim in spec.type.tensor_type.shape.dim]
    code = onnx.helper.tensor_dtype_to_np_dtype(spec.type.tensor_type.elem_type)
    feeds = [{spec.name: np.random.default_rng(5).standard_normal(dims).astype(code)}]
    expected = run.run_all(folder / "original", feeds)
    statistics = collect(graph, {WEIGHT_SCALES, SPECTRA})
    encoder, skeletons = StreamEncoder(graph), builder_for(graph)
    return Evaluator(encoder, skeletons, NOBODY, statistics, FRONT, goal, feeds, expected, folder)


def error_of(evaluator: Evaluator, plans: Plans) -> float:
    """The worst output's relative error, of the model as a device would assemble it."""
    streams = encode(evaluator.graph, plans)
    draft.build(evaluator.graph, streams, NOBODY).assemble(evaluator.folder)
    outputs = run.run_all(evaluator.folder, evaluator.feeds)
    return compare.worst_relative(compare.compare(evaluator.expected, outputs))


def choose(method: str, evaluator: Evaluator) -> Choice:
    return METHODS[method].choose(evaluator, lambda: None)


@pytest.fixture
def model(rng: np.random.Generator) -> onnx.ModelProto:
    return layers(rng, 96, 160, 160, 40)


@pytest.mark.parametrize("share", [0.03, pytest.param(0.1, marks=pytest.mark.slow), 0.2, 0.4])
def test_grid_keeps_a_goal_and_uses_it(share: float, model: onnx.ModelProto, tmp_path: Path) -> None:
    evaluator = evaluator_of(model, tmp_path)
    goal = int(share * evaluator.source_bytes)
    chosen = choose("grid", replace(evaluator, goal=goal))
    assert chosen.met
    assert 0.97 * goal <= evaluator.size_of(chosen.plans) <= goal


def test_a_goal_below_the_graph_itself_is_not_met(model: onnx.ModelProto, tmp_path: Path) -> None:
    assert not choose("grid", evaluator_of(model, tmp_path, goal=500)).met


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_the_default_is_four_times_smaller_than_fp32_and_spends_what_that_leaves(
    dtype: type, rng: np.random.Generator, tmp_path: Path
) -> None:
    evaluator = evaluator_of(layers(rng, 96, 160, 160, 40, dtype=dtype), tmp_path)
    size = evaluator.size_of(choose("grid", evaluator).plans)
    assert 4.0 <= 4 * evaluator.graph.parameters / size <= 4.8


def test_the_default_stays_four_times_smaller_where_vectors_want_every_bit(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    # Large biases that the next layer takes away again: their rounding is all that is left of the outputs.
    sizes = (64, 512, 64)
    matrices = [rng.standard_normal((a, b)) / 8 for a, b in pairwise(sizes)]
    bias = 1e4 * (1 + rng.random(512))
    model = dense(matrices, [bias, -np.maximum(bias, 0) @ matrices[1]])
    evaluator = evaluator_of(model, tmp_path)
    chosen = choose("grid", evaluator)
    assert evaluator.source_bytes / evaluator.size_of(chosen.plans) >= 4


def test_vectors_get_the_bits_that_the_outputs_need(rng: np.random.Generator, tmp_path: Path) -> None:
    evaluator = evaluator_of(layers(rng, 96, 160, 40), tmp_path, goal=12_000)
    coarse = choose("grid", evaluator).plans["b0"].mantissa_bits
    fine = choose("grid", replace(evaluator, goal=60_000)).plans["b0"].mantissa_bits
    assert coarse is not None
    assert coarse < (23 if fine is None else fine)


def test_what_factors_save_buys_finer_steps(rng: np.random.Generator, tmp_path: Path) -> None:
    low = rng.standard_normal((128, 4)) @ rng.standard_normal((4, 128)) / 22
    model = dense([low, rng.standard_normal((128, 64)) / 11], [np.zeros(128) + 0.1, np.zeros(64)])
    goal = 10_000
    evaluator = evaluator_of(model, tmp_path, goal)
    chosen = choose("grid", evaluator)
    assert codecs_of(chosen.plans)["w0"] == "lowrank"
    assert chosen.met
    assert 0.97 * goal <= evaluator.size_of(chosen.plans) <= goal


def test_factors_that_cost_more_than_they_save_are_left_out(rng: np.random.Generator, tmp_path: Path) -> None:
    # So small that the tables of one more stream outweigh the gain, or nearly so.
    low = rng.standard_normal((48, 3)) @ rng.standard_normal((3, 48)) / 10
    evaluator = evaluator_of(dense([low, low.T + 0.1], [np.zeros(48), np.zeros(48)]), tmp_path)
    chosen = choose("grid", evaluator)
    plain = {
        name: GridPlan(plan.step) if isinstance(plan, LowRankPlan) else plan for name, plan in chosen.plans.items()
    }
    assert evaluator.size_of(chosen.plans) <= evaluator.size_of(plain)


def test_a_model_of_integers_is_kept_exactly_and_may_miss_a_goal(rng: np.random.Generator, tmp_path: Path) -> None:
    graph = graph_of(codes=rng.integers(-128, 127, (64, 256)).astype(np.int8), scales=rng.random(256, np.float32))
    evaluator = evaluator_of(graph, tmp_path)
    chosen = choose("grid", evaluator)
    assert chosen.met
    assert all(coding.mantissa_bits is None for coding in chosen.plans.values())
    assert not choose("grid", replace(evaluator, goal=4000)).met


@pytest.mark.parametrize("share", [pytest.param(0.1, marks=pytest.mark.slow), 0.25])
def test_the_published_method_is_worse_than_grid_at_equal_size(
    share: float, model: onnx.ModelProto, tmp_path: Path
) -> None:
    evaluator = evaluator_of(model, tmp_path)
    goal = int(share * evaluator.source_bytes)
    evaluator = replace(evaluator, goal=goal)
    published, grid = choose("moments", evaluator), choose("grid", evaluator)
    assert published.met
    assert evaluator.size_of(published.plans) <= goal
    assert {codecs_of(published.plans)[f"w{index}"] for index in range(3)} == {"moments"}
    errors = [error_of(evaluator, chosen.plans) for chosen in (published, grid)]
    assert errors[0] > 3 * errors[1]


def test_the_published_method_without_a_goal_meets_it(rng: np.random.Generator, tmp_path: Path) -> None:
    assert choose("moments", evaluator_of(layers(rng, 40, 40), tmp_path)).met


def test_a_goal_that_leaves_room_for_every_bit_gets_every_bit(model: onnx.ModelProto, tmp_path: Path) -> None:
    evaluator = evaluator_of(model, tmp_path)
    chosen = choose("grid", replace(evaluator, goal=int(0.95 * evaluator.source_bytes)))
    assert chosen.met
    assert error_of(evaluator, chosen.plans) == 0


def test_a_small_model_that_fits_the_default_size_without_loss_is_kept_exactly(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    ternary = rng.integers(-1, 2, (128, 128)) / 8
    evaluator = evaluator_of(dense([ternary], [np.zeros(128)], np.float16), tmp_path)
    assert {plan.describe() for plan in choose("grid", evaluator).plans.values()} == {"exact"}


def test_lossless_keeps_everything_whatever_the_goal(model: onnx.ModelProto, tmp_path: Path) -> None:
    evaluator = evaluator_of(model, tmp_path)
    chosen = choose("lossless", evaluator)
    assert error_of(evaluator, chosen.plans) == 0
    assert evaluator.size_of(chosen.plans) < evaluator.source_bytes


def test_signs_of_life_come_during_the_search(model: onnx.ModelProto, tmp_path: Path) -> None:
    calls: list[None] = []
    METHODS["grid"].choose(evaluator_of(model, tmp_path, goal=30_000), lambda: calls.append(None))
    assert calls


def test_lossless_finds_the_repetitions_of_a_filter_bank_and_splits_what_is_noise(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    bank = np.tile(rng.standard_normal((8, 96)), (12, 1))  # twelve times the same rows
    evaluator = evaluator_of(dense([rng.standard_normal((96, 96)), bank], [np.zeros(96), np.zeros(96)]), tmp_path)
    plans = choose("lossless", evaluator).plans
    assert (codecs_of(plans)["w0"], codecs_of(plans)["w1"]) == ("split", "raw")
    assert evaluator.size_of(plans) < evaluator.size_of({**plans, "w1": plans["w0"]})


def test_an_error_is_kept_just_where_the_outputs_stay_within_it(model: onnx.ModelProto, tmp_path: Path) -> None:
    evaluator = evaluator_of(model, tmp_path)
    feeds = [{"x": np.random.default_rng(seed).standard_normal((4, 96)).astype(np.float32)} for seed in range(3)]
    evaluator = replace(evaluator, feeds=feeds, expected=run.run_all(tmp_path / "original", feeds))

    def noisy(weight: Weight) -> np.ndarray:
        return weight.data + np.float32(1e-3)

    error = evaluator.error_with(noisy)
    assert error > 0
    for share, kept in ((0.1, False), (0.99, False), (1.0, True), (1.01, True)):
        assert evaluator.keeps(noisy, share * error) == kept


def test_the_published_method_uses_the_bytes_that_it_may(rng: np.random.Generator, tmp_path: Path) -> None:
    evaluator = evaluator_of(layers(rng, 96, 320, 320, 160), tmp_path)
    goal = evaluator.source_bytes // 6
    chosen = choose("moments", replace(evaluator, goal=goal))
    assert chosen.met
    assert 0.97 * goal <= evaluator.size_of(chosen.plans) <= goal


def test_the_command_line_offers_every_method() -> None:
    (option,) = [each for each in command.params if each.name == "method"]
    assert isinstance(option.type, click.Choice)
    assert (list(option.type.choices), option.default) == (list(METHODS), Options().method)


@pytest.mark.parametrize("rows", [260, 266, 1030])
def test_lossless_tries_repetitions_in_weights_of_every_size(
    rows: int, rng: np.random.Generator, tmp_path: Path
) -> None:
    # On both sides of 256 KiB, and more than one chunk; of few values and without a pattern beside them.
    bank = np.tile(rng.standard_normal((10, 256)), (rows // 10 + 1, 1))[:rows]
    evaluator = evaluator_of(
        dense([rng.standard_normal((64, rows)) / 8, bank], [np.zeros(rows), np.zeros(256)]), tmp_path
    )
    plans = choose("lossless", evaluator).plans
    assert (codecs_of(plans)["w0"], codecs_of(plans)["w1"]) == ("split", "raw")
    assert evaluator.size_of(plans) < 0.8 * evaluator.size_of({**plans, "w1": plans["w0"]})


def test_lossless_tries_a_part_of_weights_that_are_larger_than_its_work(
    rng: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = raw.Work
    monkeypatch.setattr(raw, "Work", lambda left=0: work(left))
    ternary = rng.integers(-1, 2, (256, 1200)) / 11
    evaluator = evaluator_of(dense([ternary], [np.zeros(1200)]), tmp_path)
    plans = choose("lossless", evaluator).plans
    assert codecs_of(plans)["w0"] == "raw"
    assert evaluator.size_of(plans) < evaluator.size_of(allocate.lossless(evaluator.graph))


def test_lossless_finds_a_filter_bank_whose_first_rows_hardly_repeat(rng: np.random.Generator, tmp_path: Path) -> None:
    # Waves under one window, as models of speech begin with: 264,192 bytes, of which a quarter is left.
    phases = np.arange(129)[:, None] * np.arange(256) * 2 * np.pi / 256
    waves = np.concatenate([np.cos(phases), -np.sin(phases)]) * np.hanning(256)
    evaluator = evaluator_of(
        dense([waves.T, rng.standard_normal((258, 64)) / 16], [np.zeros(258), np.zeros(64)]), tmp_path
    )
    plans = choose("lossless", evaluator).plans
    assert (codecs_of(plans)["w0"], codecs_of(plans)["w1"]) == ("raw", "split")
    assert evaluator.size_of(plans) < evaluator.size_of({**plans, "w0": plans["w1"]}) - 60_000
