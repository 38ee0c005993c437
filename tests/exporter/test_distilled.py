"""The highest effort's end: when plans are trained, and when trained plans are kept. Training itself is replaced."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import seed_exporter
from seed_exporter import heal
from seed_exporter.codecs.grid import GridPlan
from seed_exporter.quantize import allocate, distilled
from seed_exporter.quantize.effort import EFFORTS
from seed_exporter.quantize.trail import Trail
from seed_runtime.errors import UsageError
from tests.exporter.support.exporting import layers, quick_export

HIGHEST = 9


@pytest.fixture
def model(rng: np.random.Generator) -> onnx.ModelProto:
    return layers(rng, 24, 48, 10)


@pytest.fixture
def calib(rng: np.random.Generator, tmp_path: Path) -> Path:
    path = tmp_path / "calib.npz"
    np.savez(path, x=rng.standard_normal((24, 40, 24)).astype(np.float32))
    return path


class Training:
    """Stands for training: gives plans whose steps are those before times a factor."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
        self.factor, self.goals, self.inputs, self.out_of_domain, self.feeds = factor, [], [], [], []
        # Not setattr, which would look at the functions that these replace: they need torch.
        monkeypatch.setitem(vars(heal), "check", lambda graph: None)
        monkeypatch.setitem(vars(heal), "distill", self.distill)

    def distill(self, graph, plans, feeds, size_of, goal, *, out_of_domain, **_: Any):
        self.goals.append(goal)
        self.inputs.append(len(feeds))
        self.out_of_domain.append([feed["x"].shape[1:] for feed in out_of_domain])
        self.feeds.append(out_of_domain)
        steps = {name: plan.step for name, plan in plans.items() if isinstance(plan, GridPlan)}
        return plans | {name: replace(plan, step=self.factor * steps[name], matrix=None)
                        for name, plan in plans.items() if name in steps}  # fmt: skip


def export(model: onnx.ModelProto, output: Path, calib: Path | None, **options: Any) -> seed_exporter.Result:
    return quick_export(model, output, calib=calib, **options)


@pytest.mark.slow
def test_at_a_size_trained_plans_are_kept_if_they_do_less_damage(
    model: onnx.ModelProto, output: Path, calib: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = export(model, output, calib, size=3000, effort=8)
    Training(monkeypatch, 3.0)
    assert export(model, output, calib, size=3000, effort=HIGHEST).damage == before.damage
    # What stands for training finds nothing better at the size: it is said to.
    training = Training(monkeypatch, 1.1)
    monkeypatch.setattr(distilled, "_damage", lambda _, plans: plans["w0"].matrix is not None)
    after = export(model, output, calib, size=3000, effort=HIGHEST)
    assert all(plan.matrix is None for plan in after.plans.values() if isinstance(plan, GridPlan))
    assert after.bytes <= 3000
    # What is left of the size isn't worth training once more.
    assert training.goals == [3000]
    assert set(training.out_of_domain[0]) == {(24,)}


@pytest.mark.slow
def test_under_a_line_smaller_trained_plans_are_kept_if_they_keep_it(
    model: onnx.ModelProto, output: Path, calib: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = export(model, output, calib, quality=0.9, effort=8)
    training = Training(monkeypatch, 30.0)
    after = export(model, output, calib, quality=0.9, effort=HIGHEST)
    assert after.bytes == before.bytes
    assert training.goals == pytest.approx([0.75 * before.bytes, 0.87 * before.bytes], rel=0.03)


@pytest.mark.parametrize(("damage", "kept"), [(2.5, "trained"), (1.0, "best")])
def test_trained_plans_yield_to_better_ones_without_training(
    damage: float, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = {"start": {"w": GridPlan(3.0)}, "trained": {"w": GridPlan(2.0)}, "best": {"w": GridPlan(damage)}}
    monkeypatch.setitem(vars(heal), "distill", lambda *_, **__: plans["trained"])
    monkeypatch.setattr(distilled, "_out_of_domain", lambda _: [])
    monkeypatch.setattr(distilled, "_damage", lambda _, found: found["w"].step)
    evaluator: Any = SimpleNamespace(
        calibration=[{}] * 8, effort=EFFORTS[HIGHEST], measures_errors=True, trail=Trail(), goal=100, noisy=(),
        graph=None, size_of=len,
    )  # fmt: skip
    assert distilled.distilled(evaluator, plans["start"], plans["best"], lambda _: True) == plans[kept]


@pytest.mark.slow
def test_inputs_of_which_the_original_makes_no_numbers_do_not_judge_training(
    output: Path, calib: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = layers(rng, 24, 48, 10)
    # A root beside the scores, which is NaN for some of the generated inputs.
    model.graph.node.extend([
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=1, axes=[1]),
        helper.make_node("Sub", ["most", "bound"], ["beyond"]),
        helper.make_node("Sqrt", ["beyond"], ["root"]),
    ])  # fmt: skip
    model.graph.initializer.append(numpy_helper.from_array(np.array([[2.1]], np.float32), "bound"))
    model.graph.output.append(helper.make_tensor_value_info("root", TensorProto.FLOAT, ["batch", 1]))
    training = Training(monkeypatch, 1.1)
    export(model, output, calib, size=3000, effort=HIGHEST)
    feeds, *_ = training.feeds
    assert 0 < len(feeds) < 24
    assert all(feed["x"].max(axis=1).min() >= 2.1 for feed in feeds)


def test_the_clock_of_a_part_of_the_time_left_runs_from_0_to_1(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    trail = Trail(deadline=120.0)
    whole, half = trail.clock(), trail.clock(2)
    assert (whole(), half()) == (0, 0)
    now[0] = 105.0
    assert (whole(), half()) == (0.25, 0.5)
    assert Trail().clock() is None


@pytest.mark.parametrize(("effort", "real"), [(8, True), (HIGHEST, False)])
def test_only_the_highest_effort_trains_and_only_on_real_inputs(
    effort: int, real: bool, model: onnx.ModelProto, output: Path, calib: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(monkeypatch, 1.0)
    export(model, output, calib if real else None, size=3000, effort=effort)
    assert training.goals == []


def test_without_torch_the_highest_effort_is_refused_before_the_search(
    model: onnx.ModelProto, output: Path, calib: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "seed_exporter.heal.distillation", raising=False)
    monkeypatch.setattr(allocate, "lossless", lambda graph: pytest.fail("the search began"))
    with pytest.raises(UsageError, match=r"seed-runtime\[torch\]"):
        export(model, output, calib, size=3000, effort=HIGHEST)
    assert not output.exists()
