"""Judge a network in fp32 on validation or held-out samples: verdicts a sample, which intervals need."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from .inputs import BLANK


def logits_of(model: nn.Module, x: Tensor) -> Tensor:
    """Return the logits of images or token ids; blanks are masked."""
    found: Tensor = model(x) if x.is_floating_point() else model(x, (x != BLANK).long())
    return found


@torch.no_grad()
def answers(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the class that is found for each sample, and its label, both `(n,)`; the network is left evaluating."""
    model.eval()
    found = [(logits_of(model, x).argmax(1), y) for x, y in batches]
    first, second = (torch.cat(parts).cpu().numpy() for parts in zip(*found, strict=True))
    return first, second


def right(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> np.ndarray:
    """Return whether each sample's class is found, `(n,)` bool."""
    found, labels = answers(model, batches)
    return np.asarray(found == labels)


@torch.no_grad()
def surprise(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> np.ndarray:
    """Return the mean negative log-likelihood of each window [nat a token], `(n,)` float64."""
    model.eval()
    found = []
    for ids, following in batches:
        logits = model(ids)
        losses = nn.functional.cross_entropy(logits.float().flatten(0, 1), following.flatten(), reduction="none")
        found.append(losses.view(following.shape).double().mean(1))
    return torch.cat(found).cpu().numpy()


def distillation(logits: Tensor, target: Tensor, temperature: float = 2.0) -> Tensor:
    """Return the mean KL divergence from the teacher's softened answers, times the temperature squared.

    Source: Hinton et al. 2015, section 2.
    """
    of_student = nn.functional.log_softmax(logits.float() / temperature, -1)
    of_teacher = nn.functional.log_softmax(target.float() / temperature, -1)
    return (of_teacher.exp() * (of_teacher - of_student)).sum(-1).mean() * temperature**2
