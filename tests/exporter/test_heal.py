"""Healing in torch: the rate and its gradient, exact rounding, batch norms, the controller. Skipped without torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from seed_exporter.build.streams import StreamEncoder, restored
from seed_exporter.codecs.base import Plan
from seed_exporter.codecs.grid import GridPlan
from seed_exporter.graph.fold import fold_batch_norms
from seed_exporter.graph.model import Graph
from seed_exporter.quantize.allocate import lossless
from seed_runtime.errors import InputError, UnsupportedError
from tests.exporter.support.convolutions import CHANNELS, convolutions, inputs
from tests.exporter.support.gradients import session, whole

torch = pytest.importorskip("torch", exc_type=ImportError)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Let torch compute in one thread: tensors are tiny, and several threads wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def healing(graph: Graph, goal: int | None = None, feeds: list | None = None, **keywords: Any):
    """Return a run that isn't trained yet; its sizes are those of the streams alone."""
    from seed_exporter.heal.healing import Healing
    from seed_exporter.heal.settings import HealSettings

    folded = fold_batch_norms(graph)
    encoder = StreamEncoder(folded, 1)

    def size_of(_: Graph, plans: dict) -> int:
        return sum(stream.sizes.size for stream in encoder.estimate(plans))

    settings = HealSettings(**{"steps": 60, "batch": 16, "looks": 8, "estimate": 4, **keywords})
    return Healing(
        graph, folded, feeds or inputs(64), lossless(folded), size_of, goal or 2200, settings=settings, device="cpu"
    )


def kl(graph: Graph, coded: Graph, plans: Mapping[str, Plan]) -> float:
    """Measure KL to the original on new inputs, of the model that a decoder makes."""
    model = whole(coded)
    for tensor in model.graph.initializer:
        if tensor.name in plans:
            data = restored(coded.weights[tensor.name], plans[tensor.name]).reshape(tuple(tensor.dims))
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(data), tensor.name))
    x = np.concatenate([feed["x"] for feed in inputs(300, 99)])
    p, q = (session(each).run(None, {"x": x})[0] for each in (whole(graph), model))
    return float((p * np.log(p / q)).sum(-1).mean())


@pytest.mark.slow
def test_the_gradient_of_the_rate_is_that_of_the_logistic_written_plainly() -> None:
    from seed_exporter.heal.logistic import QuantizedRate

    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Any:
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    parts = [draw(2, 5, 4, 3), draw(2), draw(2, 5), draw(2, 4), draw(2, 3)]
    upstream = torch.randn((2, 5, 4, 3), generator=generator, dtype=torch.float64)
    rounded, bits, living, _ = QuantizedRate.apply(*parts, 8.0)
    (2.0 * bits + (rounded * upstream).sum() + 0.5 * living).backward()
    found = [part.grad.clone() for part in parts]

    units, growth, rows, columns, taps = (part.detach().clone().requires_grad_() for part in parts)
    steps = units * torch.exp(-growth)[:, None, None, None]
    scale = torch.exp(rows[:, :, None, None] + columns[:, None, :, None] + taps[:, None, None, :])
    chance = torch.sigmoid((steps.abs() + 0.5) / scale) - torch.sigmoid((steps.abs() - 0.5) / scale)
    plain = -torch.log2(chance).sum()
    through = steps + (steps.round() - steps).detach()
    peaks = steps.abs().amax((2, 3)).clamp(max=1).sum() + 0.25 * steps.abs().amax((1, 3)).clamp(max=1).sum()
    (2.0 * plain + (through * upstream).sum() + 0.5 * 8.0 * peaks).backward()
    assert float(bits.detach()) == pytest.approx(float(plain.detach()))
    for mine, expected in zip(found, (units, growth, rows, columns, taps), strict=True):
        torch.testing.assert_close(mine, expected.grad, rtol=1e-8, atol=1e-8)


@pytest.mark.slow
def test_the_rate_of_an_outlier_is_finite_and_keeps_its_gradient() -> None:
    from seed_exporter.heal.logistic import QuantizedRate

    units = torch.full((1, 1, 1, 1), 1e4).requires_grad_()
    zeros = [torch.zeros(1), *(torch.full((1, 1), -2.0) for _ in range(3))]
    _, bits, _, _ = QuantizedRate.apply(units, *zeros, 8.0)
    bits.backward()
    assert math.isfinite(float(bits.detach()))
    assert float(units.grad) > 1


@pytest.mark.slow
@pytest.mark.parametrize("with_norms", [True, False])
def test_the_weights_that_training_saw_are_what_a_decoder_makes_bit_for_bit(with_norms: bool) -> None:
    graph = convolutions(np.random.default_rng(3))
    run = healing(graph if with_norms else fold_batch_norms(graph))
    assert (run.student.norms is not None) == with_norms
    run.run(lambda: False, None)
    seen, _ = run.student.weights()
    assert run.student.is_folded
    assert run.last.graph.weights.keys() == seen.keys()
    for name, weight in run.last.graph.weights.items():
        decoded = restored(weight, run.last.plans[name]).reshape(weight.shape)
        np.testing.assert_array_equal(seen[name].detach().numpy(), decoded, err_msg=name)
    with torch.no_grad():
        answers = run.student.run(run.held.batches[0], seen)["y"].numpy()
    model = whole(run.last.graph)
    for tensor in model.graph.initializer:
        if tensor.name in seen:
            tensor.CopyFrom(numpy_helper.from_array(seen[tensor.name].detach().numpy(), tensor.name))
    np.testing.assert_allclose(session(model).run(None, {"x": run.held.batches[0]["x"].numpy()})[0], answers, atol=1e-5)


@pytest.mark.slow
def test_folding_batch_norms_changes_answers_no_more_than_rounding_their_vectors_does() -> None:
    run = healing(convolutions(np.random.default_rng(3)))
    feed = run.held.batches[0]
    run.student.norms.start_estimate(0)
    with torch.no_grad():
        before = run.student.run(feed, run.student.weights()[0], learn=True)["y"]
        run.student.norms.end_estimate()
        run.student.fold([feed])
        after = run.student.run(feed, run.student.weights()[0])["y"]
    assert float((before - after).abs().max()) < 0.1
    assert run.student.is_folded


@pytest.mark.slow
def test_healing_reaches_a_size_at_far_less_damage_than_rounding_to_it_does() -> None:
    graph = convolutions(np.random.default_rng(3))
    run = healing(graph, goal=1500, steps=120, feeds=inputs(128))
    assert run.best.look.size > run.goal
    run.run(lambda: False, None)
    assert run.best.look.size <= run.goal
    assert run.best.look.size > 0.8 * run.goal
    folded = fold_batch_norms(graph)
    matrices = {name: float(weight.data.std()) for name, weight in folded.weights.items() if weight.data.ndim > 1}
    rounded = dict(lossless(folded))
    for coarseness in np.geomspace(0.3, 3, 40):
        rounded |= {name: GridPlan(coarseness * scale) for name, scale in matrices.items()}
        if run._size_of(graph, rounded) <= run.best.look.size:
            break
    assert kl(graph, run.best.graph, run.best.plans) < 0.5 * kl(graph, folded, rounded)


@pytest.mark.slow
@pytest.mark.parametrize("folded", [False, True])
def test_a_snapshot_restores_what_would_be_coded(folded: bool) -> None:
    graph = convolutions(np.random.default_rng(3))
    run = healing(graph, steps=8)
    if folded:
        run.run(lambda: False, None)
    snapshot, plans = run.student.snapshot(), run.student.plans()
    other = healing(graph)
    other.student.restore(snapshot)
    for name, plan in other.student.plans().items():
        np.testing.assert_array_equal(plan.matrix.integers, plans[name].matrix.integers)
        assert plan.step == plans[name].step


@pytest.mark.slow
def test_a_row_without_integers_gives_zeros_behind_its_batch_norm() -> None:
    run = healing(convolutions(np.random.default_rng(3)))
    with torch.no_grad():
        stack = next(each for each in run.student.matrices._stacks if each.weights[0].name == "k0")
        stack.units[0, 4] = 0.0
        run.student.fold([run.batch()])
    plans = run.student.plans()
    graph = run.student.finished()
    convolution = next(node for node in graph.model.graph.node if "k0" in node.input)
    bias = restored(graph.weights[convolution.input[2]], plans[convolution.input[2]])
    assert bias.reshape(-1)[4] == 0
    assert np.count_nonzero(bias) > CHANNELS / 2


@pytest.mark.slow
def test_labels_add_to_the_loss_and_mixed_inputs_have_none() -> None:
    from seed_exporter.heal.losses import UNLABELLED, cross_entropy, labelled_output

    scores = torch.tensor([[0.1, 0.9], [0.5, 0.5]])
    lost = cross_entropy(torch.tensor([1, UNLABELLED]), scores, True)
    assert float(lost) == pytest.approx(-math.log(0.9), rel=1e-5)
    assert float(cross_entropy(torch.tensor([UNLABELLED, 7]), scores, True)) == 0
    assert labelled_output(torch.tensor([0, 1]), {"y": scores}, ["y"]) == "y"
    assert labelled_output(torch.tensor([0, 1, 0]), {"y": scores}, ["y"]) is None


@pytest.mark.slow
def test_a_shift_of_all_scores_hides_no_lost_decision() -> None:
    from seed_exporter.heal.losses import damage

    original = {"y": torch.tensor([[-20.0, -19.0, -14.0], [-20.0, -15.0, -19.0]])}
    swapped = {"y": original["y"].flip(1)}
    shifted = {"y": original["y"] + 15.0}
    assert damage(original, swapped, ["y"]) < damage(original, shifted, ["y"])
    assert damage(original, swapped, ["y"], {"y"}) > 10 * damage(original, shifted, ["y"], {"y"})


@pytest.mark.slow
def test_bad_data_and_unknown_operators_are_named() -> None:
    graph = convolutions(np.random.default_rng(3))
    with pytest.raises(InputError, match="at least 16 inputs"):
        healing(graph, feeds=inputs(15))
    feeds = inputs(32)
    feeds[0]["x"][:] = 3e38
    with pytest.raises(InputError, match="NaN or infinity in its output 'y'"):
        healing(graph, feeds=feeds)
    with pytest.raises(UnsupportedError, match=r"Hardmax.*no --heal"):
        healing(convolutions(np.random.default_rng(3), "Hardmax"))


def bits_of_a_run(controller: Any, steps: int, slowness: float) -> list[float]:
    """Return the bits of weights that follow the price late, as a share of the goal."""
    bits, speed, found = 100.0, 0.0, []
    for step in range(steps):
        share = (step + 1) / steps
        pull = math.log(max(controller.price, 1e-30) / 1e-6) - 2 * math.log(100 / bits)
        speed += (pull - speed) / slowness
        bits *= math.exp(-0.01 * max(speed, -1.0))
        controller.move(bits, share)
        found.append(bits)
    return found


@pytest.mark.parametrize("lag", [0.003, 0.01, 0.03])
def test_the_bits_stay_at_their_goal_while_learning_rates_fall_and_the_price_has_to_fall_with_them(lag: float) -> None:
    from seed_exporter.heal.controller import Controller

    controller, bits, steps, found = Controller(100, 20, 0.5, 0.5), 100.0, 800, []
    controller.start(1e-6, 1e-5)
    for step in range(steps):
        share = (step + 1) / steps
        wanted = math.log(20) - math.log(controller.price / 1e-6) - 3 * max(0.0, share - 0.5)
        learning = min(1.0, max(0.02, 2 * (1 - share)))
        speed = max(-12.0, min(12.0, (wanted - math.log(bits)) / lag * learning))
        bits *= math.exp(speed / steps)
        controller.move(bits, share)
        found.append(bits)
    late = found[int(0.7 * steps) :]
    assert min(late) > 0.98 * 20
    assert max(late) < 1.02 * 20


def test_gradients_are_counted_and_those_that_are_no_numbers_were_left_out() -> None:
    from seed_exporter.heal.gradient_norms import GradientNorms

    norms = GradientNorms(torch.device("cpu"))
    for norm in (2.0, float("nan"), 4.0, float("inf")):
        norms.add(torch.tensor(norm))
    assert norms.read() == (3.0, 2)
    norms.add(torch.tensor(5.0))
    assert norms.read() == (5.0, 2)


def test_steps_are_coarsened_by_no_more_than_the_bytes_need() -> None:
    from seed_exporter.heal.squeeze import least_places

    asked = []

    def size_at(places: int) -> int:
        asked.append(places)
        return round(1000 * 0.96**places)

    assert least_places(size_at, 900) == 3
    assert len(asked) <= 5
    assert least_places(size_at, 100) == 0


@pytest.mark.parametrize("steps", [200, 3000])
def test_the_bits_reach_their_goal_by_the_end_of_the_descent_and_do_not_fall_far_below(steps: int) -> None:
    from seed_exporter.heal.controller import Controller

    controller = Controller(100, 20, 0.5)
    controller.start(1e-6, 1e-5)
    found = bits_of_a_run(controller, steps, slowness=steps / 200)
    assert found[int(0.6 * steps)] < 25
    assert min(found) > 15
    assert found[-1] == pytest.approx(20, rel=0.1)
