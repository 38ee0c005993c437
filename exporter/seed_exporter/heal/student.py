"""What is trained: integers in steps, steps, and vectors, and the plans that they end in.

A weight is `step * round(u)` times the fixed factors of its row and column, with `u = weight / step`. The weight is
trained by the gradient of the rounded one (straight through), in steps of its start, so that one learning rate suits
tensors of any scale; the step is trained in its logarithm: the rate pulls it up, rounding errors pull it down.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seed_exporter.codecs.base import Plan
from seed_exporter.codecs.exact import ExactPlan
from seed_exporter.codecs.grid import GridPlan
from seed_exporter.graph.kinds import Kind, kind_of
from seed_exporter.graph.matrix import as_float32, fits_a_stream
from seed_exporter.graph.model import Graph, Weight
from seed_runtime.codecs.encode.grid import INTEGER_MAX, QuantizedMatrix
from seed_runtime.codecs.symbols import STEP_LEAST

_MARGIN: Final = 0.45
"""Farthest from its integer that a weight starts, in steps: the start is the plan's integer, whatever the original."""
_VECTOR_STEPS: Final = 48.0
"""Steps of a vector in its root mean square, where the plan keeps it as floats."""


@dataclass(frozen=True, eq=False)
class _Part:
    """One trained weight within the flat tensor of all.

    Attributes:
        weight: the weight.
        start: integers and steps that it starts from.
        factors: `(rows, cols)` or less, what multiplies integers besides the step; None for nothing.
        at: where it lies in the flat tensor.
    """

    weight: Weight
    start: QuantizedMatrix
    factors: Tensor | None
    at: slice


class Student:
    """The trained weights of one graph.

    Args:
        graph: the graph; it stays as it is.
        plans: where training starts. Grids are trained with the rate, vectors without; what is neither stays.
        device: where the weights are.
    """

    def __init__(self, graph: Graph, plans: Mapping[str, Plan], device: torch.device) -> None:
        self.device = device
        matrices, vectors = {}, {}
        for name, plan in plans.items():
            if isinstance(plan, GridPlan):
                matrices[name] = plan.quantize(graph.weights[name])
            elif isinstance(plan, ExactPlan) and (vector := _as_grid(graph.weights[name])) is not None:
                vectors[name] = vector
        self._matrices, self._vectors = self._parts(graph, matrices), self._parts(graph, vectors)
        self.matrices = self._in_steps(self._matrices)
        self.vectors = self._in_steps(self._vectors)
        self.coarsened = torch.zeros(len(self._matrices), device=device).requires_grad_()
        self._sizes = torch.tensor([part.start.integers.size for part in self._matrices], device=device)

    def parameters(self) -> list[Tensor]:
        """Return matrices and vectors in steps of their start, and logarithms of how much steps have grown."""
        return [self.matrices, self.coarsened, self.vectors]

    def units(self) -> Tensor:
        """Return all matrices in their steps as they are now, flat, not rounded."""
        return self.matrices * torch.exp(-self.coarsened).repeat_interleave(self._sizes)

    def weights(self, units: Tensor) -> dict[str, Tensor]:
        """Return the weights as a device would have them, with gradients.

        Args:
            units: what `units` returns.
        """
        found = {}
        rounded, growth = _straight_through(units), torch.exp(self.coarsened)
        for index, part in enumerate(self._matrices):
            found[part.weight.name] = _laid_out(part, rounded[part.at], part.start.step * growth[index])
        rounded = _straight_through(self.vectors)
        for part in self._vectors:
            found[part.weight.name] = _laid_out(part, rounded[part.at], part.start.step)
        return found

    def integers(self) -> list[npt.NDArray[np.int32]]:
        """Return the integers of the matrices, `(rows, cols)` each."""
        flat = _integers(self.units())
        return [flat[part.at].reshape(part.start.integers.shape) for part in self._matrices]

    def plans(self) -> dict[str, Plan]:
        """Plan to code the weights as they are now."""
        growth = torch.exp(self.coarsened.detach()).tolist()
        steps = [part.start.step * factor for part, factor in zip(self._matrices, growth, strict=True)]
        pairs = [*zip(self._matrices, self.integers(), steps, strict=True)]
        flat = _integers(self.vectors)
        pairs += [(p, flat[p.at].reshape(p.start.integers.shape), p.start.step) for p in self._vectors]
        return {
            part.weight.name: GridPlan.of(
                QuantizedMatrix(
                    integers,
                    max(float(np.float32(step)), STEP_LEAST),
                    row_steps=part.start.row_steps,
                    col_steps=part.start.col_steps,
                )
            )
            for part, integers, step in pairs
        }

    def state(self) -> list[Tensor]:
        """Return a copy of all that is trained."""
        return [parameter.detach().clone() for parameter in self.parameters()]

    def restore(self, state: list[Tensor]) -> None:
        """Go back to a state."""
        with torch.no_grad():
            for parameter, before in zip(self.parameters(), state, strict=True):
                parameter.copy_(before)

    def _parts(self, graph: Graph, starts: Mapping[str, QuantizedMatrix]) -> list[_Part]:
        parts, first = [], 0
        for name, start in starts.items():
            size = start.integers.size
            parts.append(_Part(graph.weights[name], start, self._factors(start), slice(first, first + size)))
            first += size
        return parts

    def _factors(self, start: QuantizedMatrix) -> Tensor | None:
        if start.row_steps is None and start.col_steps is None:
            return None
        ones = QuantizedMatrix(
            np.ones_like(start.integers), 1.0, row_steps=start.row_steps, col_steps=start.col_steps
        )  # fmt: skip
        return torch.from_numpy(ones.values()).to(self.device)

    def _in_steps(self, parts: list[_Part]) -> Tensor:
        """Return the originals in steps, as near to the integers that the plan holds as makes them these."""
        flat = [np.zeros(0, np.float32)]
        for part in parts:
            scale = np.float32(part.start.step)
            if part.factors is not None:
                scale = scale * part.factors.cpu().numpy()
            original = as_float32(part.weight).reshape(part.start.integers.shape) / scale
            integers = part.start.integers.astype(np.float32)
            flat.append(np.clip(original, integers - _MARGIN, integers + _MARGIN).reshape(-1))
        return torch.from_numpy(np.concatenate(flat)).to(self.device).requires_grad_()


def _as_grid(weight: Weight) -> QuantizedMatrix | None:
    """Return a vector on a fine grid; None of what can't be one, or is nothing but zeros."""
    if kind_of(weight) is Kind.EXACT or not fits_a_stream(weight) or not weight.count:
        return None
    values = as_float32(weight)
    scale = float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
    if not np.isfinite(scale) or scale < STEP_LEAST * _VECTOR_STEPS:
        return None
    step = float(np.float32(scale / _VECTOR_STEPS))
    integers = np.clip(np.rint(values / np.float32(step)), -INTEGER_MAX, INTEGER_MAX)
    return QuantizedMatrix(integers.astype(np.int32), step)


def _straight_through(units: Tensor) -> Tensor:
    return units + (units.round() - units).detach()


def _integers(units: Tensor) -> npt.NDArray[np.int32]:
    found: npt.NDArray[np.int32] = units.detach().round().clamp(-INTEGER_MAX, INTEGER_MAX).to(torch.int32).cpu().numpy()
    return found


def _laid_out(part: _Part, rounded: Tensor, step: Tensor | float) -> Tensor:
    values = rounded * step
    if part.factors is not None:
        values = values.view(part.factors.shape) * part.factors
    return values.view(part.weight.shape)
