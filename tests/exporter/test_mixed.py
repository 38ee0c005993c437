"""Mixed calls: made of few given ones, and judged beside them where a line decides the size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from seed_exporter.evaluate import mixed
from seed_exporter.evaluate.line import line_by_outputs
from seed_exporter.evaluate.mixed import Mixed, mix
from seed_exporter.evaluate.samples import CALLS_MAX
from seed_exporter.report import text
from seed_runtime.backends import Feeds
from seed_runtime.errors import InputError
from tests.exporter.support.exporting import quick_export


def same(feeds: Feeds) -> dict[str, Any]:
    """A model that returns its inputs."""
    return dict(feeds)


def calls(count: int, *shape: int) -> list[dict[str, np.ndarray]]:
    """Calls of an input whose every number says which call and which element it is of."""
    size = int(np.prod(shape))
    return [{"x": (1000 * number + np.arange(size, dtype=np.float32)).reshape(shape)} for number in range(count)]


def test_a_mix_is_the_beginning_of_one_call_and_a_stretch_of_another() -> None:
    made = mix(calls(3, 1, 40), 30, same)
    assert len(made.feeds) == len(made.outputs) == 30
    for number, each in enumerate(made.feeds):
        values = each["x"][0]
        begin = int(np.argmax(values // 1000 != number % 3))
        assert 10 <= begin <= 30
        assert values[:begin].tolist() == [1000 * (number % 3) + index for index in range(begin)]
        assert np.diff(values[begin:]).tolist() == [1.0] * (39 - begin)
    again = mix(calls(3, 1, 40), 30, same)
    assert all(np.array_equal(one["x"], two["x"]) for one, two in zip(made.feeds, again.feeds, strict=True))


def test_inputs_of_one_call_are_cut_at_the_same_place_and_single_elements_stay() -> None:
    one, two = ({"ids": np.full((1, 20), n), "mask": np.full((1, 20), n), "scale": np.array(n)} for n in (1, 2))
    for number, each in enumerate(mix([one, two], 10, same).feeds):
        assert np.array_equal(each["ids"], each["mask"])
        assert set(each["ids"][0]) == {1, 2}
        assert each["scale"] == 1 + number % 2


def test_pictures_are_cut_along_their_longer_side_and_samples_of_a_batch_keep_their_places() -> None:
    pictures = [{"x": np.full((8, 3, 4, 6), number)} for number in range(2)]
    for each in mix(pictures, 4, same).feeds:
        assert (each["x"] == each["x"][:1, :1, :1]).all()
        assert set(each["x"][0, 0, 0]) == {0, 1}


def test_a_call_without_another_of_its_shape_is_mixed_with_itself() -> None:
    made = mix([*calls(1, 1, 40), *calls(1, 1, 30)], 8, same)
    assert made.feeds
    for each in made.feeds:
        size = each["x"].size
        assert size in (30, 40)
        assert sorted({*each["x"][0]}) != list(range(size))


def test_texts_keep_their_length() -> None:
    one, two = ({"s": np.array([[word] * 4])} for word in ("a", "a long word"))
    assert {word for each in mix([one, two], 4, same).feeds for word in each["s"][0]} == {"a", "a long word"}


def test_there_are_none_where_nothing_can_be_mixed() -> None:
    assert mix(calls(3, 1, 1), 8, same) == Mixed()
    assert mix([{"x": np.zeros((1, 9))}] * 2, 8, same) == Mixed()
    assert mix([{"x": np.zeros((0, 9))}] * 2, 8, same) == Mixed()


def test_mixes_that_the_original_makes_nan_or_infinities_of_judge_nothing() -> None:
    def root(feeds: Feeds) -> dict[str, Any]:
        return {"y": np.sqrt(feeds["x"] - 1500, where=feeds["x"] >= 1500, out=np.full(feeds["x"].shape, np.nan))}

    assert mix(calls(2, 1, 40), 8, root) == Mixed()
    assert len(mix([{"x": call["x"] + 2000} for call in calls(2, 1, 40)], 8, root).feeds) == 8


def test_a_model_that_refuses_a_mix_gets_no_more_of_them() -> None:
    asked: list[Feeds] = []

    def run(feeds: Feeds) -> dict[str, Any]:
        asked.append(feeds)
        if len(asked) == 3:
            raise InputError("no")
        return {}

    assert len(mix(calls(3, 1, 40), 8, run).feeds) == 2
    assert len(asked) == 3


def test_mixes_end_where_their_memory_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixed, "BYTES_MAX", 5 * 2 * 160)
    assert len(mix(calls(3, 1, 40), 8, same).feeds) == 5


@pytest.mark.parametrize(
    ("rows", "changed", "second", "kept"),
    [(20, 1, 1.001, True), (20, 20, 1.001, True), (20, 20, 1.3, False), (400, 1, 1.001, True), (400, 3, 1.001, False)],
)
def test_of_few_mixed_decisions_the_cosine_is_judged_and_of_many_both(
    rows: int, changed: int, second: float, kept: bool
) -> None:
    original = np.tile(np.float32([1, 0.9999, 0.1]), (rows, 1))
    candidate = original.copy()
    candidate[:changed, 1] = second
    given = [{"y": original[:4]}]
    found = line_by_outputs(given, (), {"y"}, mixed=Mixed([{}], [{"y": original}]))
    assert found is not None
    assert found.excess(given, [*given, {"y": original}]) == 0
    assert (found.excess(given, [*given, {"y": candidate}]) <= 1) is kept


def test_few_inputs_are_mixed_where_a_line_decides_the_size(
    model: onnx.ModelProto, output: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    np.savez(tmp_path / "few.npz", x=rng.standard_normal((7, 48)).astype(np.float32))
    by_line = quick_export(model, output, calib=tmp_path / "few.npz", effort=1)
    assert by_line.line.endswith(f"and on {CALLS_MAX - 7} mixes of the inputs a cosine of 0.996")
    assert by_line.line in text.summary(by_line)
    by_size = quick_export(model, output, calib=tmp_path / "few.npz", effort=1, size=9000)
    assert "mixes" not in text.summary(by_size)


def test_many_inputs_are_not_mixed(
    model: onnx.ModelProto, output: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    np.savez(tmp_path / "many.npz", x=rng.standard_normal((4 * CALLS_MAX, 48)).astype(np.float32))
    assert "mixes" not in quick_export(model, output, calib=tmp_path / "many.npz", effort=1).line
