"""How far outputs lie from the original's, with gradients: the measures of `evaluate.damage` in torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from seed_exporter.evaluate.damage import PROBABILITY_FLOOR, SUM_TOLERANCE


def damage(original: Mapping[str, Tensor], candidate: Mapping[str, Tensor], names: Sequence[str]) -> Tensor:
    """Add up what `auto` measures of each output: KL of probabilities, 1 - cosine of other rows, squared error else."""
    total = torch.zeros(())
    for name in names:
        total = total.to(candidate[name].device) + _auto(original[name], candidate[name])
    return total


def relative_error(original: Tensor, candidate: Tensor) -> Tensor:
    """Return the squared error over the square of the original."""
    return (candidate - original).square().sum() / original.square().sum().clamp_min(1e-12)


def _auto(original: Tensor, candidate: Tensor) -> Tensor:
    if original.dim() < 2 or original.shape[-1] < 2:
        return relative_error(original, candidate)
    if _is_probabilities(original):
        p, q = original.clamp_min(PROBABILITY_FLOOR), candidate.clamp_min(PROBABILITY_FLOOR)
        return (p * (p.log() - q.log())).sum(-1).mean()
    return (1 - torch.cosine_similarity(original, candidate, dim=-1)).mean()


def _is_probabilities(rows: Tensor) -> bool:
    return bool(rows.min() >= 0) and bool((rows.sum(-1) - 1).abs().max() <= SUM_TOLERANCE)
