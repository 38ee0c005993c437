"""Round weights to integers of few bits in blocks of inputs, each with a scale of its own.

The largest weight of a block is clipped where that does less damage, by the moments of the inputs, and errors are
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
        self._kept: dict[tuple[str, int, int], tuple[npt.NDArray[np.int8], F32]] = {}

    def __call__(self, name: str, values: F32, size: int, bits: int) -> tuple[I32, F32] | None:
        """Return integers and scales of a weight; None where its inputs weren't measured.

        Args:
            name: of the weight.
            values: `(outputs, inputs)`.
            size: inputs of a block, which divides their number.
            bits: of an integer, of which the least is -2^(bits-1).

        Returns:
            Integers `(outputs, blocks, size)`, and scales of any sign `(outputs, blocks, 1)`.
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
            self._kept[key] = np.concatenate([each[0] for each in parts]), np.concatenate([each[1] for each in parts])
        integers, scales = self._kept[key]
        return integers.astype(np.int32), scales


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


def _on_grid(values: F32) -> F32:
    # Between the least normal number and far below the largest, as blocks may be nearly zero.
    exponents = np.clip(np.rint(np.log2(values) * _GRID), -126 * _GRID, 120 * _GRID)
    grid: F32 = np.exp2(exponents / _GRID).astype(np.float32)
    return grid


def _rounded(values: F32, size: int, bits: int, feedback: F32, weights: F32) -> tuple[npt.NDArray[np.int8], F32]:
    """Round rows `(outputs, inputs)`; return integers `(outputs, blocks, size)` and scales `(outputs, blocks, 1)`."""
    least = -float(1 << (bits - 1))
    wanted = np.ascontiguousarray(values.T)
    targets = wanted.copy()
    inputs, outputs = wanted.shape
    integers = np.empty((inputs, outputs), np.int8)
    scales = np.empty((outputs, inputs // size, 1), np.float32)
    errors = np.empty((size, outputs), np.float32)
    for block, start in enumerate(range(0, inputs, size)):
        stop = start + size
        scales[:, block] = best_scales(np.ascontiguousarray(targets[start:stop].T), bits, weights[start:stop])
        own = scales[:, block, 0]
        for index in range(start, stop):
            before = index - start
            target = targets[index]
            if before:
                target += feedback[index, start:index] @ errors[:before]
            chosen = np.clip(np.rint(target / own), least, -least - 1)
            integers[index] = chosen
            np.subtract(wanted[index], chosen * own, out=errors[before])
        targets[stop:] += feedback[stop:, start:stop] @ errors
    return np.ascontiguousarray(integers.T).reshape(outputs, -1, size), scales
