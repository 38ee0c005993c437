"""Covariance: the second moments of what a matrix is multiplied by, measured on several parts of the inputs."""

from __future__ import annotations

import mmap
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Covariance:
    """Second moments of the inputs of a weight, as `graph.linear.LinearView` orders them. Equal only to itself.

    An error E `(outputs, inputs)` of a group moves its outputs by tr(E M E') on average over positions, M the moments.
    They are not centred: a mean moves outputs as well.

    Attributes:
        moments: `(parts, groups, inputs, inputs)`, the mean of x x' over the positions of each part; may be a
            read-only map of a file.
        positions: `(parts,)`, number of positions (tokens, pixels) that were averaged.
    """

    moments: F32
    positions: npt.NDArray[np.int64]

    def total(self, without: int | None = None) -> F32:
        """Compute the mean of x x' over all parts but one, `(groups, inputs, inputs)`."""
        shares = self.positions.astype(np.float64)
        if without is not None:
            shares[without] = 0
        shares /= max(1.0, shares.sum())
        return np.einsum("p,pgij->gij", shares.astype(np.float32), self.moments, optimize=True)

    def release(self) -> None:
        """Give up the memory of moments that are in a file; they are read from there again where they are needed."""
        mapped = getattr(self.moments, "_mmap", None)
        if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)
