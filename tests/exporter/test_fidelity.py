"""How far outputs lie apart, and the golden sample that a device repeats."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from seed_exporter import loaders
from seed_exporter.evaluate import compare as fidelity
from seed_exporter.evaluate.model_file import to_model_file
from seed_runtime import backends, generator, golden
from seed_runtime.backends import TensorSpec
from seed_runtime.format.dtypes import BY_NAME
from seed_runtime.golden import Golden, Recipe
from seed_runtime.limits import GOLDEN_ELEMENTS_MAX
from tests.exporter.support.exporting import layers

F32 = BY_NAME["float32"]


def compare(a: np.ndarray, b: np.ndarray) -> fidelity.OutputError:
    return fidelity.compare([{"y": a}], [{"y": b}])["y"]


def array(*values: float) -> np.ndarray:
    return np.array([values], np.float32)


def test_equal_outputs_are_identical() -> None:
    error = compare(array(1, 2, 3), array(1, 2, 3))
    assert (error.relative, error.largest, error.cosine, error.agreement, error.identical) == (0, 0, 1, 1, True)


def test_an_error_is_measured_against_the_original() -> None:
    error = compare(array(3, 4), array(3, 4.5))
    assert error.relative == pytest.approx(0.1)
    assert error.largest == 0.5
    assert 0.99 < error.cosine < 1
    assert error.agreement == 1


def test_minus_zero_is_not_identical_to_zero() -> None:
    error = compare(array(0.0), array(-0.0))
    assert (error.relative, error.identical) == (0, False)


def test_all_calls_count_as_one_vector() -> None:
    calls = [{"y": array(3, 0)}, {"y": array(0, 4)}]
    errors = fidelity.compare(calls, [{"y": array(3, 0)}, {"y": array(4, 0)}])
    assert errors["y"].relative == pytest.approx(32**0.5 / 5)
    assert errors["y"].agreement == 0.5
    assert fidelity.worst_relative(errors) == errors["y"].relative


def test_the_same_infinities_and_nan_are_no_error() -> None:
    odd = array(np.inf, -np.inf, np.nan, 2)
    error = compare(odd, odd.copy())
    assert (error.relative, error.cosine, error.identical) == (0, 1, True)
    assert compare(odd, array(np.inf, -np.inf, np.nan, 1)).relative == 0.5


@pytest.mark.parametrize("other", [array(np.inf, 1), array(np.nan, 1), array(1, 1, 1)])
def test_an_error_without_measure_is_infinite_and_null_in_json(other: np.ndarray) -> None:
    error = compare(array(1, 1), other)
    assert error.relative == float("inf")
    text = json.dumps(error.as_json(), allow_nan=False)
    assert json.loads(text)["relative"] is None


def test_outputs_of_zeros_or_without_elements_divide_by_nothing() -> None:
    assert compare(array(0, 0), array(0, 0)).relative == 0
    assert compare(array(0, 0), array(0, 1)).relative == 1
    empty = np.zeros((0, 4), np.float32)
    assert compare(empty, empty).identical


def test_integers_have_no_agreement() -> None:
    assert compare(np.array([[1, 2]]), np.array([[1, 3]])).agreement is None


# The golden sample


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    to_model_file(loaders.load(layers(rng, 12, 80, 200)), tmp_path)
    return tmp_path


def recipe(*dims: int) -> Recipe:
    return Recipe(generator.NORMAL, F32, dims, 0.0, 1.0)


@pytest.mark.parametrize("mode", ["fast", "lean", "small"])
def test_a_golden_sample_holds_in_every_mode(mode: str, folder: Path) -> None:
    inputs = (recipe(3, 12),)
    made = fidelity.golden_of(folder, inputs, {"x": inputs[0].array(7)}, 7)
    assert made is not None
    packed = made.pack()
    assert len(packed) <= fidelity.GOLDEN_BYTES
    assert Golden.unpack(packed).pack() == packed
    runner = backends.get().open(folder, mode, threads=1)
    verdict = golden.verify(packed, runner)
    runner.close()
    assert (verdict.present, verdict.ok) == (True, True)


def test_a_golden_sample_notices_other_weights(folder: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    inputs = (recipe(3, 12),)
    made = fidelity.golden_of(folder, inputs, {"x": inputs[0].array(7)}, 7)
    assert made is not None
    model = loaders.load(layers(rng, 12, 80, 200))
    (tmp_path / "other").mkdir()
    to_model_file(model, tmp_path / "other")
    runner = backends.get().open(tmp_path / "other", "fast")
    assert not golden.verify(made.pack(), runner).ok
    runner.close()


def test_a_golden_sample_is_the_same_where_one_of_its_modes_ran_before(folder: Path) -> None:
    inputs = (recipe(3, 12),)
    feeds = {"x": inputs[0].array(7)}
    # Behind another input, as the export runs it.
    _, outputs = fidelity.run_all(folder, [{"x": inputs[0].array(8)}, feeds], "fast", 2)
    made = fidelity.golden_of(folder, inputs, feeds, 7, known={("fast", 2): outputs})
    anew = fidelity.golden_of(folder, inputs, feeds, 7)
    assert made is not None
    assert anew is not None
    assert made.pack() == anew.pack()


def run_of(*outputs: np.ndarray) -> list[dict[str, np.ndarray]]:
    return [{f"y{index}": output for index, output in enumerate(outputs)}] * 2


@pytest.mark.parametrize("count", [1, 3, 12])
def test_many_outputs_share_the_bytes_of_the_sample(count: int, rng: np.random.Generator) -> None:
    made = fidelity.golden_from(run_of(*rng.standard_normal((count, 9, 500))), [recipe(1, 4)], 1)
    assert made is not None
    assert len(made.pack()) <= fidelity.GOLDEN_BYTES
    assert len(made.outputs) == count
    assert Golden.unpack(made.pack()).pack() == made.pack()


def test_more_outputs_than_any_sample_holds_give_none(rng: np.random.Generator) -> None:
    assert fidelity.golden_from(run_of(*rng.standard_normal((60, 4))), [recipe(1, 4)], 1) is None


def test_an_input_larger_than_a_device_accepts_gives_none() -> None:
    outputs = run_of(np.ones((1, 4), np.float32))
    assert fidelity.golden_from(outputs, [recipe(GOLDEN_ELEMENTS_MAX)], 1) is not None
    assert fidelity.golden_from(outputs, [recipe(GOLDEN_ELEMENTS_MAX + 1)], 1) is None


@pytest.mark.parametrize("values", [(np.inf, 1), (np.nan, np.nan), (-np.inf, np.inf), (1e300, -1e300), (3e38, 3e38)])
def test_outputs_beyond_all_numbers_still_give_a_sample_that_can_be_read(values: tuple[float, ...]) -> None:
    made = fidelity.golden_from(run_of(np.array([values])), [recipe(1, 4)], 1)
    assert made is not None
    assert Golden.unpack(made.pack()).pack() == made.pack()


def test_wildly_different_runs_still_give_a_tolerance_that_can_be_read() -> None:
    runs = [{"y": np.array([1e38])}, {"y": np.array([-1e38])}]
    made = fidelity.golden_from(runs, [recipe(1, 4)], 1)
    assert made is not None
    assert np.isfinite(Golden.unpack(made.pack()).outputs[0].tolerance)


def test_real_inputs_are_stored_as_their_bytes_in_the_order_of_the_model(rng: np.random.Generator) -> None:
    specs = (TensorSpec("a", "int8", (None,)), TensorSpec("b", "float32", (2, 2)))
    feeds = {"b": rng.standard_normal((2, 2)).astype(np.float32).T, "a": np.arange(5, dtype=np.int8)}
    for made, name in zip(fidelity.supplied(feeds, specs), "ab", strict=True):
        assert np.array_equal(made.array(99), feeds[name])
