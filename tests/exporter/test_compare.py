"""How far two models' outputs lie apart."""

from __future__ import annotations

import json

import numpy as np
import pytest

from seed_exporter.evaluate import compare as comparison


def compare(a: np.ndarray, b: np.ndarray) -> comparison.OutputError:
    return comparison.compare([{"y": a}], [{"y": b}])["y"]


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
    errors = comparison.compare(calls, [{"y": array(3, 0)}, {"y": array(4, 0)}])
    assert errors["y"].relative == pytest.approx(32**0.5 / 5)
    assert errors["y"].agreement == 0.5
    assert comparison.worst_relative(errors) == errors["y"].relative


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


def test_output_files_of_zeros_or_without_elements_divide_by_nothing() -> None:
    assert compare(array(0, 0), array(0, 0)).relative == 0
    assert compare(array(0, 0), array(0, 1)).relative == 1
    empty = np.zeros((0, 4), np.float32)
    assert compare(empty, empty).identical


def test_integers_have_no_agreement() -> None:
    assert compare(np.array([[1, 2]]), np.array([[1, 3]])).agreement is None


LOWEST = float(np.finfo(np.float32).min)


@pytest.mark.parametrize(
    "values",
    [
        (LOWEST, LOWEST, LOWEST, 1),
        (-LOWEST, LOWEST, LOWEST, LOWEST),
        (LOWEST, -np.inf, np.nan, 2),
    ],
)
def test_equal_outputs_at_the_edge_of_float32_are_identical(values: tuple[float, ...]) -> None:
    error = compare(array(*values), array(*values))
    assert (error.relative, error.largest, error.cosine, error.identical) == (0, 0, 1, True)


def test_errors_whose_squares_overflow_are_measured() -> None:
    error = compare(np.array([3e200, 4e200]), np.array([3e200, 4.5e200]))
    assert error.relative == pytest.approx(0.1)
    assert error.largest == pytest.approx(5e199)
    assert 0.99 < error.cosine < 1
    assert np.isfinite(compare(np.array([1e308, 0]), np.array([-1e308, 0])).relative)


@pytest.mark.parametrize("mask", [LOWEST, -1e9, -1e4, -np.inf])
def test_masks_hide_no_error_beside_them(mask: float) -> None:
    error = compare(array(3, 4, mask, mask), array(3, 4.5, mask, mask))
    assert error.relative == pytest.approx(0.1)
    assert error.cosine < 1


def test_a_mask_in_another_place_is_an_error() -> None:
    assert compare(array(3, LOWEST, LOWEST), array(LOWEST, 3, LOWEST)).relative >= 1
    assert compare(array(3, -1e9, -1e9), array(-1e9, 3, -1e9)).relative >= 1


def test_repeated_probabilities_of_one_are_no_masks() -> None:
    assert compare(array(1, 1, 1e-6, 1e-7), array(1, 1, 2e-6, 1e-7)).relative < 1e-5
