"""How far outputs lie from the original's, with gradients: the measures of `evaluate.damage` in torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from seed_exporter.evaluate.damage import PROBABILITY_FLOOR, SUM_TOLERANCE

_FLOOR: Final = 1e-30
"""Least probability whose logarithm has a gradient in `distance`: answers that are wrong and sure must have one."""
UNLABELLED: Final = -100
"""Label of a decision that has none."""


def damage(
    original: Mapping[str, Tensor], candidate: Mapping[str, Tensor], names: Sequence[str], scores: Collection[str] = ()
) -> Tensor:
    """Add up what `auto` measures of each output: KL of probabilities, 1 - cosine of other rows, squared error else.

    Args:
        original: the original's outputs.
        candidate: the candidate's.
        names: outputs to look at.
        scores: those of them whose KL counts as well. Logits of 1,000 classes had a mean of -19 and a deviation of .75:
            their cosine says how large the mean is. Of two seeds of a student that with a fifth of the other's damage,
            by cosine, was right in 85.6 %, the other one in 87.7 %.
    """
    lost = [_auto(original[name], candidate[name]) for name in names]
    lost += [
        _softened(original[name], candidate[name], 1.0)
        for name in names
        if name in scores and _has_rows(original[name]) and not _is_probabilities(original[name])
    ]
    return torch.stack(lost).sum()


def relative_error(original: Tensor, candidate: Tensor) -> Tensor:
    """Return the squared error over the square of the original."""
    return (candidate - original).square().sum() / original.square().sum().clamp_min(1e-12)


def _auto(original: Tensor, candidate: Tensor) -> Tensor:
    if not _has_rows(original):
        return relative_error(original, candidate)
    if _is_probabilities(original):
        p, q = original.clamp_min(PROBABILITY_FLOOR), candidate.clamp_min(PROBABILITY_FLOOR)
        return (p * (p.log() - q.log())).sum(-1).mean()
    return (1 - torch.cosine_similarity(original, candidate, dim=-1)).mean()


def _has_rows(output: Tensor) -> bool:
    return output.dim() >= 2 and output.shape[-1] >= 2


def _is_probabilities(rows: Tensor) -> bool:
    return bool(rows.min() >= 0) and bool((rows.sum(-1) - 1).abs().max() <= SUM_TOLERANCE)


def distance(
    original: Mapping[str, Tensor],
    candidate: Mapping[str, Tensor],
    names: Sequence[str],
    scores: Collection[str],
    probabilities: Collection[str],
    temperature: float,
) -> Tensor:
    """Add up what healing makes small: KL of scores at a temperature, the measures of `damage` of other outputs.

    Args:
        original: the original's outputs.
        candidate: the student's.
        names: outputs to look at.
        scores: those of them whose largest entry is a decision.
        probabilities: those of them whose rows are probabilities, as `probabilities_of` says: to ask a GPU for each
            batch would make it wait.
        temperature: of scores and probabilities: above 1 what a model holds of wrong classes counts more.
    """
    lost = []
    for name in names:
        first, second = original[name], candidate[name]
        if name in probabilities:
            found = _softened(first.clamp_min(_FLOOR).log(), second.clamp_min(_FLOOR).log(), temperature)
        elif not _has_rows(first):
            found = relative_error(first, second)
        else:
            found = (1 - torch.cosine_similarity(first, second, dim=-1)).mean()
            if name in scores:
                found = found + _softened(first, second, temperature)
        lost.append(found)
    return torch.stack(lost).sum()


def as_floats(answers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return answers in single precision: of half precision their distances would be rounded to nothing."""
    return {name: value.float() if value.is_floating_point() else value for name, value in answers.items()}


def probabilities_of(outputs: Mapping[str, Tensor]) -> frozenset[str]:
    """Return the names of the outputs whose rows are probabilities."""
    return frozenset(name for name, rows in outputs.items() if _has_rows(rows) and _is_probabilities(rows))


def labelled_output(labels: Tensor, outputs: Mapping[str, Tensor], names: Sequence[str]) -> str | None:
    """Return the first output that has a row of scores for each label; None where there is none."""
    for name in names:
        found = outputs[name]
        if found.dim() >= 2 and found.shape[-1] >= 2 and found.numel() == labels.numel() * found.shape[-1]:
            return name
    return None


def cross_entropy(labels: Tensor, rows: Tensor, are_probabilities: bool) -> Tensor:
    """Compute the mean cross-entropy of the rows that have a label.

    Args:
        labels: of all rows; what is no class, such as UNLABELLED, is none.
        rows: scores, or probabilities.
        are_probabilities: which of both.
    """
    classes, wanted = rows.shape[-1], labels.reshape(-1)
    known = (wanted >= 0) & (wanted < classes)
    logs = rows.clamp_min(_FLOOR).log() if are_probabilities else rows
    wanted = wanted.masked_fill(~known, UNLABELLED)
    lost = functional.cross_entropy(logs.reshape(-1, classes), wanted, ignore_index=UNLABELLED, reduction="sum")
    return lost / known.sum().clamp_min(1)


def _softened(original: Tensor, candidate: Tensor, temperature: float) -> Tensor:
    first = torch.log_softmax(original / temperature, -1)
    second = torch.log_softmax(candidate / temperature, -1)
    return temperature**2 * (first.exp() * (first - second)).sum(-1).mean()
