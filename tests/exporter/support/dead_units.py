"""Units of networks that are trained, set to 0 as a rate penalty does."""

from __future__ import annotations

from typing import Any


def kill(trained: Any, name: str, rows: slice) -> None:
    """Set outputs of a matrix to 0: the first axis of a kernel, the last one of a product's matrix."""
    import torch

    with torch.no_grad():
        for stack in trained.matrices._stacks:
            for index, weight in enumerate(stack.weights):
                if weight.name == name:
                    units = stack.units[index].view(weight.shape)
                    (units if len(weight.shape) == 4 else units.movedim(-1, 0))[rows] = 0
