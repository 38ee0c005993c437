"""Healings that start from the plans of a search. Skipped without torch."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from seed_exporter.codecs.base import Plan
from seed_exporter.codecs.grid import GridPlan
from seed_exporter.codecs.lowrank import LowRankPlan
from seed_exporter.graph.fold import fold_batch_norms
from seed_exporter.graph.matrix import as_float32, coded_view
from seed_exporter.graph.model import Graph
from seed_exporter.quantize.allocate import lossless
from seed_exporter.quantize.factorize import factorize
from seed_exporter.quantize.trail import Trail
from seed_exporter.stages import starting
from seed_runtime.codecs.encode.grid import QuantizedMatrix
from tests.exporter.support.convolutions import convolutions, inputs
from tests.exporter.support.exporting import layers, quick_export

torch = pytest.importorskip("torch", exc_type=ImportError)
starts = pytest.importorskip("seed_exporter.heal.starts", exc_type=ImportError)


def searched(folded: Graph, rng: np.random.Generator) -> dict[str, Plan]:
    """Plan integers that rounding to nearest wouldn't give; rows and columns of one matrix have steps of their own."""
    plans = lossless(folded)
    for name in ("k0", "k1"):
        values = as_float32(folded.weights[name]).reshape(coded_view(folded.weights[name]))
        step = float(np.float32(values.std() / 2))
        integers = (np.rint(values / step) + rng.integers(-1, 2, values.shape)).astype(np.int32)
        rows, columns = (rng.integers(0, 9, count).astype(np.uint8) for count in values.shape)
        steps = {"row_steps": rows, "col_steps": columns} if name == "k1" else {}
        plans[name] = GridPlan.of(QuantizedMatrix(integers, step, **steps))
    return plans


def test_training_starts_from_the_very_integers_and_steps_of_a_search(rng: np.random.Generator) -> None:
    graph = convolutions(rng)
    folded = fold_batch_norms(graph)
    plans = searched(folded, rng)
    healing = pytest.importorskip("seed_exporter.heal.healing", exc_type=ImportError)
    run = healing.Healing(graph, folded, inputs(64), {}, lambda graph, plans: 900, 1000, start=plans)
    for name in ("k0", "k1"):
        found, wanted = run.best.plans[name].quantize(folded.weights[name]), plans[name].matrix
        assert np.array_equal(found.integers, wanted.integers)
        assert np.array_equal(found.values(), wanted.values())
    assert run.student.norms is None
    assert run.best.plans.keys() == plans.keys()


def test_the_first_steps_do_not_undo_what_was_rounded_together(rng: np.random.Generator) -> None:
    graph = convolutions(rng)
    folded = fold_batch_norms(graph)
    plans = searched(folded, rng)
    healing = pytest.importorskip("seed_exporter.heal.healing", exc_type=ImportError)
    settings = replace(healing.SHORT, steps=5, looks=1)
    run = healing.Healing(graph, folded, inputs(64), {}, lambda graph, plans: 900, 1000, start=plans, settings=settings)
    run.run(lambda: False, None)
    for name in ("k0", "k1"):
        found, wanted = (each[name].quantize(folded.weights[name]) for each in (run.last.plans, plans))
        assert np.array_equal(found.integers, wanted.integers)
    shift = run.student.vectors["shift0.folded"]
    assert not np.array_equal(shift.units.detach().numpy() * shift.step, folded.weights["shift0.folded"].data)


def test_what_a_search_kept_as_factors_or_as_floats_starts_as_it_was(rng: np.random.Generator) -> None:
    graph = convolutions(rng)
    folded = fold_batch_norms(graph)
    plans = searched(folded, rng)
    weights = as_float32(folded.weights["k1"]).reshape(coded_view(folded.weights["k1"]))
    factors = factorize(weights, float(np.square(weights).mean()) / 4)
    assert factors is not None
    plans["k1"] = LowRankPlan(0.5, factors)
    healing = pytest.importorskip("seed_exporter.heal.healing", exc_type=ImportError)
    run = healing.Healing(graph, folded, inputs(64), {}, lambda graph, plans: 900, 1000, start=plans)
    assert run.best.plans["k1"] is plans["k1"]
    dense = folded.weights["dense"]
    found = run.best.plans["dense"].quantize(dense).values().reshape(dense.shape)
    assert np.abs(found - dense.data).max() < 0.002 * dense.data.std()


def test_integers_on_trellises_are_not_started_from(rng: np.random.Generator) -> None:
    folded = fold_batch_norms(convolutions(rng))
    plans = searched(folded, rng)
    assert starts.grids_of(folded, plans).keys() == {"k0", "k1"}
    matrix = plans["k1"].matrix
    plans["k1"] = GridPlan.of(QuantizedMatrix(matrix.integers, matrix.step, delay=4))
    assert starts.grids_of(folded, plans).keys() == {"k0"}


def test_a_run_is_short_by_the_steps_that_fit_into_its_time(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = convolutions(rng)
    monkeypatch.setattr(starts, "device_of", lambda: "cpu")
    assert starts.is_short(graph, inputs(16), 1e-6)
    assert not starts.is_short(graph, inputs(16), 1e6)
    monkeypatch.setattr(starts, "device_of", lambda: "cuda")
    assert not starts.is_short(graph, inputs(16), 1e-6)


def short_run(rng: np.random.Generator, folder: Path, monkeypatch: pytest.MonkeyPatch, steps: int) -> Path:
    """Let runs be short, of so many steps on a CPU, and return the data to heal on."""
    data, done = folder / "data.npz", count(1)
    np.savez(data, x=rng.standard_normal((96, 1, 24)).astype(np.float32))
    monkeypatch.setattr(starts, "device_of", lambda: "cpu")
    monkeypatch.setattr(starts, "STEPS_FEW", 1 << 40)
    monkeypatch.setattr(Trail, "clock", lambda self: lambda: next(done) / steps)
    return data


@pytest.mark.slow
def test_a_short_healing_goes_on_from_a_search_and_keeps_its_size(
    rng: np.random.Generator, tmp_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = short_run(rng, tmp_path, monkeypatch, 60)
    options = {"heal": data, "size": 3000, "time_limit": 1000.0, "resume": tmp_path / "state"}
    model = layers(rng, 24, 64, 10)
    result = quick_export(model, output, **options)
    first = result.healing[0]
    assert first.size == pytest.approx(3000, rel=0.1)
    assert result.goal_met
    assert result.bytes <= 3000
    # As it was started, whatever the machine's speed says now, and from the plans that were kept.
    monkeypatch.setattr(starts, "STEPS_FEW", 0)
    monkeypatch.setattr(starting, "plan", None)
    again = quick_export(model, output, **options)
    assert again.bytes == result.bytes
    assert again.damage == result.damage


@pytest.mark.slow
def test_a_search_that_leaves_little_alive_is_not_started_from(
    rng: np.random.Generator, tmp_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = short_run(rng, tmp_path, monkeypatch, 40)
    result = quick_export(layers(rng, 24, 64, 10), output, heal=data, size=700, time_limit=1000.0)
    assert result.healing[0].size > 1.1 * 700
