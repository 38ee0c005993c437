"""Encode side of `lowrank`: factors at the least rate for a given distortion.

With unit vectors, W = sum of s[r] * a[r] b[r]^T. Rounding the entries of s*a and of s*b to the same step c
adds c**2 / 12 for each of them to the squared error, whichever component it belongs to. This is reverse
water-filling: components that cost more than they save are left out. The product of such integers has to be
scaled by c**2 / s[r]; its octaves are the shifts, and what is left of it is divided among both factors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from seed_runtime.codecs.encode import symbols
from seed_runtime.codecs.encode.grid import matrix_of
from seed_runtime.codecs.encode.symbols import CodedMatrix, SymbolStream
from seed_runtime.codecs.lowrank import (
    EXACT,
    SCALE_LEAST,
    SCALE_MOST,
    SHIFT_MAX,
    factor_of,
    most_of_rows,
    multiply,
)
from seed_runtime.format import primitives
from seed_runtime.limits import FACTOR_BYTES_MAX, FACTORS_MAX

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]

_WHOLE_SIDE: Final = 1536
"""Up to this the Gram matrix is decomposed as a whole (0.7 s on one core); beyond, on a random subspace."""
_RANKS: Final = (0.8, 1.0, 1.25)
"""Tried around the planned rank."""
_REFINEMENTS: Final = 4
_BLOCK: Final = 4096
"""Rows held in float64 at a time: an embedding of 40 million weights would take 300 MiB as a whole."""


@dataclass(frozen=True)
class Factors:
    """A matrix ready for the lanes: `v`, then `u`."""

    v: I32
    """`(rank, cols)`."""
    u: I32
    """`(rows, rank)`."""
    shifts: tuple[int, ...]
    step: float
    """Of U; V's is 1."""
    matrices: tuple[CodedMatrix, CodedMatrix]
    bits: float
    """`rate_bits` of both, and the shifts."""
    mse: float

    def values(self) -> F32:
        """What the decoder makes of it, `(rows, cols)`, before rounding to the model's type."""
        return _product(self.u, self.v, self.shifts, self.step)


def spectrum(weights: F32, count: int) -> tuple[F64, F32]:
    """The largest singular values and their right unit vectors: `(k,)` and `(k, cols)`, k <= count."""
    if weights.shape[0] < weights.shape[1]:
        values, left = spectrum(np.ascontiguousarray(weights.T), count)
        return values, left @ weights / values.astype(np.float32)[:, None]
    side, projected, basis = weights.shape[1], weights, None
    if side > _WHOLE_SIDE:
        # Halko, Martinsson, Tropp (arXiv:0909.4061): power iterations on a random subspace.
        basis = np.random.default_rng(0).standard_normal((side, min(side, count + 16)), np.float32)
        for _ in range(3):
            basis = np.linalg.qr(weights.T @ (weights @ basis))[0]
        projected = weights @ basis
    gram = np.zeros((projected.shape[1],) * 2)
    for start in range(0, len(projected), _BLOCK):
        block = projected[start : start + _BLOCK].astype(np.float64)
        gram += block.T @ block
    squares, vectors = np.linalg.eigh(gram)
    values = np.sqrt(np.maximum(squares[::-1], 0))
    # Below, it is the rounding of the squares.
    kept = min(count, int((values > 1e-6 * values[0]).sum()))
    right = vectors[:, ::-1][:, :kept].astype(np.float32)
    return values[:kept], (right if basis is None else basis @ right).T


def rate_bits(matrices: Sequence[CodedMatrix]) -> float:
    """What symbols, low bits, escapes and classes take; tables, which a stream shares, not counted."""
    side = 0.0
    for matrix in matrices:
        side += matrix.symbols.size * matrix.low_bits + 32.0 * matrix.escaped.size
        for axis in (matrix.classes.rows, matrix.classes.cols):
            side += symbols.entropy_bits(np.bincount(axis)[None])
    return side + symbols.entropy_bits(symbols.histogram(matrices))


def encode(weights: F32, mse: float, bits_max: float = float("inf")) -> Factors | None:
    """The cheapest factors whose mean squared error is at most `mse`, or None where they can't be had.

    Args:
        weights: `(rows, cols)`, finite.
        mse: above 0, in squared weight units.
        bits_max: give up when more are needed; a plan may promise a third more, it is no better than that.
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


def stream(
    tensors: Sequence[Factors], progress: Callable[[int], None] | None = None, *, sizes_only: bool = False
) -> SymbolStream:
    """The chunks of one stream."""
    prefix = b"".join(
        primitives.varint(factors.v.shape[1]) + primitives.varint(len(factors.shifts)) + bytes(factors.shifts)
        for factors in tensors
    )
    matrices = [matrix for factors in tensors for matrix in factors.matrices]
    return symbols.encode(matrices, progress, prefix=prefix, sizes_only=sizes_only)


def _plan(singular: F64, rows: int, cols: int, energy: float, target: float) -> tuple[int, float] | None:
    """Rank and step that meet `target` by the high-rate model; None where no rank does."""
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
    """Bits of each component's entries: Gaussian, uniformly quantized."""
    power = 2 * np.pi * np.e * np.square(singular / step)
    return rows / 2 * np.log2(1 + power / rows) + cols / 2 * np.log2(1 + power / cols)


def _at_rank(weights: F32, singular: F64, right: F32, target: float, room: float) -> Factors | None:
    """Refine the step until the real error meets `target`. `room`: what quantization may add."""
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
        u = np.rint(_refit(weights, v, shifts, scale)).astype(np.int32)
        if (np.abs(u) @ most_of_rows(v * factor_of(_ints(shifts)))).max() >= EXACT:
            break
        error = _energy(weights - _product(u, v, _ints(shifts), scale))
        if error <= target:
            best = u, v, shifts, scale, error
        if 0.99 * target < error <= target:
            break
        step *= (0.998 * room / max(error - lost, 1e-3 * room)) ** 0.5
    if best is None:
        return None
    u, v, shifts, scale, error = best
    matrices = matrix_of(v, 1.0), matrix_of(u, scale)
    bits = rate_bits(matrices) + 8.0 * len(v)
    return Factors(v, u, _ints(shifts), scale, matrices, bits, error / weights.size)


def _refit(weights: F32, v: I32, shifts: F64, scale: float) -> F32:
    """The left factor that fits best to a right one that is rounded already, `(rows, rank)`, in steps."""
    basis = v * np.exp2(shifts)[:, None]
    gram = basis @ basis.T
    # A component that rounded to nothing has no say.
    gram[np.diag_indices_from(gram)] += 1e-9 * np.trace(gram) / len(gram) + 1e-30
    return (weights @ np.linalg.solve(gram, basis).T.astype(np.float32)) / np.float32(scale)


def _product(u: I32, v: I32, shifts: Sequence[int], step: float) -> F32:
    shifted = v.astype(np.float32) * factor_of(shifts)
    return multiply(u.astype(np.float32), shifted, np.full((1, 1), step, np.float32))


def _energy(values: F32) -> float:
    """Sum of squares."""
    return sum(
        float(np.square(values[start : start + _BLOCK], dtype=np.float64).sum())
        for start in range(0, len(values), _BLOCK)
    )


def _ints(shifts: F64) -> tuple[int, ...]:
    return tuple(int(shift) for shift in shifts)
