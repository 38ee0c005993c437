"""Singular values and vectors of a weight matrix, for the codecs that keep few directions of it."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

_WHOLE_SIDE: Final = 1536
"""Longest shorter side of a matrix whose Gram matrix is decomposed as a whole (0.7 s on one core); beyond it, a random
subspace is."""
ROWS_AT_ONCE: Final = 4096
"""Number of rows held in float64 at a time: an embedding of 40 million weights would take 300 MiB as a whole."""


def spectrum(weights: F32, count: int) -> tuple[F64, F32]:
    """Compute the largest singular values and their right unit vectors.

    Args:
        weights: `(rows, cols)`, finite.
        count: most values that are wanted.

    Returns:
        `(k,)` values, the largest first, and `(k, cols)` vectors, k <= count.

    Source: Halko, Martinsson, Tropp, arXiv:0909.4061, for matrices both of whose sides are long.
    """
    if weights.shape[0] < weights.shape[1]:
        values, left = spectrum(np.ascontiguousarray(weights.T), count)
        return values, left @ weights / values.astype(np.float32)[:, None]
    side, projected, basis = weights.shape[1], weights, None
    if side > _WHOLE_SIDE:
        # Power iterations on a random subspace.
        basis = np.random.default_rng(0).standard_normal((side, min(side, count + 16)), np.float32)
        for _ in range(3):
            basis = np.linalg.qr(weights.T @ (weights @ basis))[0]
        projected = weights @ basis
    gram = np.zeros((projected.shape[1],) * 2)
    for start in range(0, len(projected), ROWS_AT_ONCE):
        block = projected[start : start + ROWS_AT_ONCE].astype(np.float64)
        gram += block.T @ block
    squares, vectors = np.linalg.eigh(gram)
    values = np.sqrt(np.maximum(squares[::-1], 0))
    # What lies below is the rounding of the squares.
    kept = min(count, int((values > 1e-6 * values[0]).sum()))
    right = vectors[:, ::-1][:, :kept].astype(np.float32)
    return values[:kept], (right if basis is None else basis @ right).T
