"""Rounding by second order: what feedback and steps gain on inputs that they were not made for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

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
from seed_exporter.quantize.rounding.by_covariance import CovarianceRounder
from seed_exporter.quantize.rounding.cross_validation import validate
from seed_exporter.quantize.rounding.feedback import factor, inverse_of_unit_lower, left_out_pivots
from seed_exporter.quantize.rounding.table_rows import COARSEST
from seed_runtime.codecs.encode.grid import INTEGER_MAX, QuantizedMatrix, round_to_nearest
from seed_runtime.codecs.matrix import factors_of
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
    return Covariance(moments.astype(np.float32), counts)


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
    assert isinstance(equal, CovarianceRounder)
    assert equal.validated is not None
    feedback, _ = factor(covariance(drawn).total(), equal.validated.damping or 0)
    pivots = left_out_pivots(feedback, np.einsum("ngi,ngj->gij", fresh, fresh) / len(fresh))
    # Steps by the root of the optimum's squares.
    roots = np.sqrt(pivots)
    predicted = 0.5 * np.log2(pivots.mean() / (roots.mean() * np.exp(np.log(roots).mean())))
    gained = 0.5 * np.log2(moved(subject, equal.quantize(0.1), fresh) / moved(subject, unequal.quantize(0.1), fresh))
    assert unequal.quantize(0.1).row_steps is not None
    assert predicted > 0.07
    assert gained == pytest.approx(predicted, abs=0.03)
    assert bits(unequal, 0.1) == pytest.approx(bits(equal, 0.1), abs=0.03)


def test_steps_of_inputs_stay_within_three_times_their_average() -> None:
    drawn = np.random.default_rng(3).standard_normal((8192, 1, 48)) * np.geomspace(1, 1e-2, 48)
    drawn[:, :, 0] *= 30
    validated = validate(covariance(drawn.astype(np.float32)))
    assert validated is not None
    logs = np.log2(validated.squared_steps) / 2
    assert logs.mean() == pytest.approx(0, abs=1e-6)
    assert -1.75 < logs.min() < -1.5
    assert logs.max() < 1.7


@pytest.mark.parametrize(("octaves", "exponent"), [(0.5, 0.0), (2.0, 0.5)])
def test_steps_of_inputs_are_equal_where_they_gain_little(octaves: float, exponent: float) -> None:
    drawn = np.random.default_rng(3).standard_normal((8192, 1, 48)) * np.exp2(np.linspace(0, octaves, 48))
    validated = validate(covariance(drawn.astype(np.float32)))
    assert validated is not None
    assert validated.exponent == exponent


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


@pytest.mark.parametrize(
    ("shape", "use", "axis"),
    [
        ((64, 32), Use("MatMul", 1), "row_steps"),
        ((32, 64), Use("Gemm", 1, {"transB": 1}), "col_steps"),
        ((32, 16, 2, 2), Use("Conv", 1), "col_steps"),
        ((64, 8, 2, 2), Use("ConvTranspose", 1), "row_steps"),
        ((2, 32, 64), Use("LSTM", 1), "col_steps"),
        ((64, 1, 5, 5), Use("Conv", 1, {"group": 64}), "col_steps"),
        ((3, 64, 32), Use("MatMul", 1), "row_steps"),
    ],
)
def test_steps_of_inputs_lie_where_the_inputs_do(shape: tuple[int, ...], use: Use, axis: str) -> None:
    subject = weight(shape, use)
    view = linear_view(subject)
    assert view is not None
    groups, _, size = view.shape
    drawn = np.repeat(inputs(4096, size, spread=0.3), groups, axis=1)
    rounder = rounder_of(subject, covariance(drawn), None, STEPS)
    matrix, whole = rounder.quantize(0.1), as_float32(subject)
    assert getattr(matrix, axis) is not None
    # Nothing but its step decides how far the first input that is rounded lies from its weight.
    codes = np.broadcast_to(matrix.row_steps[:, None] if axis == "row_steps" else matrix.col_steps[None], whole.shape)
    steps = matrix.step * factors_of(np.ascontiguousarray(codes))
    first = view.maps_of(np.abs(whole - matrix.values()) / steps)[:, :, 0]
    assert 0.4 < first.max() < 0.501


def test_steps_of_inputs_average_to_the_step_asked_for() -> None:
    subject = weight((64, 32), Use("MatMul", 1))
    matrix = rounder_of(subject, covariance(inputs(4096, 64)), None, STEPS).quantize(0.1)
    assert matrix.row_steps is not None
    steps = matrix.step * factors_of(matrix.row_steps).astype(np.float64)
    assert np.exp(np.log(steps).mean()) == pytest.approx(0.1)


def zipf(rows: int, reads: int, parts: int = 4, seed: int = 3) -> npt.NDArray[np.int64]:
    """Draw how often each row is read, the first ones most often."""
    shares = 1 / (1 + np.arange(rows))
    return np.random.default_rng(seed).multinomial(reads // parts, shares / shares.sum(), parts)


def read_error(subject: Weight, matrix: QuantizedMatrix, counts: npt.NDArray[np.int64]) -> float:
    errors = np.square(as_float32(subject) - matrix.values(), dtype=np.float64).sum(axis=1)
    return float(errors @ counts.sum(axis=0) / counts.sum())


def test_rows_read_often_are_finer_and_gain_on_other_texts_at_the_same_rate() -> None:
    subject, rows = weight((2000, 32), Use("Gather", 0)), Effort(table_rows=True)
    plain, by_count = rounder_of(subject, None, None, rows), rounder_of(subject, None, zipf(2000, 20000), rows)
    matrix, fresh = by_count.quantize(0.2), zipf(2000, 20000, seed=8)
    assert matrix.row_steps is not None
    assert matrix.row_steps[0] + 16 < matrix.row_steps[-1]
    assert read_error(subject, matrix, fresh) < 0.5 * read_error(subject, plain.quantize(0.2), fresh)
    assert by_count.damage(matrix) == pytest.approx(read_error(subject, matrix, fresh), rel=0.2)
    steps = matrix.step * factors_of(matrix.row_steps).astype(np.float64)
    assert np.exp(np.log(steps).mean()) == pytest.approx(0.2)


def test_rows_never_read_stay_within_the_coarsest_step() -> None:
    subject, counts = weight((2000, 32), Use("Gather", 0)), np.zeros((4, 2000), np.int64)
    counts[:, :1900] = 1000
    matrix = rounder_of(subject, None, counts, Effort(table_rows=True)).quantize(0.2)
    assert matrix.row_steps is not None
    coarsest = matrix.step * factors_of(matrix.row_steps).max()
    assert coarsest <= 1.05 * COARSEST * 0.2


def test_counts_that_do_not_repeat_leave_equal_steps() -> None:
    counts = np.random.default_rng(0).permuted(np.tile(zipf(2000, 4000, 1), (4, 1)), axis=1)
    matrix = rounder_of(weight((2000, 32), Use("Gather", 0)), None, counts, Effort(table_rows=True)).quantize(0.2)
    assert matrix.row_steps is None


def test_steps_of_rows_wait_for_their_effort() -> None:
    subject = weight((2000, 32), Use("Gather", 0))
    assert rounder_of(subject, None, zipf(2000, 20000), FEEDBACK).quantize(0.2).row_steps is None


@pytest.mark.parametrize("effort", [Effort(), FEEDBACK])
def test_the_rate_in_the_choice_gains_at_few_bits(effort: Effort) -> None:
    subject, moments = weight((96, 2048), Use("MatMul", 1)), covariance(inputs(4096, 96))
    nearest = rounder_of(subject, moments, None, effort)
    chosen = rounder_of(subject, moments, None, replace(effort, rate=0.08))
    step = 1.5
    spent, saved = nearest.damage(nearest.quantize(step)), bits(nearest, step) - bits(chosen, step)
    extra = 0.5 * np.log2(chosen.damage(chosen.quantize(step)) / spent)
    assert saved > 0.1
    assert saved - extra > 0.05


def test_the_rate_changes_nothing_at_many_bits() -> None:
    subject, moments = weight((96, 64), Use("MatMul", 1)), covariance(inputs(4096, 96))
    nearest, chosen = (rounder_of(subject, moments, None, Effort(feedback=True, rate=rate)) for rate in (0.0, 0.05))
    assert (nearest.quantize(0.02).integers == chosen.quantize(0.02).integers).all()


def test_a_tied_embedding_is_rounded_by_both_of_its_uses() -> None:
    drawn = covariance(inputs(4096, 32))
    rounders = [
        rounder_of(weight((64, 32), Use("Gemm", 1, {"transB": 1}), *more), drawn, None, FEEDBACK)
        for more in ((), (Use("Gather", 0),))
    ]
    linear, tied = (np.square(each.errors(each.quantize(0.2))).sum() for each in rounders)
    alone = np.square(as_float32(rounders[0].weight) - round_to_nearest(as_float32(rounders[0].weight), 0.2).values())
    assert alone.sum() < tied < linear


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
    assert isinstance(rounder, CovarianceRounder)
    whole, validated = view.maps_of(as_float32(subject)), rounder.validated
    assert validated is not None
    assert validated.damping is not None
    for group in range(groups):
        feedback, _ = factor(moments.total(), validated.damping)
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


def test_inputs_that_are_all_the_same_are_rounded_with_feedback_without_a_negative_damage() -> None:
    one = inputs(1, 128)
    with np.errstate(all="raise", under="ignore"):
        validated = validate(covariance(np.repeat(one, 30, axis=0)))
    assert validated is not None
    assert validated.pivots.min() > 0
    assert np.isfinite(validated.pivots).all()


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
