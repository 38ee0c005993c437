"""Real inputs are divided into those that statistics are measured on and those that outputs are judged on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seed_exporter.evaluate import samples
from seed_exporter.evaluate.samples import CALIBRATION_MAX, CALLS_MAX, Samples, StoredFeeds
from seed_runtime.backends import Feeds, TensorSpec, check_feeds
from seed_runtime.errors import InputError

X = TensorSpec("x", "float32", ("batch", 4))


def read(
    folder: Path,
    *specs: TensorSpec,
    optional: Sequence[TensorSpec] = (),
    takes: Callable[[Feeds], bool] = lambda _: True,
    **arrays: np.ndarray,
) -> Samples:
    """Divide a file of these arrays, for a model that takes what `takes` says."""

    def run(feeds: Feeds) -> dict[str, Any]:
        if not takes(feeds):
            raise InputError("the model can't run on this")
        return {}

    np.savez(folder / "calib.npz", **arrays)
    return samples.read_samples(
        folder / "calib.npz", specs, optional, run, lambda feeds: check_feeds(specs, feeds, optional), folder
    )


def numbers(feeds: Sequence[Feeds], name: str = "x") -> list[int]:
    """First element of each call."""
    return [int(each[name].reshape(-1)[0]) for each in feeds]


def counting(*shape: int) -> np.ndarray:
    """Arrays in which each call and each sample has its own number."""
    return np.broadcast_to(np.arange(shape[0], dtype=np.float32).reshape(-1, *[1] * (len(shape) - 1)), shape)


def test_a_quarter_is_judged_and_spread_over_the_file(tmp_path: Path) -> None:
    found = read(tmp_path, X, x=counting(40, 2, 4), labels=np.arange(40))
    judged, measured = numbers(found.judged), numbers(found.calibration)
    assert sorted(judged + measured) == list(range(40))
    assert [number // 4 for number in judged] == list(range(10))
    assert all(each["x"].shape == (2, 4) for each in [*found.judged, *found.calibration])
    assert found.note == "of 40 given inputs, statistics are from 30, and outputs were compared on the other 10"
    again = read(tmp_path, X, x=counting(40, 2, 4))
    assert (numbers(again.judged), numbers(again.calibration)) == (judged, measured)


@pytest.mark.parametrize("shape", [(40,), (40, 1), (4, 10)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_labels_go_with_the_calls_that_are_judged(shape: tuple[int, ...], order: Any, tmp_path: Path) -> None:
    inputs = counting(40, 1, 4) if shape[0] == 40 else counting(40, 4).reshape(4, 10, 4)
    found = read(tmp_path, X, x=inputs, labels=np.asarray(np.arange(40).reshape(shape), order=order))
    assert found.labels is not None
    assert found.labels.reshape(-1).tolist() == numbers(found.judged)


def test_labels_are_none_where_there_are_none_or_the_model_takes_them(tmp_path: Path) -> None:
    labels = TensorSpec("labels", "int64", ("batch",))
    assert read(tmp_path, X, x=counting(40, 1, 4)).labels is None
    assert read(tmp_path, X, labels, x=counting(40, 1, 4), labels=np.zeros((40, 1), np.int64)).labels is None


def test_labels_that_no_memory_should_hold_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "LABELS_MAX", 100)
    with pytest.raises(InputError, match="save one integer for each decision"):
        read(tmp_path, X, x=counting(40, 1, 4), labels=np.arange(40))


def test_of_many_inputs_no_more_are_used_than_the_limits_say(tmp_path: Path) -> None:
    found = read(tmp_path, X, x=counting(2000, 1, 4))
    judged, measured = numbers(found.judged), numbers(found.calibration)
    assert (len(judged), len(measured)) == (CALLS_MAX, CALIBRATION_MAX)
    assert not set(judged) & set(measured)
    for chosen in (judged, measured):
        assert chosen == sorted(set(chosen))
        assert np.histogram(chosen, 4, (0, 2000))[0] == pytest.approx(np.full(4, len(chosen) / 4), rel=0.1)
    assert "of 2,000 given inputs, statistics are from 512, and outputs were compared on 64 others" in found.note


def test_what_is_stored_on_the_disk_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "CALIBRATION_BYTES_MAX", 10 * 16)
    assert len(read(tmp_path, X, x=counting(40, 1, 4)).calibration) == 10


def test_a_single_input_serves_for_both_and_a_note_says_so(tmp_path: Path) -> None:
    found = read(tmp_path, X, x=counting(1, 4))
    assert numbers(found.judged) == numbers(found.calibration) == [0]
    assert "one given input serves for the statistics and for the comparison" in found.note


@pytest.mark.parametrize(("count", "wanted"), [(2, 2), (7, 7), (12, 8), (31, 8), (36, 9)])
def test_of_few_inputs_some_are_judged_that_statistics_were_measured_on(
    count: int, wanted: int, tmp_path: Path
) -> None:
    found = read(tmp_path, X, x=counting(count, 1, 4))
    judged, measured = numbers(found.judged), numbers(found.calibration)
    assert (len(judged), len(measured)) == (wanted, count - max(1, count // 4))
    assert judged == sorted({*judged})
    assert {*judged, *measured} == set(range(count))
    assert ("some of them the same" in found.note) == (wanted + len(measured) > count)


def test_the_samples_of_few_batches_are_divided_where_the_model_takes_them_one_by_one(tmp_path: Path) -> None:
    mask = TensorSpec("mask", "int64", ("batch", 3))
    found = read(tmp_path, X, mask, x=counting(12, 4), mask=np.ones((12, 3), np.int64))
    assert (len(found.judged), len(found.calibration)) == (8, 9)
    assert {each["x"].shape for each in found.calibration} == {(1, 4)}
    assert {each["mask"].shape for each in found.calibration} == {(1, 3)}
    assert {name: array.shape for name, array in found.call.items()} == {"x": (12, 4), "mask": (12, 3)}
    both = [read(tmp_path, X, x=x) for x in (counting(24, 4), counting(24, 4).reshape(2, 12, 4), counting(24, 4).T.T)]
    assert all({*numbers(each.judged), *numbers(each.calibration)} == set(range(24)) for each in both)


@pytest.mark.parametrize(
    ("spec", "takes"),
    [
        (X, lambda feeds: len(feeds["x"]) == 12),
        (TensorSpec("x", "float32", (12, 4)), None),
        (TensorSpec("x", "float32", ("sequence_length", 4)), None),
    ],
)
def test_a_batch_stays_whole_where_its_first_axis_counts_no_samples_that_the_model_takes(
    spec: TensorSpec, takes: Callable[[Feeds], bool] | None, tmp_path: Path
) -> None:
    found = read(tmp_path, spec, takes=takes or (lambda _: True), x=counting(12, 4))
    assert [each["x"].shape for each in found.judged] == [(12, 4)]


def test_inputs_that_share_no_batch_stay_whole(tmp_path: Path) -> None:
    gain = TensorSpec("gain", "float32", (1,))
    found = read(tmp_path, X, optional=[gain], x=counting(12, 4), gain=np.ones(1, np.float32))
    assert found.judged[0].keys() == {"x", "gain"}
    assert len(found.judged[0]["x"]) == 12


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_calls_with_nan_or_infinities_are_named(wrong: float, tmp_path: Path) -> None:
    x = counting(9, 1, 4).copy()
    x[6, 0, 2] = wrong
    with pytest.raises(InputError, match=r"calib\.npz, call 7: input 'x' holds (NaN|infinities)"):
        read(tmp_path, X, x=x)


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"y": np.zeros((1, 4), np.float32)}, "no input 'y'"),
        ({"labels": np.zeros(3)}, "'x' is missing"),
        ({"x": np.zeros((1, 5), np.float32)}, "x: float32"),
        ({"x": np.zeros((1, 4), np.int32)}, "x: float32"),
    ],
)
def test_data_for_another_model_is_refused(arrays: dict[str, np.ndarray], problem: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=problem):
        read(tmp_path, X, **arrays)


def test_texts_are_stored_as_they_are(tmp_path: Path) -> None:
    spec = TensorSpec("s", "string", ("batch",))
    texts = np.array([[f"{number} " + "é" * number] for number in range(12)])
    for given in (texts, np.char.encode(texts, "utf-8")):
        found = read(tmp_path, spec, s=given)
        stored = [str(each["s"][0]) for each in [*found.judged, *found.calibration]]
        assert sorted(set(stored)) == sorted(texts[:, 0].tolist())


def test_stored_calls_are_read_in_any_order_and_as_often_as_asked_for(tmp_path: Path) -> None:
    stored = StoredFeeds(tmp_path / "f")
    for number in range(3):
        stored.append({"a": np.full((number, 2), number, np.float16), "b": np.array(number)})
    assert [int(each["b"]) for each in stored] == [0, 1, 2]
    assert [int(each["b"]) for each in stored[1:]] == [1, 2]
    assert np.array_equal(stored[2]["a"], np.full((2, 2), 2, np.float16))
    assert stored[0]["a"].shape == (0, 2)
    with pytest.raises(IndexError):
        stored[3]
