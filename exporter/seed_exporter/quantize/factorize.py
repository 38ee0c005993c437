"""Finds the factors of a matrix that take the fewest bits at a given distortion.

With unit vectors, W = sum of s[r] * a[r] b[r]^T. Rounding the entries of s*a and of s*b to the same step c adds
c**2 / 12 for each of them to the squared error, whichever component it belongs to. This is reverse water-filling:
components that cost more than they save are left out. The product of such integers has to be scaled by c**2 / s[r]; its
octaves are the shifts, and what is left of it is divided among both factors.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from seed_exporter.codecs.lowrank import Factors, product, rate_bits
from seed_exporter.codecs.spectrum import ROWS_AT_ONCE, spectrum
from seed_runtime.codecs.encode.grid import QuantizedMatrix, matrix_of
from seed_runtime.codecs.lowrank import EXACT, SCALE_LEAST, SCALE_MOST, SHIFT_MAX, factor_of, most_of_rows
from seed_runtime.limits import FACTOR_BYTES_MAX, FACTORS_MAX

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]

_RANKS: Final = (0.8, 1.0, 1.25)
"""Ranks that are tried, as shares of the planned one."""
_REFINEMENTS: Final = 4
"""Most steps that are tried at one rank."""


def factorize(weights: F32, mse: float, bits_max: float = float("inf")) -> Factors | None:
    """Find the cheapest factors whose mean squared error is at most `mse`; None where there are none.

    Args:
        weights: `(rows, cols)`, finite.
        mse: above 0, in squared weight units.
        bits_max: most bits that factors may take; a plan may promise a third more, as it is no better than that.
    """
    rows, cols = weights.shape
    count = min(rows, cols, FACTORS_MAX, FACTOR_BYTES_MAX // (4 * cols))
    energy = _energy(weights)
    target = mse * rows * cols
    if not count or not 0 < target < energy:
        return None
    singular, right = spectrum(weights, count)
    plan = _plan(singular, rows, cols, energy, target)
    if plan is None or _planned_bits(singular[: plan[0]], plan[1], rows, cols).sum() > bits_max * 4 / 3:
        return None
    best: Factors | None = None
    for rank in sorted({min(max(1, round(plan[0] * share)), singular.size) for share in _RANKS}):
        room = target - (energy - float(np.square(singular[:rank]).sum()))
        if room <= 0:
            continue
        factors = _at_rank(weights, singular[:rank], right[:rank], target, room)
        if factors is not None and (best is None or factors.bits < best.bits):
            best = factors
    return best if best is not None and best.bits <= bits_max else None


def _plan(singular: F64, rows: int, cols: int, energy: float, target: float) -> tuple[int, float] | None:
    """Find the rank and the step that meet `target` by the high-rate model; None where no rank does."""
    low, high = 1e-9 * float(singular[0]), float(singular[0])
    rank = 0
    for _ in range(40):
        step = (low * high) ** 0.5
        noise = (rows + cols) * step**2 / 12
        # A bit more on all coefficients of a step c saves 2 ln 2 * c**2 / 12 each.
        price = np.log(2) / 6 * step**2
        wanted = int((np.square(singular) > noise + price * _planned_bits(singular, step, rows, cols)).sum())
        rest = energy - float(np.square(singular[:wanted]).sum())
        if rest + wanted * noise <= target:
            low, rank = step, wanted
        else:
            high = step
    return (rank, low) if rank else None


def _planned_bits(singular: F64, step: float, rows: int, cols: int) -> F64:
    """Compute the bits of each component's entries, taken for Gaussian and uniformly quantized."""
    power = 2 * np.pi * np.e * np.square(singular / step)
    return rows / 2 * np.log2(1 + power / rows) + cols / 2 * np.log2(1 + power / cols)


def _at_rank(weights: F32, singular: F64, right: F32, target: float, room: float) -> Factors | None:
    """Refine the step until the real error meets `target`, of which quantization may add `room`."""
    step = (12 * room / (singular.size * sum(weights.shape))) ** 0.5
    best, lost = None, target - room
    for _ in range(_REFINEMENTS):
        octaves = np.log2(singular[0] / singular)
        shifts = np.minimum(np.rint(octaves), SHIFT_MAX)
        # What an octave's rounding leaves of the scale goes to both factors alike.
        gain = singular / step * np.exp2((octaves - shifts) / 2)
        scale = float(np.float32(step**2 / singular[0]))
        if not SCALE_LEAST <= scale <= SCALE_MOST:
            break
        v = np.rint(right * gain[:, None].astype(np.float32)).astype(np.int32)
        left = _refit(weights, v, shifts, scale)
        if not np.isfinite(left).all():
            break
        u = np.rint(left).astype(np.int32)
        if (np.abs(u) @ most_of_rows(v * factor_of(_ints(shifts)))).max() >= EXACT:
            break
        error = _energy(weights - product(u, v, _ints(shifts), scale))
        if error <= target:
            best = u, v, shifts, scale, error
        if 0.99 * target < error <= target:
            break
        step *= (0.998 * room / max(error - lost, 1e-3 * room)) ** 0.5
    if best is None:
        return None
    u, v, shifts, scale, error = best
    matrices = matrix_of(QuantizedMatrix(v, 1.0)), matrix_of(QuantizedMatrix(u, scale))
    bits = rate_bits(matrices) + 8.0 * len(v)
    return Factors(v, u, _ints(shifts), scale, matrices, bits, error / weights.size)


def _refit(weights: F32, v: I32, shifts: F64, scale: float) -> F32:
    """Fit the left factor to a right one that is rounded already, `(rows, rank)`, in steps."""
    basis = v * np.exp2(shifts)[:, None]
    gram = basis @ basis.T
    # A component that rounded to nothing has no say.
    gram[np.diag_indices_from(gram)] += 1e-9 * np.trace(gram) / len(gram) + 1e-30
    inverse = np.linalg.solve(gram, basis).T.astype(np.float32)
    # A BLAS may set floating-point flags for vector lanes that hold no element: once in some hundred runs NumPy warned
    # of finite matrices here. The caller checks that the result is finite.
    with np.errstate(all="ignore"):
        return (weights @ inverse) / np.float32(scale)


def _energy(values: F32) -> float:
    """Compute the sum of squares."""
    return sum(
        float(np.square(values[start : start + ROWS_AT_ONCE], dtype=np.float64).sum())
        for start in range(0, len(values), ROWS_AT_ONCE)
    )


def _ints(shifts: F64) -> tuple[int, ...]:
    return tuple(int(shift) for shift in shifts)
