"""How large gradients are, and how many are left out: what a training that doesn't recover is asked first."""

from __future__ import annotations

import torch
from torch import Tensor


class GradientNorms:
    """Counts gradients on the device: steps that are recorded count as well, and nothing waits for them.

    Args:
        device: where they are.
    """

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(3, device=device)
        self._skipped = 0

    def add(self, norm: Tensor) -> None:
        """Count a gradient by its norm; one that isn't finite was left out."""
        finite = torch.isfinite(norm)
        self._sums += torch.stack([(~finite).to(norm.dtype), finite.to(norm.dtype), norm.where(finite, 0)])

    def read(self) -> tuple[float, int]:
        """Return the mean norm since the last time, 0 without any, and how many were left out so far."""
        skipped, count, total = self._sums.tolist()
        self._sums.zero_()
        self._skipped += round(skipped)
        return total / max(1, count), self._skipped
