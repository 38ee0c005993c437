"""The golden sample that a device repeats: small, tolerant between modes, and sensitive to other weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from seed_exporter import loaders
from seed_exporter.evaluate.golden import GOLDEN_BYTES, golden_from_runs, make_golden, recipes_from_feeds
from seed_exporter.evaluate.model_files import write_model_files
from seed_exporter.evaluate.run import run_all
from seed_runtime import backends, generator, golden
from seed_runtime.backends import TensorSpec
from seed_runtime.format.dtypes import BY_NAME
from seed_runtime.golden import Golden, Recipe
from seed_runtime.limits import GOLDEN_ELEMENTS_MAX
from tests.exporter.support.exporting import layers

F32 = BY_NAME["float32"]


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    write_model_files(loaders.load(layers(rng, 12, 80, 200)), tmp_path)
    return tmp_path


def recipe(*dims: int) -> Recipe:
    return Recipe(generator.NORMAL, F32, dims, 0.0, 1.0)


@pytest.mark.parametrize("mode", ["fast", "lean", "small"])
def test_a_golden_sample_holds_in_every_mode(mode: str, folder: Path) -> None:
    inputs = (recipe(3, 12),)
    made = make_golden(folder, inputs, {"x": inputs[0].array(7)}, 7)
    assert made is not None
    packed = made.pack()
    assert len(packed) <= GOLDEN_BYTES
    assert Golden.unpack(packed).pack() == packed
    runner = backends.get().open(folder, mode, threads=1)
    verdict = golden.verify(packed, runner)
    runner.close()
    assert (verdict.present, verdict.ok) == (True, True)


def test_a_golden_sample_notices_other_weights(folder: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    inputs = (recipe(3, 12),)
    made = make_golden(folder, inputs, {"x": inputs[0].array(7)}, 7)
    assert made is not None
    model = loaders.load(layers(rng, 12, 80, 200))
    (tmp_path / "other").mkdir()
    write_model_files(model, tmp_path / "other")
    runner = backends.get().open(tmp_path / "other", "fast")
    assert not golden.verify(made.pack(), runner).ok
    runner.close()


def test_a_golden_sample_is_the_same_where_one_of_its_modes_ran_before(folder: Path) -> None:
    inputs = (recipe(3, 12),)
    feeds = {"x": inputs[0].array(7)}
    # Behind another input, as the export runs it.
    _, outputs = run_all(folder, [{"x": inputs[0].array(8)}, feeds], "fast", 2)
    made = make_golden(folder, inputs, feeds, 7, known={("fast", 2): outputs})
    again = make_golden(folder, inputs, feeds, 7)
    assert made is not None
    assert again is not None
    assert made.pack() == again.pack()


def run_of(*outputs: np.ndarray) -> list[dict[str, np.ndarray]]:
    return [{f"y{index}": output for index, output in enumerate(outputs)}] * 2


@pytest.mark.parametrize("count", [1, 3, 12])
def test_many_outputs_share_the_bytes_of_the_sample(count: int, rng: np.random.Generator) -> None:
    made = golden_from_runs(run_of(*rng.standard_normal((count, 9, 500))), [recipe(1, 4)], 1)
    assert made is not None
    assert len(made.pack()) <= GOLDEN_BYTES
    assert len(made.outputs) == count
    assert Golden.unpack(made.pack()).pack() == made.pack()


def test_more_outputs_than_any_sample_holds_give_none(rng: np.random.Generator) -> None:
    assert golden_from_runs(run_of(*rng.standard_normal((60, 4))), [recipe(1, 4)], 1) is None


def test_an_input_larger_than_a_device_accepts_gives_none() -> None:
    outputs = run_of(np.ones((1, 4), np.float32))
    assert golden_from_runs(outputs, [recipe(GOLDEN_ELEMENTS_MAX)], 1) is not None
    assert golden_from_runs(outputs, [recipe(GOLDEN_ELEMENTS_MAX + 1)], 1) is None


@pytest.mark.parametrize("values", [(np.inf, 1), (np.nan, np.nan), (-np.inf, np.inf), (1e300, -1e300), (3e38, 3e38)])
def test_output_files_beyond_all_numbers_still_give_a_sample_that_can_be_read(values: tuple[float, ...]) -> None:
    made = golden_from_runs(run_of(np.array([values])), [recipe(1, 4)], 1)
    assert made is not None
    assert Golden.unpack(made.pack()).pack() == made.pack()


@pytest.mark.parametrize("mask", [np.finfo(np.float32).min, -1e9, -np.inf])
def test_masks_leave_the_tolerance_of_all_others_small(mask: float, rng: np.random.Generator) -> None:
    plain = rng.standard_normal((2, 90)).astype(np.float32)
    masked = np.where(np.arange(90) % 2 == 0, plain, np.float32(mask))
    tolerances = [
        made.outputs[0].tolerance
        for output in (plain, masked)
        if (made := golden_from_runs(run_of(output), [recipe(1, 4)], 1)) and made.outputs[0]
    ]
    assert tolerances[1] == pytest.approx(tolerances[0], rel=0.5)


def test_wildly_different_runs_still_give_a_tolerance_that_can_be_read() -> None:
    runs = [{"y": np.array([1e38])}, {"y": np.array([-1e38])}]
    made = golden_from_runs(runs, [recipe(1, 4)], 1)
    assert made is not None
    assert np.isfinite(Golden.unpack(made.pack()).outputs[0].tolerance)


def test_real_inputs_are_stored_as_their_bytes_in_the_order_of_the_model(rng: np.random.Generator) -> None:
    specs = (TensorSpec("a", "int8", (None,)), TensorSpec("b", "float32", (2, 2)))
    feeds = {"b": rng.standard_normal((2, 2)).astype(np.float32).T, "a": np.arange(5, dtype=np.int8)}
    for made, name in zip(recipes_from_feeds(feeds, specs), "ab", strict=True):
        assert np.array_equal(made.array(99), feeds[name])
