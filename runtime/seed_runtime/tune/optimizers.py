"""Optimizers on NumPy arrays: state and values are changed in place.

Source: Kingma and Ba, "Adam" (ICLR 2015); Sutskever et al., "On the importance of initialization and momentum" (ICML
2013).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]

MOMENTUM: Final = 0.9
DECAYS: Final = (0.9, 0.999)
"""Decays of Adam's means of gradients and of their squares."""
_LEAST: Final = 1e-8


class Optimizer(Protocol):
    """Changes arrays by their gradients.

    Attributes:
        count: steps that were taken.
        slots: its state: one or several arrays for each.
    """

    count: int
    slots: tuple[list[F32], ...]

    def step(self, gradients: Sequence[F32], rate: float) -> None:
        """Change the arrays; the gradients are used up."""
        ...


class Sgd:
    """Gradient descent with momentum. State: one array for each."""

    def __init__(self, values: Sequence[F32]) -> None:
        self._values, self.count = values, 0
        self.slots: tuple[list[F32], ...] = ([np.zeros_like(value) for value in values],)

    def step(self, gradients: Sequence[F32], rate: float) -> None:
        """Change the arrays (see `Optimizer`)."""
        self.count += 1
        for value, moved, gradient in zip(self._values, *self.slots, gradients, strict=True):
            moved *= MOMENTUM
            moved += gradient
            np.multiply(moved, rate, out=gradient)
            value -= gradient


class Adam:
    """Adam. State: two arrays for each."""

    def __init__(self, values: Sequence[F32]) -> None:
        self._values, self.count = values, 0
        self.slots: tuple[list[F32], ...] = tuple([np.zeros_like(value) for value in values] for _ in range(2))

    def step(self, gradients: Sequence[F32], rate: float) -> None:
        """Change the arrays (see `Optimizer`)."""
        self.count += 1
        scales = [1 - decay**self.count for decay in DECAYS]
        for value, first, second, gradient in zip(self._values, *self.slots, gradients, strict=True):
            first *= DECAYS[0]
            first += (1 - DECAYS[0]) * gradient
            np.square(gradient, out=gradient)
            gradient *= 1 - DECAYS[1]
            second *= DECAYS[1]
            second += gradient
            np.divide(second, scales[1], out=gradient)
            np.sqrt(gradient, out=gradient)
            gradient += _LEAST
            np.divide(first, gradient, out=gradient)
            gradient *= rate / scales[0]
            value -= gradient


OPTIMIZERS: Final[dict[str, Callable[[Sequence[F32]], Optimizer]]] = {"adam": Adam, "sgd": Sgd}
