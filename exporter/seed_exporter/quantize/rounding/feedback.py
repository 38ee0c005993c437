"""Error feedback: each input's rounding error is compensated by the inputs that are rounded after it.

An error E `(outputs, inputs)` of a group moves its outputs by tr(E M E'), M the moments of its inputs. With M = R R',
R upper triangular, that is the squared norm of E R: input j adds its pivot R_jj^2 times the square of
e_j + sum over i < j of e_i R_ij / R_jj. So it is rounded towards its weight plus what earlier errors ask for, and only
the difference counts.

Source: Frantar et al., "GPTQ" (arXiv 2210.17323); in this form Chen et al., "The Geometry of LLM Quantization: GPTQ as
Babai's Nearest Plane Algorithm" (arXiv 2507.18553).
"""

from __future__ import annotations

from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from seed_runtime.codecs.encode.grid import INTEGER_MAX

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]

_BLOCK: Final = 64
"""Inputs that are rounded one by one before one product hands their errors on to all later ones.

Passes over 384 x 1536 and 1536 x 384 take least time at 32 to 128.
"""
_INVERSE_BLOCK: Final = 64
"""Size below which a triangular matrix is inverted as a whole."""
_GROUP_SHARE: Final = 0.01
"""Share of the mean group's scale by which a group is damped beside its own, so that a dead group has a factor."""


class Choice(Protocol):
    """Chooses integers for one input of every group."""

    def __call__(self, scaled: F32, index: int) -> F32:
        """Return integers as float32 for `scaled` weights `(groups, outputs)` of input `index`; may overwrite them."""


def factor(moments: npt.NDArray[np.floating], damping: float) -> tuple[F32, F64]:
    """Factor damped moments.

    Args:
        moments: `(groups, inputs, inputs)`, symmetric.
        damping: what is added to the diagonal, as a share of a group's mean diagonal.

    Returns:
        The feedback, `(groups, inputs, inputs)`, lower triangular with ones on the diagonal: row j has what errors of
        the inputs before j ask of input j. And the pivots, `(groups, inputs)`.

    Raises:
        numpy.linalg.LinAlgError: the damped moments are not positive definite.
    """
    damped = moments.astype(np.float64)
    diagonal = np.einsum("gii->gi", damped)
    scales = diagonal.mean(axis=1)
    diagonal += (damping * (scales + _GROUP_SHARE * scales.mean()))[:, None] + np.finfo(np.float32).tiny
    # The factor of the reversed matrix is lower triangular; reversed again, it is R.
    upper = np.linalg.cholesky(damped[:, ::-1, ::-1])[:, ::-1, ::-1]
    roots = np.einsum("gii->gi", upper)
    feedback = np.ascontiguousarray((upper / roots[:, None]).transpose(0, 2, 1), dtype=np.float32)
    return feedback, np.square(roots)


def left_out_pivots(feedback: F32, moments: npt.NDArray[np.floating]) -> F64:
    """Compute what errors of each input cost under other moments than those that the feedback was made for.

    Args:
        feedback: see `factor`.
        moments: `(groups, inputs, inputs)`.

    Returns:
        `(groups, inputs)`, the diagonal of U M U': a difference r between an input's rounded value and what it was
        rounded towards makes errors r U_j in all inputs, U the inverse of the feedback's transpose.
    """
    spread = inverse_of_unit_lower(feedback).transpose(0, 2, 1)
    product = np.matmul(spread, moments.astype(np.float32, copy=False))
    pivots = np.einsum("gij,gij->gi", product, spread, dtype=np.float64)
    # None is negative but by rounding, which moments of nearly equal inputs leave nothing else of.
    scales = np.einsum("gii->gi", moments).mean(axis=1, dtype=np.float64)
    return np.maximum(pivots, np.finfo(np.float32).eps * scales[:, None])


def inverse_of_unit_lower(matrix: F32) -> F32:
    """Invert lower triangular matrices `(groups, n, n)` with ones on the diagonal, mostly by products of blocks."""
    size = matrix.shape[1]
    if size <= _INVERSE_BLOCK:
        return np.tril(np.linalg.inv(matrix))
    half = size // 2
    inverse = np.zeros_like(matrix)
    first, second = inverse_of_unit_lower(matrix[:, :half, :half]), inverse_of_unit_lower(matrix[:, half:, half:])
    inverse[:, :half, :half], inverse[:, half:, half:] = first, second
    inverse[:, half:, :half] = -np.matmul(second, np.matmul(matrix[:, half:, :half], first))
    return inverse


def round_with_feedback(weights: F32, steps: F32, feedback: F32, choose: Choice | None = None) -> I32:
    """Round inputs one after the other, each towards its weight plus what earlier errors ask for.

    Args:
        weights: `(groups, inputs, outputs)`.
        steps: `(groups, inputs)`, the quantization step of each input, in weight units.
        feedback: see `factor`.
        choose: chooses integers for weights in steps; None to round to nearest.

    Returns:
        Integers, `(groups, inputs, outputs)`, of magnitude INTEGER_MAX at most.
    """
    groups, inputs, outputs = weights.shape
    integers = np.empty(weights.shape, np.int32)
    targets = weights.copy()
    errors = np.empty((groups, min(_BLOCK, inputs), outputs), np.float32)
    scaled = np.empty((groups, outputs), np.float32)
    inverse_steps = 1 / steps
    for start in range(0, inputs, _BLOCK):
        stop = min(start + _BLOCK, inputs)
        for index in range(start, stop):
            target, before = targets[:, index], index - start
            if before:
                target += np.matmul(feedback[:, index : index + 1, start:index], errors[:, :before])[:, 0]
            np.multiply(target, inverse_steps[:, index, None], out=scaled)
            np.clip(scaled, -INTEGER_MAX, INTEGER_MAX, out=scaled)
            chosen = np.rint(scaled, out=scaled) if choose is None else choose(scaled, index)
            integers[:, index] = chosen
            np.multiply(chosen, steps[:, index, None], out=chosen)
            np.subtract(weights[:, index], chosen, out=errors[:, before])
        if stop < inputs:
            targets[:, stop:] += np.matmul(feedback[:, stop:, start:stop], errors[:, : stop - start])
    return integers
