"""Judge a network in fp32 on validation or held-out samples: verdicts a sample, which intervals need."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .inputs import BLANK


def inputs_of(x: Tensor) -> tuple[Tensor, ...]:
    """Return what a classifier takes of images, or of token ids; blanks are masked."""
    return (x,) if x.is_floating_point() else (x, (x != BLANK).long())


def logits_of(model: nn.Module, x: Tensor) -> Tensor:
    """Return the logits of images or token ids."""
    found: Tensor = model(*inputs_of(x))
    return found


@torch.no_grad()
def answers(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the class that is found for each sample, and its label, both `(n,)`; the network is left evaluating."""
    model.eval()
    found = [(logits_of(model, x).argmax(1), y) for x, y in batches]
    first, second = (torch.cat(parts).cpu().numpy() for parts in zip(*found, strict=True))
    return first, second


def held_verdicts(model: nn.Module, task: Any) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Judge a network on the whole held-out side of its task, in fp32.

    Returns:
        Right or wrong, or mean negative log-likelihood, of each sample `(n,)`; of classifiers also `answer` and
        `cluster` of each.
    """
    if not hasattr(task, "classes"):
        return negative_log_likelihood(model, task.held()), {}
    found, labels = answers(model, task.held())
    return found == labels, {"cluster": task.held_clusters, "answer": found}


def right(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> np.ndarray:
    """Return whether each sample's class is found, `(n,)` bool."""
    found, labels = answers(model, batches)
    return np.asarray(found == labels)


@torch.no_grad()
def negative_log_likelihood(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> np.ndarray:
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
