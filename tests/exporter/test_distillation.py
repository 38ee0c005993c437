"""Training a seed's integers in torch: rate, batches, and what comes out. Skipped without torch."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from seed_exporter import heal, loaders
from seed_exporter.build.streams import StreamEncoder, restored
from seed_exporter.codecs.grid import GridPlan
from seed_exporter.graph.model import Graph
from seed_exporter.quantize import allocate
from seed_runtime.codecs.encode import grid, symbols
from seed_runtime.codecs.encode.grid import QuantizedMatrix
from seed_runtime.errors import UnsupportedError, UsageError
from tests.exporter.support.gradients import session, whole

RNG_SEED = 11
INPUTS, HIDDEN, CLASSES = 24, 64, 6


def classifier(activation: str = "Relu") -> Graph:
    """Return two layers before a softmax, whose rows differ by two orders of magnitude."""
    rng = np.random.default_rng(RNG_SEED)
    first = rng.standard_normal((INPUTS, HIDDEN)) / 4
    second = rng.standard_normal((HIDDEN, CLASSES)) * np.exp(rng.standard_normal((HIDDEN, 1))) / 4
    bias = rng.standard_normal(HIDDEN)
    arrays = {"first": first, "bias": bias, "second": second}
    weights = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["a"], name="one"),
        helper.make_node("Add", ["a", "bias"], ["b"]),
        helper.make_node(activation, ["b"], ["c"]),
        helper.make_node("MatMul", ["c", "second"], ["d"], name="two"),
        helper.make_node("Softmax", ["d"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", INPUTS])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", CLASSES])
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    return loaders.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9))


def recurrent_classifier() -> Graph:
    """Return a GRU over the quarters of the inputs, and a softmax of its last state."""
    rng = np.random.default_rng(RNG_SEED)
    shapes = {"first": (1, 3 * HIDDEN, INPUTS // 4), "states": (1, 3 * HIDDEN, HIDDEN), "second": (HIDDEN, CLASSES)}
    arrays = {name: rng.standard_normal(shape).astype(np.float32) / 3 for name, shape in shapes.items()}
    arrays["steps"] = np.array([0, 4, INPUTS // 4])
    arrays["ways"] = np.array([0])
    nodes = [
        helper.make_node("Reshape", ["x", "steps"], ["a"]),
        helper.make_node("Transpose", ["a"], ["b"], perm=[1, 0, 2]),
        helper.make_node("GRU", ["b", "first", "states"], ["", "c"], name="one", hidden_size=HIDDEN),
        helper.make_node("Squeeze", ["c", "ways"], ["d"]),
        helper.make_node("MatMul", ["d", "second"], ["e"], name="two"),
        helper.make_node("Softmax", ["e"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", INPUTS])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", CLASSES])
    weights = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    return loaders.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9))


def inputs(count: int, rng_seed: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(rng_seed)
    return [{"x": rng.standard_normal((1, INPUTS)).astype(np.float32)} for _ in range(count)]


def start(graph: Graph) -> dict:
    return allocate.uniform(graph, {"first": 0.4, "second": 0.4}, 1.0, 10)


def size_of(graph: Graph):
    encoder = StreamEncoder(graph, 1)
    return lambda plans: sum(stream.sizes.size for stream in encoder.estimate(plans))


def kl(graph: Graph, plans: dict) -> float:
    original = session(whole(graph))
    model = whole(graph)
    for tensor in model.graph.initializer:
        if tensor.name in plans:
            data = restored(graph.weights[tensor.name], plans[tensor.name]).reshape(tuple(tensor.dims))
            tensor.CopyFrom(numpy_helper.from_array(data.astype(np.float32), tensor.name))
    candidate = session(model)
    x = np.concatenate([feed["x"] for feed in inputs(400, 99)])
    p, q = original.run(None, {"x": x})[0], candidate.run(None, {"x": x})[0]
    return float((p * np.log(np.maximum(p, 1e-7) / np.maximum(q, 1e-7))).sum(-1).mean())


def trained(graph: Graph, goal: float = 1.0, steps: int = 100, feeds: list | None = None, **keywords):
    distillation = pytest.importorskip("seed_exporter.heal.distillation", exc_type=ImportError)
    settings = distillation.Settings(steps=steps, batch=16, step_rate=2e-3, unit_rate=0.02)
    plans, size = start(graph), size_of(graph)
    bytes_at_most = int(goal * size(plans))
    feeds = feeds or inputs(128, 1)
    return heal.distill(graph, plans, feeds, size, bytes_at_most, settings=settings, **keywords), bytes_at_most


def test_without_torch_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "seed_exporter.heal.distillation", raising=False)
    with pytest.raises(UsageError, match=r"seed-runtime\[torch\].*--effort"):
        heal.distill  # noqa: B018


@pytest.mark.slow
def test_the_rate_is_the_coders_and_its_gradient_that_of_the_interpolated_code_length() -> None:
    torch = pytest.importorskip("torch")
    from seed_exporter.heal.rate import RateModel

    rng = np.random.default_rng(RNG_SEED)
    values = rng.laplace(size=(600, 600)) * np.exp(rng.standard_normal((600, 1)))
    integers = np.rint(values).astype(np.int32)
    model = RateModel(torch.device("cpu"))
    model.renew([integers])
    flat = torch.from_numpy(integers.astype(np.float32).reshape(-1))
    coded = symbols.estimate([grid.matrix_of(QuantizedMatrix(integers, 1.0))]).size
    assert model.bits_of(flat) / 8 == pytest.approx(coded, rel=0.02)
    assert float(model.bits(flat)) == pytest.approx(model.bits_of(flat), rel=1e-3)

    units = torch.from_numpy((values.reshape(-1)[:50] + 0.25).astype(np.float64)).requires_grad_()
    model = RateModel(torch.device("cpu"))
    model.renew([integers.reshape(-1)[None, :50]])
    model.bits(units).backward()
    with torch.no_grad():
        for index in range(50):
            low, high = units.detach().clone(), units.detach().clone()
            low[index] = low[index].floor()
            high[index] = low[index] + 1
            expected = float(model.bits(high) - model.bits(low))
            assert float(units.grad[index]) == pytest.approx(expected, abs=0.02)


@pytest.mark.slow
def test_trained_plans_are_smaller_than_their_start_and_do_less_damage_on_new_inputs_every_time_the_same() -> None:
    graph = classifier()
    plans, goal = trained(graph, goal=0.85)
    assert size_of(graph)(plans) <= goal
    assert kl(graph, plans) < kl(graph, start(graph))
    again, _ = trained(graph, goal=0.85)
    for name, plan in plans.items():
        assert isinstance(plan, GridPlan)
        assert plan.step == again[name].step
        np.testing.assert_array_equal(plan.matrix.integers, again[name].matrix.integers)


@pytest.mark.slow
def test_a_recurrent_layer_of_which_only_the_last_state_is_read_is_trained() -> None:
    distillation = pytest.importorskip("seed_exporter.heal.distillation", exc_type=ImportError)
    graph = recurrent_classifier()
    plans = allocate.uniform(graph, dict.fromkeys(("first", "states", "second"), 0.3), 1.0, 10)
    size = size_of(graph)
    settings = distillation.Settings(steps=30, step_rate=2e-3, unit_rate=0.02)
    found = heal.distill(graph, plans, inputs(64, 1), size, size(plans), settings=settings)
    assert size(found) <= size(plans)
    assert kl(graph, found) < kl(graph, plans)


@pytest.mark.slow
def test_layers_of_the_original_are_not_held_for_the_inputs_that_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    distillation = pytest.importorskip("seed_exporter.heal.distillation", exc_type=ImportError)
    held: set[str] = set()
    train = distillation._Run.train

    def looked_at(run: Any, *arguments: Any) -> Any:
        assert run.layers
        held.update(*run.held.expected, *run.out_of_domain.expected)
        return train(run, *arguments)

    monkeypatch.setattr(distillation._Run, "train", looked_at)
    trained(classifier(), steps=1, out_of_domain=inputs(20, 2))
    assert held == {"y"}


@pytest.mark.slow
def test_training_stops_when_it_is_told_to() -> None:
    seen = []
    trained(classifier(), stop=lambda: True, progress=lambda share, damage: seen.append(share))
    assert seen == [0.01]


@pytest.mark.slow
def test_what_is_learned_of_one_kind_of_inputs_is_not_kept_where_another_kind_pays_for_it() -> None:
    graph = classifier()
    narrow = [{"x": feed["x"] * (np.arange(INPUTS) < 3)} for feed in inputs(64, 1)]
    alone, _ = trained(graph, goal=0.98, feeds=narrow)
    assert kl(graph, alone) > 1.5 * kl(graph, start(graph))
    guarded, _ = trained(graph, goal=0.98, feeds=narrow, out_of_domain=inputs(200, 2))
    assert kl(graph, guarded) < 1.2 * kl(graph, start(graph))


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after", "kept"), [(1e9, math.nan, False), (math.nan, 0.0, True)])
def test_outputs_that_are_no_numbers_on_another_kind_of_inputs_are_refused(
    before: float, after: float, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    distillation = pytest.importorskip("seed_exporter.heal.distillation", exc_type=ImportError)
    damages = iter([before])
    monkeypatch.setattr(distillation._Run, "out_of_domain_damage", lambda _: next(damages, after))
    graph = classifier()
    plans, _ = trained(graph, steps=50)
    assert (plans != start(graph)) == kept


@pytest.mark.slow
def test_under_a_limit_of_time_training_reaches_its_size_in_the_steps_that_there_are() -> None:
    graph, done = classifier(), []

    def stopped(**keywords):
        done.clear()
        return trained(graph, goal=0.78, steps=5000, stop=lambda: done.append(0) or len(done) >= 150, **keywords)

    assert stopped()[0] == start(graph)
    plans, goal = stopped(spent=lambda: len(done) / 150)
    assert plans != start(graph)
    assert size_of(graph)(plans) <= goal


@pytest.mark.slow
def test_where_training_does_not_reach_the_size_the_plans_stay() -> None:
    graph = classifier()
    plans, _ = trained(graph, goal=0.5, stop=lambda: True)
    assert plans == start(graph)


@pytest.mark.slow
def test_an_operator_that_torch_does_not_know_is_named() -> None:
    with pytest.raises(UnsupportedError, match="Hardmax"):
        trained(classifier("Hardmax"))
