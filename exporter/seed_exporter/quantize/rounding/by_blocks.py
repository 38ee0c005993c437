"""Round weights to integers of few bits in blocks of inputs, each with a scale of its own, and a zero point at 4 bits.

The outer weights of a block are clipped where that does less damage, by the moments of the inputs, and errors are
compensated by inputs that are rounded later, those of later blocks before their scales are chosen.

Source: Frantar et al., "GPTQ" (arXiv 2210.17323), with its groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from seed_exporter.calibrate.covariance import Covariance
from seed_exporter.quantize.rounding.feedback import factor

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]

DAMPING: Final = 0.03
"""What is added to the moments' diagonal, as a share of its mean."""
_REACHES: Final = (6.5, 6.75, 7.0, 7.25, 7.5, 7.75, 8.0, 8.25, 8.5, 8.75, 9.0)
"""What the weight of largest magnitude in a block may be in steps, where integers go from -8 to 7: beyond 8 it is
clipped. Its sign decides the scale's, so that -8 is used."""
_SHARES: Final = (1.0, 0.97, 0.94, 0.91, 0.88, 0.85, 0.82, 0.79, 0.76, 0.73, 0.7)
"""Shares of a block's range that its integers may span, where it has a zero point."""
ZERO_BITS: Final = 4
"""Bits of integers whose blocks have zero points: layers of 2 bits take none in releases that don't know them."""
_GRID: Final = 16
"""Scales in an octave: fewer ones take fewer bits."""
_ROWS: Final = 8192
"""Outputs that are rounded at once: a table of words takes gigabytes otherwise."""


class BlockRounder:
    """Rounds weights whose inputs were measured. What was made of a weight is kept, as it depends on no plan.

    Memory: a byte an element of each weight that was rounded, and its scales.
    """

    def __init__(self, covariances: Mapping[str, Covariance]) -> None:
        """Hold the moments of inputs by the names of weights."""
        self._covariances = covariances
        self._kept: dict[tuple[str, int, int], _Rounded] = {}

    def __call__(self, name: str, values: F32, size: int, bits: int) -> tuple[I32, F32, I32 | None] | None:
        """Return integers, scales and zero points of a weight; None where its inputs weren't measured.

        Args:
            name: of the weight.
            values: `(outputs, inputs)`.
            size: inputs of a block, which divides their number.
            bits: of an integer, of which the least is -2^(bits-1).

        Returns:
            Integers `(outputs, blocks, size)`, scales of any sign `(outputs, blocks, 1)`, and the integers that stand
            for 0, of their shape; None for 0 itself.
        """
        covariance, key = self._covariances.get(name), (name, size, bits)
        inputs = values.shape[1]
        if covariance is None or covariance.moments.shape[1:] != (1, inputs, inputs):
            return None
        if key not in self._kept:
            moments = covariance.total()
            covariance.release()
            if not np.isfinite(moments).all() or not np.trace(moments[0]) > 0:
                return None
            feedback = factor(moments, DAMPING)[0][0]
            weights = np.diagonal(moments[0]) + DAMPING * np.trace(moments[0]) / inputs
            parts = [
                _rounded(values[start : start + _ROWS], size, bits, feedback, weights.astype(np.float32))
                for start in range(0, len(values), _ROWS)
            ]
            integers, scales, zeros = (np.concatenate(each) for each in zip(*parts, strict=True))
            self._kept[key] = integers, scales, zeros
        integers, scales, zeros = self._kept[key]
        return integers.astype(np.int32), scales, zeros.astype(np.int32) if bits == ZERO_BITS else None


def best_scales(blocks: F32, bits: int, weights: F32) -> F32:
    """Return the scale of each block that does the least damage when it is rounded to nearest.

    Args:
        blocks: `(..., size)`.
        bits: of an integer.
        weights: damage of a squared error of each input, which broadcasts to the blocks.

    Returns:
        `(..., 1)`, on a grid of powers of two, of any sign.
    """
    least = -float(1 << (bits - 1))
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=-1)[..., None], -1)
    largest = np.where(largest == 0, np.float32(1), largest)
    size = np.abs(largest)
    shares = blocks / size  # whose squares don't overflow
    scales, lowest = np.zeros_like(largest), np.full(largest.shape, np.inf, np.float32)
    for reach in _REACHES:
        own = -_on_grid(size * np.float32(8 / (reach * -least))) * np.sign(largest)
        errors = shares - own / size * np.clip(np.rint(blocks / own), least, -least - 1)
        damage = (np.square(errors, out=errors) * weights).sum(axis=-1, keepdims=True)
        is_better = damage < lowest
        scales, lowest = np.where(is_better, own, scales), np.where(is_better, damage, lowest)
    return scales.astype(np.float32)


def best_ranges(blocks: F32, bits: int, weights: F32) -> tuple[F32, F32]:
    """Return the scale and the zero point of each block that do the least damage when it is rounded to nearest.

    Args:
        blocks: `(..., size)`.
        bits: of an integer.
        weights: damage of a squared error of each input, which broadcasts to the blocks.

    Returns:
        Positive scales on a grid of powers of two, and integers that stand for 0, each `(..., 1)`.
    """
    least, most = -float(1 << (bits - 1)), float((1 << (bits - 1)) - 1)
    low = np.minimum(blocks.min(axis=-1, keepdims=True), 0)
    high = np.maximum(blocks.max(axis=-1, keepdims=True), 0)
    span = high - low
    span = np.where(span == 0, np.float32(1), span)
    shares, place = blocks / span, low / span  # whose squares don't overflow
    scales, zeros, lowest = np.zeros_like(span), np.zeros_like(span), np.full(span.shape, np.inf, np.float32)
    for share in _SHARES:
        own = _on_grid(span * np.float32(share / (most - least)))
        step = own / span
        # What is cut off is cut off at both ends alike.
        zero = np.clip(np.rint(least - (place + (1 - np.float32(share)) / 2) / step), least, most)
        errors = shares - step * (np.clip(np.rint(shares / step) + zero, least, most) - zero)
        damage = (np.square(errors, out=errors) * weights).sum(axis=-1, keepdims=True)
        is_better = damage < lowest
        scales, zeros, lowest = (
            np.where(is_better, new, old) for new, old in ((own, scales), (zero, zeros), (damage, lowest))
        )
    return scales.astype(np.float32), zeros.astype(np.float32)


_Rounded = tuple[npt.NDArray[np.int8], F32, npt.NDArray[np.int8]]


def _on_grid(values: F32) -> F32:
    # Between the least normal number and far below the largest, as blocks may be nearly zero.
    exponents = np.clip(np.rint(np.log2(values) * _GRID), -126 * _GRID, 120 * _GRID)
    grid: F32 = np.exp2(exponents / _GRID).astype(np.float32)
    return grid


def _rounded(values: F32, size: int, bits: int, feedback: F32, weights: F32) -> _Rounded:
    """Round rows `(outputs, inputs)`; return integers `(outputs, blocks, size)`, and what `best_ranges` does."""
    least = -float(1 << (bits - 1))
    wanted = np.ascontiguousarray(values.T)
    targets = wanted.copy()
    inputs, outputs = wanted.shape
    integers = np.empty((inputs, outputs), np.int8)
    scales, zeros = np.empty((outputs, inputs // size, 1), np.float32), np.zeros((outputs, inputs // size, 1), np.int8)
    errors = np.empty((size, outputs), np.float32)
    for block, start in enumerate(range(0, inputs, size)):
        stop = start + size
        rows = np.ascontiguousarray(targets[start:stop].T)
        if bits == ZERO_BITS:
            scales[:, block], zeros[:, block] = best_ranges(rows, bits, weights[start:stop])
        else:
            scales[:, block] = best_scales(rows, bits, weights[start:stop])
        own, zero = scales[:, block, 0], zeros[:, block, 0].astype(np.float32)
        for index in range(start, stop):
            before = index - start
            target = targets[index]
            if before:
                target += feedback[index, start:index] @ errors[:before]
            chosen = np.clip(np.rint(target / own) + zero, least, -least - 1)
            integers[index] = chosen
            np.subtract(wanted[index], (chosen - zero) * own, out=errors[before])
        targets[stop:] += feedback[stop:, start:stop] @ errors
    return np.ascontiguousarray(integers.T).reshape(outputs, -1, size), scales, zeros
