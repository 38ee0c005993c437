"""Dead channels are cut out of a healing midway, and training goes on with what is left. Skipped without torch."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seed_exporter.build.streams import StreamEncoder
from seed_exporter.quantize.allocate import lossless
from seed_exporter.quantize.cut_plans import cut_dead
from seed_exporter.quantize.methods import METHODS
from tests.exporter.support.block_models import image_model, text_model
from tests.exporter.support.dead_units import kill
from tests.exporter.support.pruned_models import Builder

NO_TORCH = {"exc_type": ImportError}
torch = pytest.importorskip("torch", **NO_TORCH)
student_graph = pytest.importorskip("seed_exporter.heal.student_graph", **NO_TORCH)
cuts = pytest.importorskip("seed_exporter.heal.cuts", **NO_TORCH)
healing = pytest.importorskip("seed_exporter.heal.healing", **NO_TORCH)
midway = pytest.importorskip("seed_exporter.heal.midway", **NO_TORCH)
resuming = pytest.importorskip("seed_exporter.heal.resuming", **NO_TORCH)

IMAGES = {"stem": slice(3), "wide": slice(12), "deep": slice(10, 20), "out": slice(3), "side": slice(5)}
TEXTS = {"up": slice(20), "v": slice(8, 16), "table": slice(50, 300)}

ASKING = {"_local_scalar_dense", "_unique2", "lift_fresh", "masked_select", "nonzero", "repeat_interleave"}
"""Operators that wait for the device, or copy to it from the host."""


def trained(kind: str) -> tuple[Any, dict[str, Any], Any]:
    """Return a folded student with dead channels, inputs, and plans of what isn't trained."""
    if kind == "images":
        b = Builder(x=("n", 3, 16, 16))
        graph = b.graph(image_model(b, norms=True))
        feed = {"x": torch.from_numpy(b.rng.standard_normal((4, 3, 16, 16)).astype(np.float32))}
    else:
        b = Builder(ids=("n", 12))
        graph = b.graph(text_model(b))
        feed = {"ids": torch.from_numpy(b.rng.integers(0, 400, (4, 12)).astype(np.float32))}
    folded = METHODS["grid"].prepare(graph)
    student = student_graph.StudentGraph(graph, folded, [], kind == "images", 0.1, torch.device("cpu"))
    for name, rows in (IMAGES if kind == "images" else TEXTS).items():
        if name == "table":
            kill_rows(student, name, rows)
        else:
            kill(student, name, rows)
    student.fold([feed] if kind == "images" else [])
    return student, feed, lossless(folded)


def kill_rows(student: Any, name: str, rows: slice) -> None:
    with torch.no_grad():
        for stack in student.matrices._stacks:
            for index, weight in enumerate(stack.weights):
                if weight.name == name:
                    stack.units[index].view(weight.shape)[rows] = 0


def answers(student: Any, feed: dict[str, Any]) -> Any:
    with torch.no_grad():
        weights, rate = student.weights()
        (found,) = student.run(feed, weights).values()
    return found.numpy(), float(rate.symbols), float(rate.structure)


def elements(student: Any) -> int:
    return int(student.matrices.count)


@pytest.mark.parametrize("kind", ["images", "texts"])
def test_a_cut_student_answers_as_before_and_ends_in_the_same_plans(kind: str):
    student, feed, others = trained(kind)
    before, symbols, structure = answers(student, feed)
    expected = cut_dead(student.finished(), {**others, **student.plans()})
    count = elements(student)
    vectors = set(student.vectors)
    cut = student.cut(others, cut_dead)
    left = {each.name for each in student.finished().model.graph.initializer}
    assert set(student.vectors) == vectors & left
    after, symbols_after, structure_after = answers(student, feed)
    assert elements(student) < 0.9 * count
    assert np.abs(after - before).max() <= 1e-5 * np.abs(before).max()
    assert symbols_after <= symbols
    assert structure_after <= structure * 1.001
    plans = {**cut.plans, **student.plans()}
    graph, left = cut_dead(student.finished(), {name: plans[name] for name in student.finished().weights})
    assert graph.weights.keys() == expected[0].weights.keys()
    for name, plan in left.items():
        same = expected[1][name]
        assert type(plan) is type(same)
        if hasattr(plan, "matrix"):
            assert np.array_equal(plan.matrix.values(), same.matrix.values())


@pytest.mark.parametrize("kind", ["images", "texts"])
def test_moments_of_the_optimizer_follow_a_cut(kind: str):
    student, feed, others = trained(kind)
    old = [each for group in student.parameters().values() for each in group]
    optimizer = torch.optim.Adam(old, 1e-3, fused=True)
    weights, rate = student.weights()
    (sum(each.square().mean() for each in student.run(feed, weights).values()) + rate.symbols).backward()
    optimizer.step()
    before = {
        weight.name: optimizer.state[stack.units]["exp_avg"][index].reshape(weight.shape)
        for stack in student.matrices._stacks
        for index, weight in enumerate(stack.weights)
    }
    cut = student.cut(others, cut_dead)
    state = cuts.follow_moments(optimizer.state, cut.follow)
    new = [each for group in student.parameters().values() for each in group]
    assert {id(each) for each in state} == {id(each) for each in new}
    assert all(state[each]["exp_avg_sq"].shape == each.shape for each in new)
    for stack in student.matrices._stacks:
        for index, weight in enumerate(stack.weights):
            left = state[stack.units]["exp_avg"][index].reshape(weight.shape).numpy()
            assert np.isin(left, before[weight.name].numpy()).all()


@pytest.mark.parametrize("kind", ["images", "texts"])
def test_a_state_after_a_cut_is_restored_in_a_new_student(kind: str):
    student, feed, others = trained(kind)
    thin = student.rounded_snapshot()
    student.cut(others, cut_dead)
    with torch.no_grad():
        for each in student.parameters()["units"]:
            each.add_(0.3)
    arrays = resuming.arrays_of(student.snapshot(), {}, [thin])
    found = answers(student, feed)
    other, _, others = trained(kind)
    (before,) = resuming.before_cuts_of(arrays)
    resuming.cut_again(other, before, others, cut_dead)
    resuming.restore(other, resuming.state_of(arrays, "last"))
    again = answers(other, feed)
    assert np.array_equal(found[0], again[0])
    assert found[1:] == again[1:]


def test_the_best_state_of_a_checkpoint_is_from_before_the_cuts_after_it():
    states = [{"x": np.full(3, each, np.float32)} for each in range(5)]
    last, best, *before = states
    arrays = resuming.arrays_of(last, best, before)
    for cuts_before, expected in ((0, [1, 2, 3, 4, 0]), (1, [2, 1, 3, 4, 0]), (None, [2, 3, 4, 1, 0])):
        found = list(resuming.in_order(arrays, cuts_before))
        assert [each["x"][0] for _, each in found] == expected
        assert [kind for kind, _ in found].index(resuming.BEST) == expected.index(1)
    assert [kind for kind, _ in resuming.in_order(resuming.arrays_of(last, {}, []), 0)] == [resuming.LAST]


@pytest.mark.slow
def test_a_run_that_goes_on_has_its_best_state_from_before_the_cut(tmp_path: Path):
    b = Builder(x=("n", 3, 16, 16))
    graph = b.graph(image_model(b, norms=True))
    folded = METHODS["grid"].prepare(graph)
    feeds = [{"x": b.rng.standard_normal((1, 3, 16, 16)).astype(np.float32)} for _ in range(24)]

    def size_of(graph: Any, plans: Any) -> int:
        found = StreamEncoder(graph, 1).estimate({name: plans[name] for name in graph.weights})
        return sum(stream.sizes.size for stream in found)

    def begun() -> Any:
        return healing.Healing(
            graph, folded, feeds, lossless(folded), size_of, 4700, device="cpu", cut_dead=cut_dead,
            settings=healing.HealSettings(batch=8, fold=0.6, cut=0.8, estimate=1),
            checkpoints=tmp_path, checkpoint_key="same",
        )  # fmt: skip

    run = begun()
    assert run.changed(0.6)
    for name, rows in IMAGES.items():
        kill(run.student, name, rows)
    run.best = replace(run.best, look=replace(run.best.look, damage=math.inf))
    run._seen = run._look(0.7, run._bits())
    run._finish_look()
    best, count = run.best.look, elements(run.student)
    assert run.changed(0.8)
    with torch.no_grad():
        for each in run.student.parameters()["units"]:
            each.mul_(-4)
    run.save()

    again = begun()
    assert elements(again.student) == elements(run.student) < count
    assert again.best.look.damage < again.last.look.damage
    assert (again.best.look.size, again.best.look.damage) == (best.size, pytest.approx(best.damage, rel=1e-3))
    again.save()
    assert begun().best.look == again.best.look


@pytest.mark.parametrize("kind", ["images", "texts"])
def test_a_rounded_state_gives_the_plans_of_the_state_itself(kind: str):
    student, _, _ = trained(kind)
    with torch.no_grad():
        for each in student.parameters()["growth"]:
            each.add_(0.31)
    expected, thin = student.plans(), student.rounded_snapshot()
    other, _, _ = trained(kind)
    resuming.restore(other, thin)
    for name, plan in other.plans().items():
        assert np.array_equal(plan.matrix.values(), expected[name].matrix.values())


def test_a_cut_that_fails_leaves_the_student_as_it_was_and_is_not_tried_again():
    student, feed, others = trained("images")
    before, said = answers(student, feed), []

    def fails(graph: Any, plans: Any, places: Any) -> Any:
        raise RuntimeError("out of memory")

    cutter = midway.MidwayCuts(0.5, fails)
    assert cutter.is_due(0.5, student)
    assert cutter.cut(0.5, student, others, True, said.append) is None
    assert not cutter.is_due(0.9, student)
    assert not cutter.before
    assert "out of memory" in said[0]
    assert np.array_equal(answers(student, feed)[0], before[0])


def test_where_nothing_is_dead_or_norms_still_learn_nothing_is_cut():
    b = Builder(x=("n", 3, 16, 16))
    graph = b.graph(image_model(b, norms=True))
    folded = METHODS["grid"].prepare(graph)
    student = student_graph.StudentGraph(graph, folded, [], True, 0.1, torch.device("cpu"))
    assert student.cut(lossless(folded), cut_dead) is None
    student.fold([])
    assert student.cut(lossless(folded), cut_dead) is None


def test_a_small_bias_is_computed_with_as_it_is_trained():
    b = Builder(x=("n", 3, 16, 16))
    small = b.constant(np.ones((1, 4, 1, 1), np.float32))
    graph = b.graph(b.node("Add", b.conv("x", "few", 4, 3, 3), small))
    student = student_graph.StudentGraph(graph, graph, [], False, 0.1, torch.device("cpu"))
    feed = {"x": torch.zeros(1, 3, 16, 16)}
    weights, _ = student.weights()
    (plain,) = student.run(feed, weights).values()
    (raised,) = student.run(feed, weights | {small: torch.full((1, 4, 1, 1), 3.0)}).values()
    assert small not in graph.weights
    assert torch.allclose(raised, plain + 2)


def test_arrays_of_few_numbers_are_stored_small_and_come_back_as_they_were():
    thin = np.zeros((50, 100), np.float32)
    thin[::7, ::9] = np.random.default_rng(0).standard_normal((8, 12))
    full = np.random.default_rng(1).standard_normal((50, 100)).astype(np.float32)
    arrays = resuming.arrays_of({"thin": thin, "full": full}, {}, [])
    assert sum(each.nbytes for each in arrays.values()) < full.nbytes + 0.1 * thin.nbytes
    found = resuming.state_of(arrays, resuming.LAST)
    assert np.array_equal(found["thin"], thin)
    assert np.array_equal(found["full"], full)


@pytest.mark.parametrize("kind", ["images", "texts"])
def test_a_step_after_a_cut_asks_the_device_for_nothing(kind: str):
    # Else it can't be recorded on a GPU, and takes several times as long; nothing says so there.
    student, feed, others = trained(kind)
    assert student.cut(others, cut_dead) is not None
    asked: list[str] = []

    class Asked(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name = function.overloadpacket.__name__
            if name == "lift_fresh" and not args[0].numel():  # a copy of nothing
                return function(*args, **(kwargs or {}))
            places = args[1] if name in ("index", "index_put", "_index_put_impl_") else ()
            if name in ASKING or any(each is not None and each.dtype == torch.bool for each in places):
                asked.append(name)
            return function(*args, **(kwargs or {}))

    def step() -> None:
        weights, rate = student.weights()
        found = student.run(feed, weights, learn=True)
        (sum(each.square().mean() for each in found.values()) + rate.symbols + rate.structure).backward()

    step()  # what depends on shapes alone is computed once for them
    with Asked():
        step()
        assert asked == []
        bool(torch.ones(2).sum() > 1)
    assert asked
