"""Rounding by second order: what feedback and steps gain on inputs that they were not made for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
from threadpoolctl import threadpool_limits

from seed_exporter.calibrate.covariance import Covariance
from seed_exporter.graph.linear import linear_view
from seed_exporter.graph.matrix import as_float32, coded_view
from seed_exporter.graph.model import Use, Weight
from seed_exporter.quantize.effort import EFFORTS, Effort
from seed_exporter.quantize.rounding import Rounder, rounder_of
from seed_exporter.quantize.rounding.feedback import factor, inverse_of_unit_lower, left_out_pivots
from seed_runtime.codecs.encode.grid import INTEGER_MAX, QuantizedMatrix, round_to_nearest
from seed_runtime.format.dtypes import BY_NAME

FEEDBACK = Effort(feedback=True)
STEPS = Effort(feedback=True, input_steps=True)
PLAIN = Effort()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Give BLAS one thread, as an export does."""
    with threadpool_limits(1, "blas"):
        yield


def weight(shape: tuple[int, ...], *uses: Use, scale: float = 1.0, seed: int = 0) -> Weight:
    data = scale * np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return Weight("w", BY_NAME["float32"], shape, data.astype(np.float32), uses)


def inputs(count: int, size: int, groups: int = 1, seed: int = 1, spread: float = 1.0) -> npt.NDArray[np.float32]:
    """Draw correlated Gaussian inputs `(count, groups, size)`; their correlations don't depend on `seed`."""
    mix = np.random.default_rng(99).standard_normal((groups, size, size)) / np.sqrt(size)
    mix = mix * np.exp(spread * np.linspace(1, -1, size))[:, None] + 0.3 * np.eye(size)
    drawn = np.random.default_rng(seed).standard_normal((groups, count, size)) @ mix
    return drawn.transpose(1, 0, 2).astype(np.float32)


def covariance(drawn: npt.NDArray[np.float32], parts: int = 4) -> Covariance:
    split = np.array_split(drawn, parts)
    moments = np.stack([np.einsum("ngi,ngj->gij", part, part) / len(part) for part in split])
    counts = np.array([len(part) for part in split])
    return Covariance(moments.astype(np.float32), np.stack([part.mean(0) for part in split]), counts, counts)


def moved(weight: Weight, matrix: QuantizedMatrix, drawn: npt.NDArray[np.float32]) -> float:
    """Compute how far the outputs move on these inputs: squared, summed over outputs, a position."""
    view = linear_view(weight)
    assert view is not None
    errors = view.maps_of(as_float32(weight) - matrix.values())
    return float(np.square(np.einsum("goi,ngi->ngo", errors, drawn), dtype=np.float64).sum() / len(drawn))


def bits(rounder: Rounder, step: float) -> float:
    """Entropy of integers a weight; the rows of each step apart."""
    matrix = rounder.quantize(step)
    codes = np.zeros(len(matrix.integers), np.uint8) if matrix.row_steps is None else matrix.row_steps
    total = 0.0
    for code in np.unique(codes):
        counts = np.unique(matrix.integers[codes == code], return_counts=True)[1]
        total -= (counts * np.log2(counts / counts.sum())).sum()
    return total / matrix.integers.size


def test_feedback_gains_on_other_inputs_what_its_pivots_predict() -> None:
    subject, drawn = weight((48, 512), Use("MatMul", 1)), inputs(4096, 48)
    rounder = rounder_of(subject, covariance(drawn), None, FEEDBACK)
    plain = rounder_of(subject, covariance(drawn), None, PLAIN)
    fresh = inputs(4096, 48, seed=7)
    _, pivots = factor(np.einsum("ngi,ngj->gij", fresh, fresh) / len(fresh), 0.0)
    predicted = 0.5 * np.log2(np.square(fresh).mean() / pivots.mean())
    gained = 0.5 * np.log2(moved(subject, plain.quantize(0.2), fresh) / moved(subject, rounder.quantize(0.2), fresh))
    assert predicted > 0.5
    assert gained == pytest.approx(predicted, abs=0.07)
    assert bits(rounder, 0.2) == pytest.approx(bits(plain, 0.2), abs=0.01)


def test_steps_of_inputs_gain_what_unequal_pivots_predict_at_the_same_rate() -> None:
    subject, drawn = weight((48, 2048), Use("MatMul", 1)), inputs(8192, 48, spread=0.3)
    equal = rounder_of(subject, covariance(drawn), None, FEEDBACK)
    unequal = rounder_of(subject, covariance(drawn), None, STEPS)
    fresh = inputs(4096, 48, seed=7, spread=0.3)
    feedback, _ = factor(covariance(drawn).total(), 0.01)
    pivots = left_out_pivots(feedback, np.einsum("ngi,ngj->gij", fresh, fresh) / len(fresh))
    predicted = 0.5 * np.log2(pivots.mean() / np.exp(np.log(pivots).mean()))
    gained = 0.5 * np.log2(moved(subject, equal.quantize(0.1), fresh) / moved(subject, unequal.quantize(0.1), fresh))
    assert unequal.quantize(0.1).row_steps is not None
    assert predicted > 0.1
    assert gained == pytest.approx(predicted, abs=0.03)
    assert bits(unequal, 0.1) == pytest.approx(bits(equal, 0.1), abs=0.03)


@pytest.mark.parametrize("effort", [FEEDBACK, STEPS])
@pytest.mark.parametrize("count", [8, 24, 48, 200])
def test_too_few_inputs_never_make_it_worse_than_plain_on_others(count: int, effort: Effort) -> None:
    subject, drawn, fresh = weight((96, 128), Use("MatMul", 1)), inputs(count, 96), inputs(4096, 96, seed=7)
    rounder = rounder_of(subject, covariance(drawn), None, effort)
    plain = rounder_of(subject, None, None, effort)
    assert moved(subject, rounder.quantize(0.2), fresh) <= 1.02 * moved(subject, plain.quantize(0.2), fresh)


@pytest.mark.parametrize("count", [128, 4096])
def test_damage_is_that_on_inputs_left_out(count: int) -> None:
    subject, drawn, fresh = weight((48, 256), Use("MatMul", 1)), inputs(count, 48), inputs(4096, 48, seed=7)
    for effort in (FEEDBACK, STEPS):
        rounder = rounder_of(subject, covariance(drawn), None, effort)
        matrix = rounder.quantize(0.2)
        assert rounder.damage(matrix) == pytest.approx(moved(subject, matrix, fresh), rel=0.2)
        nearest = round_to_nearest(as_float32(subject), 0.2)
        assert rounder.damage(nearest) == pytest.approx(moved(subject, nearest, fresh), rel=0.35)


def test_damage_without_inputs_is_the_squared_error() -> None:
    subject = weight((6, 4), Use("MatMul", 1))
    rounder = rounder_of(subject, None, None, STEPS)
    matrix = rounder.quantize(0.5)
    assert rounder.damage(matrix) == pytest.approx(float(np.square(as_float32(subject) - matrix.values()).sum()))


@pytest.mark.parametrize(
    ("shape", "use"),
    [
        ((24, 1, 5, 5), Use("Conv", 1, {"group": 24})),
        ((24, 2, 3, 3), Use("Conv", 1, {"group": 12})),
        ((8, 24), Use("Gemm", 1, {"transB": 1})),
        ((8, 6, 2, 2), Use("ConvTranspose", 1)),
        ((8, 6, 2, 2), Use("ConvTranspose", 1, {"group": 2})),
        ((2, 12, 5), Use("LSTM", 1)),
        ((3, 16, 5), Use("MatMul", 1)),
        ((128, 6), Use("MatMul", 1)),
    ],
)
def test_all_groups_at_once_are_rounded_as_one_weight_after_the_other(shape: tuple[int, ...], use: Use) -> None:
    subject = weight(shape, use)
    view = linear_view(subject)
    assert view is not None
    groups, outputs, size = view.shape
    moments = covariance(inputs(2000, size, groups))
    rounder = rounder_of(subject, moments, None, FEEDBACK)
    matrix = rounder.quantize(0.25)
    assert matrix.integers.shape == coded_view(subject)
    found = view.maps_of(matrix.integers.astype(np.float32))
    whole, damping = view.maps_of(as_float32(subject)), rounder.validated.damping
    assert damping is not None
    for group in range(groups):
        feedback, _ = factor(moments.total(), damping)
        errors = np.zeros((outputs, size))
        for index in range(size):
            target = whole[group, :, index] + errors[:, :index] @ feedback[group, index, :index].astype(np.float64)
            errors[:, index] = whole[group, :, index] - 0.25 * np.rint(target / 0.25)
            assert np.abs(target / 0.25 - found[group, :, index]).max() <= 0.501
            errors[:, index] = whole[group, :, index] - 0.25 * found[group, :, index]


@pytest.mark.parametrize("drawn", [np.zeros((8, 1, 16), np.float32), np.ones((8, 1, 16), np.float32) * np.inf])
def test_inputs_that_say_nothing_leave_rounding_to_nearest(drawn: npt.NDArray[np.float32]) -> None:
    subject = weight((16, 8), Use("MatMul", 1))
    with np.errstate(invalid="ignore"):
        rounder = rounder_of(subject, covariance(drawn), None, STEPS)
    expected = round_to_nearest(as_float32(subject), 0.1)
    assert (rounder.quantize(0.1).integers == expected.integers).all()


def test_one_part_can_not_be_left_out_and_leaves_rounding_to_nearest() -> None:
    subject = weight((16, 8), Use("MatMul", 1))
    rounder = rounder_of(subject, covariance(inputs(999, 16), parts=1), None, STEPS)
    assert (rounder.quantize(0.1).integers == round_to_nearest(as_float32(subject), 0.1).integers).all()


def test_dead_inputs_have_the_average_step() -> None:
    subject, drawn = weight((48, 64), Use("MatMul", 1)), inputs(4096, 48, spread=0.3)
    drawn[:, :, 5] *= 1e-4
    matrix = rounder_of(subject, covariance(drawn), None, STEPS).quantize(0.1)
    assert matrix.row_steps is not None
    factors = 2.0 ** (matrix.row_steps / 8)
    assert factors[5] == pytest.approx(np.exp(np.log(factors).mean()), rel=0.15)


@pytest.mark.parametrize("step", [0.0, -1.0, np.nan, np.inf, 1e-45])
@pytest.mark.parametrize("effort", [PLAIN, STEPS])
def test_a_step_that_no_decoder_takes_is_refused(step: float, effort: Effort) -> None:
    subject = weight((16, 8), Use("MatMul", 1))
    with pytest.raises(ValueError, match="quantization step"):
        rounder_of(subject, covariance(inputs(999, 16)), None, effort).quantize(step)


@pytest.mark.parametrize("step", [1e-30, 1e-9, 1e20])
def test_integers_stay_within_what_a_stream_holds(step: float) -> None:
    subject = weight((16, 8), Use("MatMul", 1))
    rounder = rounder_of(subject, covariance(inputs(999, 16)), None, STEPS)
    assert np.abs(rounder.quantize(step).integers).max() <= INTEGER_MAX


def test_the_same_weight_and_inputs_give_the_same_integers() -> None:
    subject, drawn = weight((96, 64), Use("MatMul", 1)), inputs(999, 96)
    first, second = (rounder_of(subject, covariance(drawn), None, EFFORTS[9]).quantize(0.1) for _ in range(2))
    assert first.integers.tobytes() == second.integers.tobytes()
    assert first.step == second.step


def test_moments_of_another_weight_are_refused() -> None:
    with pytest.raises(ValueError, match="don't fit"):
        rounder_of(weight((16, 8), Use("MatMul", 1)), covariance(inputs(99, 8)), None, FEEDBACK)


def test_triangular_matrices_are_inverted_by_blocks() -> None:
    drawn = inputs(999, 150, 2)
    feedback, _ = factor(np.einsum("ngi,ngj->gij", drawn, drawn) / len(drawn), 0.1)
    assert np.abs(np.matmul(inverse_of_unit_lower(feedback), feedback) - np.eye(150)).max() < 1e-3
