"""Ridge regression of a last layer: what it holds, how much, and what it fits."""

from __future__ import annotations

import tracemalloc
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from seed_runtime.errors import MemoryBudgetError
from seed_runtime.memory.process import baseline
from seed_runtime.skeletons.training import TrainedTensor
from seed_runtime.tune import head
from seed_runtime.tune.head import Ridge
from seed_runtime.tune.last_layer import Head
from seed_runtime.tune.micro_batches import Budget
from seed_runtime.tune.rounding import round_differences
from seed_runtime.tune.targets import Task

MB = 1_000_000
PROGRESS: Any = SimpleNamespace(watch=lambda: None, report=lambda step, steps: None, is_over=False)


class Case:
    """Samples of some positions, and a layer on features that are drawn at random."""

    def __init__(self, samples: int, positions: int, width: int, classes: int) -> None:
        rng = np.random.default_rng(0)
        self.features = rng.standard_normal((samples, positions, width)).astype(np.float32)
        self.values = {"w": rng.standard_normal((width, classes)).astype(np.float32)}
        self.values["b"] = rng.standard_normal(classes).astype(np.float32)
        tensors = tuple(TrainedTensor(name, number, "", 0) for number, name in enumerate("wb"))
        target = SimpleNamespace(dims=(None, positions, classes))
        info: Any = SimpleNamespace(axis=2, tensors=tensors, target=target, cross_entropy="train.cross_entropy.2")
        self.model: Any = SimpleNamespace(
            info=info,
            samples=SimpleNamespace(batch_max=None),
            output="y",
            dims_of=lambda hole: self.values["wb"[hole]].shape,
            stored=lambda name: self.values[name].copy(),
        )
        self.task = Task(info, rng.integers(0, classes, (samples, positions)), None)
        self.rows = np.arange(0, samples, 2)
        self.scored = np.arange(1, samples, 2)
        self.ran = list[int]()

    def __call__(self, rows, outputs, targets, values=None) -> list[np.ndarray]:
        self.ran.extend(rows.tolist())
        return [self.features[rows], self.features[rows] @ self.values["w"] + self.values["b"]]

    def ridge(self, budget: Budget | None = None) -> Ridge:
        return Ridge(self.model, self.task, self.rows, self.scored, budget or Budget(None, None))

    def fitted(self) -> list[dict[str, np.ndarray]]:
        ridge = self.ridge()
        ridge.compute(self)
        found = ridge.find()
        assert found is not None
        return list(ridge.fit(found, PROGRESS))


@pytest.mark.parametrize("at_once", [1, 7, None])
def test_no_more_positions_are_held_than_are_fitted_however_few_samples_are_run_at_once(
    at_once: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "ROWS_MAX", 40)
    case = Case(400, 6, 8, 3)
    case.model.samples.batch_max = at_once
    ridge = case.ridge()
    ridge.compute(case)
    assert ridge._x.shape == (40, 9)
    trained = [row for row in case.ran if row % 2 == 0]
    assert len(set(trained)) == 40  # and the 160 others of them aren't run
    places = [np.argwhere((case.features == row[:8]).all(axis=2))[0] for row in ridge._x]
    assert {position for _, position in places} == set(range(6))
    assert [sample for sample, _ in places] == sorted(set(trained))


@pytest.mark.parametrize(("samples", "width"), [(200, 30), (40, 90)])
def test_blocks_of_any_size_fit_the_same_heads(samples: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(samples, 2, width, 4)
    whole = case.fitted()
    monkeypatch.setattr(head, "WINDOW", 64)
    for one, other in zip(whole, case.fitted(), strict=True):
        for name in "wb":
            np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("samples", "width"), [(3000, 100), (600, 700)])
def test_fitting_takes_no_more_memory_than_is_counted_before(
    samples: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "WINDOW", 1 << 13)
    monkeypatch.setattr(head, "REGRESSIONS", 2)
    case, counted = Case(samples, 1, width, 40), list[int]()
    monkeypatch.setattr(Budget, "check", lambda self, what, more: counted.append(more))
    tracemalloc.start()
    ridge = case.ridge()
    ridge.compute(case)
    found = ridge.find()
    assert found is not None
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    for _values in ridge.fit(found, PROGRESS):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak - before <= counted[-1] == ridge.fitting_bytes
    assert peak <= counted[0] + MB / 2
    assert counted[0] - counted[-1] < 1.2 * 4 * samples * (width + 40)


@pytest.mark.parametrize("classes", [3, 300])
def test_rounding_takes_no_more_memory_than_is_counted_before(classes: int) -> None:
    case = Case(40, 1, 300, classes)
    ridge = case.ridge()
    ridge.compute(case)
    found = ridge.find()
    assert found is not None
    inputs, values = ridge.inputs(found), {name: value + 1 for name, value in case.values.items()}
    tracemalloc.start()
    round_differences(case.model.stored, values, 1.0, inputs)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak + ridge.head_bytes <= ridge.fitting_bytes  # the values themselves are counted as well


def test_what_is_certain_to_be_held_is_refused_before_anything_is_run() -> None:
    case = Case(1600, 1, 1280, 100)
    with pytest.raises(MemoryBudgetError, match="fitting the last layer"):
        case.ridge(Budget(baseline().resident + 20 * MB, None))
    assert not case.ran


def test_features_that_are_not_finite_are_named_as_the_problem() -> None:
    case = Case(20, 1, 8, 3)
    case.features[4] = np.inf
    ridge = case.ridge()
    with np.errstate(invalid="ignore"):
        ridge.compute(case)
    assert ridge.find() is None
    assert "NaN or infinities" in ridge.problem


@pytest.mark.parametrize("matrix", [(8, 4), (0, 3)])
def test_tensors_of_other_shapes_are_no_last_layer_and_nothing_is_run(matrix: tuple[int, int]) -> None:
    case = Case(20, 1, 8, 3)
    case.values["w"] = np.zeros(matrix, np.float32)
    ridge = case.ridge()
    assert "isn't linear" in ridge.problem
    assert ridge.find() is None


def test_a_square_matrix_is_taken_the_way_that_gives_the_outputs() -> None:
    case = Case(40, 1, 5, 5)
    ridge = case.ridge()
    ridge.compute(case)
    found = ridge.find()
    assert isinstance(found, Head)
    assert not found.is_transposed


@pytest.mark.parametrize(("width", "axes"), [(8, 2), (1, 2), (8, 3)])
def test_a_bias_may_have_axes_of_one_for_samples_and_positions(width: int, axes: int) -> None:
    case = Case(40, 2, width, 3)
    flat = case.fitted()
    case.values["b"] = case.values["b"].reshape([1] * (axes - 1) + [3])
    for one, other in zip(case.fitted(), flat, strict=True):
        assert one["b"].shape == case.values["b"].shape
        np.testing.assert_array_equal(one["b"].reshape(-1), other["b"])
        np.testing.assert_array_equal(one["w"], other["w"])
