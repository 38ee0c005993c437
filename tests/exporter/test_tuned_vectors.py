"""Vectors fitted at export: what they are fitted to, when that is tried, and when it is kept."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import seed_runtime
from seed_exporter import pipeline
from seed_exporter.codecs.grid import GridPlan
from seed_exporter.evaluate import run
from seed_exporter.evaluate.model_files import write_model_files
from seed_exporter.gradients.typed import typed_model
from seed_exporter.graph.model import Graph, Weight
from seed_exporter.loaders import load
from seed_exporter.quantize.allocate import lossless
from seed_exporter.quantize.effort import EFFORTS, WITHOUT_DATA, Effort
from seed_exporter.results import InterruptedExport
from seed_exporter.skeletons import builder_for
from seed_exporter.stages import tuning
from seed_exporter.stages.proving import prove
from seed_exporter.stages.writing import write
from seed_exporter.training import training_part
from seed_exporter.tuning import Tier, Tuning, as_assembled, batched, corrected, distill, trainable, with_vectors
from seed_exporter.tuning.means import find_biases
from seed_exporter.tuning.samples import stacked
from seed_runtime.errors import UnsupportedError
from seed_runtime.skeletons.training import LEVELS, SMALL, scan_training
from tests.exporter.support.exporting import NOBODY, quick_export
from tests.exporter.support.onnx_models import info, make

RNG = np.random.default_rng(5)
SIZE = 2600
SHIFTS, TUNES = Effort(shifts=True), Effort(tunes=True)
COARSE = 0.4
"""Quantization step that moves means visibly."""


def matrix(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array((RNG.standard_normal(shape) / 3).astype(np.float32), name)


def model() -> onnx.ModelProto:
    """Three layers with biases, and a softmax."""
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h1"]),
        helper.make_node("Relu", ["h1"], ["r1"]),
        helper.make_node("MatMul", ["r1", "w2"], ["m2"]),
        helper.make_node("Add", ["m2", "b2"], ["h2"]),
        helper.make_node("Relu", ["h2"], ["r2"]),
        helper.make_node("Gemm", ["r2", "w3", "b3"], ["z"]),
        helper.make_node("Softmax", ["z"], ["y"]),
    ]
    weights = [matrix("w1", 16, 64), matrix("w2", 64, 64), matrix("w3", 64, 20)]
    weights += [matrix("b1", 64), matrix("b2", 64), matrix("b3", 20)]
    return make(nodes, weights, inputs=[info("x")], outputs=[info("y", (None, 20))])


MODEL = model()
X = (1 + 0.5 * RNG.standard_normal((128, 16))).astype(np.float32)
"""Inputs whose mean isn't 0, so that rounding moves the means behind them."""


@pytest.fixture
def calib(tmp_path: Path) -> Path:
    np.savez(tmp_path / "calib.npz", x=X)
    return tmp_path / "calib.npz"


def rounded(graph: Graph) -> Graph:
    plans = lossless(graph) | {name: GridPlan(COARSE) for name in ("w1", "w2", "w3")}
    return as_assembled(graph, plans)


def data_of(graph: Graph) -> Callable[[Weight], Any]:
    return lambda weight: graph.weights[weight.name].data


def outputs_of(graph: Graph, folder: Path) -> np.ndarray:
    write_model_files(graph, folder)
    return run.run_all(folder, [{"x": X}])[0]["y"]


def lessons(graph: Graph, folder: Path, *scores: str) -> distill.Lessons:
    """What a graph answers to X, one row a call."""
    write_model_files(graph, folder)
    return distill.Lessons(folder, [{"x": row[None]} for row in X], scores, NOBODY)


def fake(monkeypatch: pytest.MonkeyPatch, find: Callable[..., Any]) -> None:
    """Let something else stand for the means of channels."""
    monkeypatch.setattr(tuning, "corrected", find)


def test_corrected_biases_give_all_channels_the_originals_means(tmp_path: Path) -> None:
    graph = load(MODEL)
    original = replace(graph, model=typed_model(graph))
    coarse = rounded(original)
    values = corrected(original, data_of(coarse), frozenset(graph.weights), [{"x": X}], tmp_path)
    assert values.keys() == {"b1", "b2", "b3"}
    moved = with_vectors(coarse, values)
    again = corrected(original, data_of(moved), frozenset(graph.weights), [{"x": X}], tmp_path)
    for name, value in again.items():
        assert np.allclose(value, values[name], atol=1e-5)
    expected = outputs_of(original, tmp_path)
    before, after = (np.abs(outputs_of(each, tmp_path) - expected).mean() for each in (coarse, moved))
    assert after < before


def test_a_bias_that_may_not_change_stays_and_those_behind_it_make_up_for_it(tmp_path: Path) -> None:
    graph = load(MODEL)
    original = replace(graph, model=typed_model(graph))
    values = corrected(original, data_of(rounded(original)), frozenset({"b3"}), [{"x": X}], tmp_path)
    assert values.keys() == {"b3"}


def test_biases_of_convolutions_are_along_the_second_axis() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "k", "c"], ["a"]),
        helper.make_node("Conv", ["a", "l"], ["b"]),
        helper.make_node("Add", ["b", "d"], ["y"]),
    ]
    weights = [matrix("k", 24, 3, 3, 3), matrix("c", 24), matrix("l", 20, 24, 1, 1), matrix("d", 1, 20, 1, 1)]
    images = [info("x", (None, 3, 8, 8))]
    graph = load(make(nodes, weights, inputs=images, outputs=[info("y", (None, 20, 6, 6))]))
    found = find_biases(replace(graph, model=typed_model(graph)), frozenset(graph.weights))
    assert [(bias.name, bias.axis, bias.rank) for bias in found] == [("c", 1, 4), ("d", 1, 4)]


def test_a_bias_that_is_a_column_has_no_element_for_each_channel_and_stays(tmp_path: Path) -> None:
    weights, nodes = [matrix("w", 16, 64), matrix("b", 32, 1)], [helper.make_node("Gemm", ["x", "w", "b"], ["y"])]
    graph = load(make(nodes, weights, inputs=[info("x", (32, 16))], outputs=[info("y", (32, 64))], opset=18))
    assert corrected(graph, data_of(graph), frozenset(graph.weights), [{"x": X[:32]}], tmp_path) == {}


def test_only_vectors_that_the_seed_codes_are_trained() -> None:
    graph = load(MODEL)
    prepared = trainable(graph)
    order = list(prepared.weights)
    skeleton = builder_for(prepared).build(order)
    part = scan_training(training_part(prepared, order), bytes(skeleton.data), skeleton.holes)
    assert {order[each.hole] for each in part.tensors} == {"b1", "b2", "b3"}
    assert {LEVELS[each.level] for each in part.tensors} == {SMALL}


def test_a_vector_that_two_layers_share_is_left_as_it_is() -> None:
    shared = model()
    shared.graph.node[3].input[1] = "b1"
    assert trainable(load(shared)).trained == {"b1", "b3"} - {"b1"}


def test_scores_are_learned_as_shares_of_classes(tmp_path: Path) -> None:
    plain = model()
    del plain.graph.node[-1]
    plain.graph.node[-1].output[0] = "y"
    graph = load(plain)
    samples = distill._samples(distill.find_roles(trainable(graph)), lessons(graph, tmp_path, "y"))
    assert samples["labels"].shape == (128, 20)
    assert np.allclose(samples["labels"].sum(axis=1), 1, atol=1e-5)
    assert np.array_equal(samples["x"], X)


def test_calls_of_other_shapes_and_without_samples_are_left_out() -> None:
    calls = [{"x": np.ones((2, 3)), "y": np.ones((2, 1))}] * 3
    calls += [{"x": np.ones((2, 4)), "y": np.ones((2, 1))}, {"x": np.ones((2, 3)), "y": np.ones((1, 1))}]
    assert {name: array.shape for name, array in stacked(calls, 5).items()} == {"x": (5, 3), "y": (5, 1)}
    assert stacked([calls[-1]], 5) == {}
    assert [len(batch["x"]) for batch in batched(calls[:3], 64, 4)] == [4]


@pytest.mark.slow
def test_what_does_less_damage_ships_in_the_seed_with_its_digest_and_golden_sample(calib: Path, output: Path) -> None:
    plain = quick_export(MODEL, output, calib=calib, size=SIZE, parts=Effort())
    result = quick_export(MODEL, output, calib=calib, size=SIZE, parts=SHIFTS)
    assert plain.tuning is None
    assert result.tuning is not None
    assert [tier.is_kept for tier in result.tuning.tiers] == [True]
    assert result.damage == result.tuning.after < 0.9 * plain.damage
    assert result.bytes == output.stat().st_size <= SIZE
    assert result.as_json()["tuned"]["tiers"][0]["mode"] == "bn"
    assert any("means of channels" in note for note in result.notes)
    seed = seed_runtime.open(output)
    seed.check()
    assert seed.golden is not None
    assert seed.header.weights.digest != plain.seed.header.weights.digest


@pytest.mark.slow
def test_what_does_no_less_damage_isnt_kept(calib: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def worse(graph: Graph, *_: Any) -> dict[str, np.ndarray]:
        return {"b3": graph.weights["b3"].data[::-1]}

    plain = quick_export(MODEL, output, calib=calib, size=SIZE, parts=Effort())
    fake(monkeypatch, worse)
    result = quick_export(MODEL, output, calib=calib, size=SIZE, parts=SHIFTS)
    assert result.tuning is not None
    assert not result.tuning.tiers[0].is_kept
    assert result.seed.header.weights.digest == plain.seed.header.weights.digest
    assert not result.tuning.text()


@pytest.mark.slow
def test_vectors_are_left_alone_without_real_inputs_with_few_or_where_every_bit_is_kept(
    calib: Path, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: Any) -> None:
        raise AssertionError

    fake(monkeypatch, forbidden)
    few = tmp_path / "few.npz"
    np.savez(few, x=X[:40])
    for options in (
        {"size": SIZE},
        {"size": SIZE, "calib": few},
        {"method": "lossless", "calib": calib},
        {"method": "moments", "size": 3 * SIZE, "calib": calib},
        {"size": 4 * SIZE, "calib": calib},  # the damage is too small to see
    ):
        assert quick_export(MODEL, output, parts=SHIFTS, **options).tuning is None


@pytest.mark.slow
def test_a_version_on_a_base_is_left_as_it_is(calib: Path, output: Path, tmp_path: Path) -> None:
    base = tmp_path / "base.seed"
    quick_export(MODEL, base, calib=calib, size=SIZE, parts=Effort())
    result = quick_export(MODEL, output, calib=calib, size=SIZE, base=(base,), parts=SHIFTS, model_version=2)
    assert result.tuning is None


@pytest.mark.slow
@pytest.mark.parametrize(("at", "tiers"), [("small", []), ("bn", [("small", True)])])
def test_ctrl_c_keeps_the_seed_that_was_proven_with_the_tiers_that_were_done(
    at: str, tiers: list[tuple[str, bool]], calib: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(fitting: Any, mode: str) -> Any:
        if mode == at:
            raise KeyboardInterrupt
        return fitted(fitting, "bn")

    fitted = tuning._Fitting._fitted
    monkeypatch.setattr(tuning._Fitting, "_fitted", interrupted)
    with pytest.raises(InterruptedExport) as caught:
        quick_export(MODEL, output, calib=calib, size=SIZE, parts=Effort(shifts=True, tunes=True))
    found = caught.value.result.tuning
    assert [(tier.name, tier.is_kept) for tier in (found.tiers if found else ())] == tiers
    seed_runtime.open(output).check()


@pytest.mark.slow
def test_fitted_vectors_that_miss_the_quality_or_take_more_bytes_arent_kept(
    calib: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing_the_line(*arguments: Any) -> Any:
        assembled, judgement = prove(*arguments)
        return assembled, replace(judgement, line_kept=False)

    monkeypatch.setattr(tuning, "DAMAGE_LEAST", 0.0)
    kept = quick_export(MODEL, output, calib=calib, quality=0.9, parts=SHIFTS)
    assert kept.tuning is not None
    assert kept.tuning.tiers[0].is_kept
    monkeypatch.setattr(tuning, "prove", missing_the_line)
    result = quick_export(MODEL, output, calib=calib, quality=0.9, parts=SHIFTS)
    assert result.tuning is not None
    assert not result.tuning.tiers[0].is_kept
    assert "quality" in result.tuning.tiers[0].problem
    assert result.line_kept
    monkeypatch.setattr(tuning, "_SIZE_SLACK", 0.9)
    larger = quick_export(MODEL, output, calib=calib, quality=0.9, parts=SHIFTS)
    assert larger.tuning is not None
    assert "bytes" in larger.tuning.tiers[0].problem


@pytest.mark.slow
def test_a_full_disk_while_vectors_are_fitted_leaves_the_seed_that_was_proven(
    calib: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        folders.append(arguments[-1])
        raise OSError(errno.ENOSPC, "No space left on device")

    def checked(*arguments: Any) -> Any:
        assert [folder.exists() for folder in folders] == [False]
        return write(*arguments)

    folders = list[Path]()
    fake(monkeypatch, full)
    monkeypatch.setattr(pipeline, "write", checked)
    result = quick_export(MODEL, output, calib=calib, size=SIZE, parts=SHIFTS)
    assert result.tuning is not None
    assert "No space left" in result.tuning.tiers[0].problem
    seed_runtime.open(output).check()


@pytest.mark.parametrize(("left", "limit"), [(None, None), (-5.0, 0.0)])
def test_no_clock_ends_a_training_but_the_exports_own_limit(
    left: float | None, limit: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = []

    def stop(seed: Any, samples: Any, settings: Any, **_: Any) -> None:
        limits.append(settings.time_limit)
        raise UnsupportedError("stopped")

    monkeypatch.setattr(distill, "tune", stop)
    given = lessons(graph := load(MODEL), tmp_path)
    deadline = None if left is None else time.monotonic() + left
    with pytest.raises(UnsupportedError):
        distill.distilled(trainable(graph), "small", given, tmp_path, deadline, lambda done, total: None)
    assert limits == [limit]


def test_answers_that_take_too_much_memory_are_asked_for_fewer_inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distill, "BYTES_MAX", 10 * 20 * 4)  # answers are 20 numbers of 4 bytes
    graph = load(MODEL)
    samples = distill._samples(distill.find_roles(trainable(graph)), lessons(graph, tmp_path))
    assert samples["labels"].shape == (11, 20)


@pytest.mark.slow
def test_a_model_that_cant_be_trained_is_exported_as_it_was(
    calib: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(graph: Graph) -> Graph:
        raise UnsupportedError("no gradient")

    monkeypatch.setattr(tuning, "trainable", refuse)
    result = quick_export(MODEL, output, calib=calib, size=SIZE, parts=TUNES)
    assert result.tuning is not None
    assert [tier.problem for tier in result.tuning.tiers] == ["no gradient"]
    seed_runtime.open(output).check()


@pytest.mark.slow
def test_the_originals_answers_are_learned_by_the_runtimes_tuner(tmp_path: Path) -> None:
    graph = load(MODEL)
    (folder := tmp_path / "tuned").mkdir()
    coarse, told = rounded(graph), list[int]()
    values = distill.distilled(
        trainable(coarse), "small", lessons(graph, tmp_path), folder, None, lambda done, total: told.append(total)
    )
    assert values.keys() == {"b1", "b2", "b3"}
    assert told
    expected = outputs_of(graph, tmp_path)
    before, after = (
        -np.sum(expected * np.log(outputs_of(each, tmp_path)), axis=1).mean()
        for each in (coarse, with_vectors(coarse, values))
    )
    assert after < before


def test_levels_of_effort_say_when_vectors_are_fitted() -> None:
    assert [level for level, effort in EFFORTS.items() if effort.shifts] == [5, 6, 7, 8, 9]
    assert [level for level, effort in EFFORTS.items() if effort.tunes] == [6, 7, 8, 9]
    assert not replace(EFFORTS[9], **WITHOUT_DATA).shifts
    assert not replace(EFFORTS[9], **WITHOUT_DATA).tunes


def test_a_report_says_what_was_won() -> None:
    found = Tuning((Tier("small", 0.1, is_kept=True), Tier("bn", 0.2, is_kept=False)), 0.2, 0.1)
    assert found.text() == "biases and norms were fitted to the original's answers: damage 0.2 to 0.1"
    assert [tier["kept"] for tier in found.as_json()["tiers"]] == [True, False]


@pytest.mark.slow
def test_of_batch_norms_that_arent_folded_the_statistics_are_estimated_first(output: Path, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["a"]),
        helper.make_node("BatchNormalization", ["a", "s", "b", "m", "v"], ["n"]),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    ones = {name: np.ones(64, np.float32) for name in "sbmv"}
    weights = [numpy_helper.from_array(each, name) for name, each in ones.items()]
    weights += [matrix("k", 64, 3, 5, 5), matrix("w", 64, 20)]
    normed = make(nodes, weights, inputs=[info("x", (None, 3, 9, 9))], outputs=[info("y", (None, 20))], opset=18)
    np.savez(tmp_path / "images.npz", x=(1 + RNG.standard_normal((64, 3, 9, 9))).astype(np.float32))
    options = {"calib": tmp_path / "images.npz", "size": 4000, "parts": Effort(shifts=True, tunes=True)}
    result = quick_export(normed, output, finetune_graph=True, **options)
    assert result.tuning is not None
    assert [tier.name for tier in result.tuning.tiers] == ["bn", "small"]
    assert not any(tier.problem for tier in result.tuning.tiers)
    seed = seed_runtime.open(output)
    seed.check()
    seed.training_graph()
