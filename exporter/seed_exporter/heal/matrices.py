"""Matrices that are trained with their bits in the loss, and what a seed holds of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from seed_exporter.graph.matrix import as_float32, coded_view
from seed_exporter.graph.model import Weight
from seed_exporter.heal.logistic import QuantizedRate
from seed_runtime.codecs.encode.grid import INTEGER_MAX, QuantizedMatrix
from seed_runtime.codecs.matrix import factors_of
from seed_runtime.codecs.symbols import STEP_LEAST

_PER_CODE: Final = 128
"""Elements along an axis from which on it gets codes of its own where a plan has none: a code takes some 3 bits."""
_GROWTH_GRID: Final = 64.0
"""Steps move on a grid of this many parts of a natural logarithm."""
_STRUCTURE: Final = 8.0
"""Bits of a living row beside its symbols."""
_OCTAVES: Final = 30
"""Largest distance of two rows' steps, in octaves; a decoder takes 32."""
_TABLE_MIDDLE: Final = 8 * 100
_TABLE: Final = np.ldexp(
    (8 + np.arange(2 * _TABLE_MIDDLE) % 8).astype(np.float32), np.arange(2 * _TABLE_MIDDLE) // 8 - 3 - 100
)
"""What codes of rows multiply a step by, exactly (`symbols.factors_of`), the code 0 in the middle."""


@dataclass(frozen=True, eq=False)
class Rate:
    """Bits of all matrices, differentiable, and which of their rows live.

    Attributes:
        symbols: bits of their symbols.
        structure: bits of living rows and columns, and of factors that stray.
        living: by name, `(rows,)`, 1 for a row with an integer that isn't 0.
    """

    symbols: Tensor
    structure: Tensor
    living: dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class _Stack:
    """Matrices of one shape, trained together."""

    weights: tuple[Weight, ...]
    starts: Tensor
    """`(matrices,)`, quantization steps at the start."""
    units: Tensor
    growth: Tensor
    rows: Tensor
    columns: Tensor
    taps: Tensor

    def trained(self) -> dict[str, Tensor]:
        """Return what is trained, by kind."""
        return {
            "units": self.units, "growth": self.growth,
            "rows": self.rows, "columns": self.columns, "taps": self.taps,
        }  # fmt: skip

    def grown(self) -> Tensor:
        """Return the logarithms of how much steps have grown, on their grid."""
        return self.growth + ((self.growth * _GROWTH_GRID).round() / _GROWTH_GRID - self.growth).detach()


class TrainedMatrices:
    """Matrices by shape.

    Args:
        weights: what is trained; their data is the start.
        step: quantization step at the start, in standard deviations of a matrix.
        device: where it is.
        plans: integers and steps to start from instead, by name; on no trellis.
    """

    def __init__(
        self,
        weights: Sequence[Weight],
        step: float,
        device: torch.device,
        plans: Mapping[str, QuantizedMatrix],
    ) -> None:
        by_shape: dict[tuple[int, int, int], list[Weight]] = {}
        for weight in weights:
            by_shape.setdefault(shape_of(weight), []).append(weight)
        self._stacks = [_stacked(members, shape, step, device, plans) for shape, members in by_shape.items()]
        self.names = frozenset(weight.name for weight in weights)
        self.count = sum(weight.count for weight in weights)
        self._table = torch.from_numpy(_TABLE).to(device)
        self.row_codes: dict[str, Tensor] = {}
        """By name, `(rows,)`: eighths of an octave by which rows' steps differ, not rounded; trained."""
        self.column_codes: dict[str, Tensor] = {}
        """The same of columns, `(columns,)`."""
        for weight in weights:
            if (plan := plans.get(weight.name)) is not None:
                rows, columns = plan.integers.shape
                for held, codes, count, others in (
                    (self.row_codes, plan.row_steps, rows, columns),
                    (self.column_codes, plan.col_steps, columns, rows),
                ):
                    if codes is not None or others >= _PER_CODE:
                        factors = np.ones(count, np.float32) if codes is None else factors_of(codes)
                        held[weight.name] = self._codes(factors)

    def parameters(self) -> dict[str, list[Tensor]]:
        """Return what is trained, by kind."""
        stacks = self._stacks
        return {
            "units": [stack.units for stack in stacks],
            "growth": [stack.growth for stack in stacks],
            "factors": [each for stack in stacks for each in (stack.rows, stack.columns, stack.taps)],
            "codes": [*self.row_codes.values(), *self.column_codes.values()],
        }

    def stacks(self) -> list[dict[str, Tensor]]:
        """Return what is trained of each stack by kind: units, growth, and factors of rows, columns and taps."""
        return [stack.trained() for stack in self._stacks]

    def parts(self, of: Callable[[Tensor], Tensor | None]) -> dict[str, dict[str, Tensor | None]]:
        """Return, by name of a matrix, its part of what belongs to each tensor that is trained.

        Args:
            of: gives what belongs to one, of its shape; None for nothing.
        """
        found: dict[str, dict[str, Tensor | None]] = {}
        for stack in self._stacks:
            belongings = {kind: of(tensor) for kind, tensor in stack.trained().items()}
            for index, weight in enumerate(stack.weights):
                found[weight.name] = {
                    kind: None if tensor is None else tensor[index].detach() for kind, tensor in belongings.items()
                }
        for kind, held in (("row_codes", self.row_codes), ("column_codes", self.column_codes)):
            for name, codes in held.items():
                found[name][kind] = of(codes)
        return found

    def of_parts(
        self,
        stacks: Sequence[Sequence[Weight]],
        parts: Sequence[Mapping[str, Tensor | None]],
        codes: Sequence[Mapping[str, Tensor | None]],
    ) -> TrainedMatrices:
        """Return other matrices that go on from parts of these, in the same steps.

        Args:
            stacks: weights of one shape each; their names are those of these.
            parts: of each stack, by the kinds of `stacks`.
            codes: of rows, and of columns, by name.
        """
        other, device = copy.copy(self), self._table.device

        def trained(tensor: Tensor | None) -> Tensor:
            assert tensor is not None
            return tensor.detach().to(device, torch.float32).clone().requires_grad_()

        starts = {each.name: stack.starts[i] for stack in self._stacks for i, each in enumerate(stack.weights)}
        other._stacks = [
            _Stack(
                tuple(members),
                torch.stack([starts[each.name] for each in members]),
                **{kind: trained(tensor) for kind, tensor in part.items()},
            )
            for members, part in zip(stacks, parts, strict=True)
        ]
        other.names = frozenset(each.name for members in stacks for each in members)
        other.count = sum(each.count for members in stacks for each in members)
        other.row_codes, other.column_codes = ({name: trained(each) for name, each in held.items()} for held in codes)
        return other

    def starts(self) -> list[Tensor]:
        """Return the steps at the start, which units are in."""
        return [stack.starts for stack in self._stacks]

    def weights(self) -> tuple[dict[str, Tensor], Rate]:
        """Return the weights as a decoder makes them, differentiable, and their rate."""
        found, living = {}, {}
        symbols, structure = [], []
        for stack in self._stacks:
            grown = stack.grown()
            rounded, bits, alone, alive = QuantizedRate.apply(
                stack.units, grown, stack.rows, stack.columns, stack.taps, _STRUCTURE
            )
            steps = stack.starts * torch.exp(grown)
            symbols.append(bits)
            strays = (_strays(stack.rows) * alive).sum() + 0.5 * _strays(stack.columns).sum()
            structure.append(alone + strays)
            for index, weight in enumerate(stack.weights):
                step, values = steps[index], rounded[index]
                if (codes := self.column_codes.get(weight.name)) is not None:
                    values = values * _Factors.apply(codes, self._table).view(1, *values.shape[1:])
                if (codes := self.row_codes.get(weight.name)) is not None:
                    step = (step * _Factors.apply(codes, self._table))[:, None, None]
                values = values * step
                found[weight.name] = _stored(values, weight).view(weight.shape)
                living[weight.name] = alive[index]
        return found, Rate(torch.stack(symbols).sum(), torch.stack(structure).sum(), living)

    def quantized(self) -> dict[str, QuantizedMatrix]:
        """Return what the coder takes of each matrix."""
        found = {}
        with torch.no_grad():
            for stack in self._stacks:
                grown = stack.grown()
                flat = (stack.units * torch.exp(-grown)[:, None, None, None]).round()
                flat = flat.clamp(-INTEGER_MAX, INTEGER_MAX).to(torch.int32).cpu()
                steps = (stack.starts * torch.exp(grown)).cpu().numpy()
                for index, weight in enumerate(stack.weights):
                    integers = flat[index].numpy().reshape(coded_view(weight))
                    rows, columns = (
                        None if (codes := held.get(weight.name)) is None else _on_table(codes).cpu().numpy()
                        for held in (self.row_codes, self.column_codes)
                    )
                    found[weight.name] = _matrix(integers, steps[index], rows, columns)
        return found

    def rounded(self) -> list[Tensor]:
        """Return the units of each stack at their integers."""
        with torch.no_grad():
            found = []
            for stack in self._stacks:
                grown = stack.grown()[:, None, None, None]
                found.append((stack.units * torch.exp(-grown)).round() * torch.exp(grown))
            return found

    def coarsen(self, places: int) -> None:
        """Move all steps up by places of their grid."""
        with torch.no_grad():
            for stack in self._stacks:
                stack.growth.add_(places / _GROWTH_GRID)

    def turn_rows(self, name: str, signs: np.ndarray) -> None:
        """Change the sign of the rows of a matrix where `signs` is negative."""
        turned = torch.from_numpy(np.where(signs < 0, -1.0, 1.0))[:, None, None]
        with torch.no_grad():
            for stack in self._stacks:
                for index, weight in enumerate(stack.weights):
                    if weight.name == name:
                        stack.units[index] *= turned.to(stack.units)

    def set_row_codes(self, name: str, factors: np.ndarray) -> None:
        """Give the rows of a matrix steps of their own: factors above 0, which are trained from now on."""
        self.row_codes[name] = self._codes(factors)

    def _codes(self, factors: np.ndarray) -> Tensor:
        codes = _code_of(factors).astype(np.float32)
        return torch.from_numpy(codes).to(self._table.device).requires_grad_()


def row_matrix(matrix: QuantizedMatrix, factors: np.ndarray) -> QuantizedMatrix:
    """Return a matrix whose rows are multiplied by factors of any sign, rounded as `row_codes` are."""
    codes = _code_of(np.maximum(np.abs(factors), STEP_LEAST))
    signs = np.where(factors < 0, -1, 1).astype(np.int32)[:, None]
    return _matrix(matrix.integers * signs, np.float32(matrix.step), np.rint(codes))


def _matrix(
    integers: np.ndarray, step: Any, rows: np.ndarray | None, columns: np.ndarray | None = None
) -> QuantizedMatrix:
    found: list[np.ndarray | None] = []
    for codes, axis in ((rows, 1), (columns, 0)):
        if codes is None:
            found.append(None)
            continue
        living = integers.any(axis=axis)
        whole = codes.astype(np.int64)
        # Whole octaves go into the step: nothing is rounded by that.
        base = 8 * (int(whole[living].min(initial=whole.max(initial=0)) if living.any() else 0) // 8)
        found.append(np.where(living, np.clip(whole - base, 0, 255), 0).astype(np.uint8))
        step = np.ldexp(np.float32(step), base // 8)
    return QuantizedMatrix(integers, max(float(step), STEP_LEAST), row_steps=found[0], col_steps=found[1])


def shape_of(weight: Weight) -> tuple[int, int, int]:
    """Return rows, columns and taps of a matrix: taps of a kernel where rows are its first axis."""
    rows, columns = coded_view(weight)
    if len(weight.shape) > 2 and rows == weight.shape[0] and columns == weight.count // rows:
        return rows, weight.shape[1], columns // weight.shape[1]
    return rows, columns, 1


def _stacked(
    weights: Sequence[Weight],
    shape: tuple[int, int, int],
    step: float,
    device: torch.device,
    plans: Mapping[str, QuantizedMatrix],
) -> _Stack:
    values = torch.stack([torch.from_numpy(as_float32(each).reshape(shape).copy()) for each in weights])
    starts = (step * values.double().flatten(1).std(1, unbiased=False)).clamp_min(STEP_LEAST).float()
    for index, weight in enumerate(weights):
        if plan := plans.get(weight.name):
            starts[index] = plan.step
    units = values / starts[:, None, None, None]
    for index, weight in enumerate(weights):
        if plan := plans.get(weight.name):
            # In the middle: of weights near a boundary the first steps would undo what was rounded together.
            units[index] = torch.from_numpy(plan.integers.astype(np.float32)).view(units.shape[1:])
    far = units.abs()
    mean = far.mean((1, 2, 3)).clamp_min(1e-6)

    def level(axes: tuple[int, int]) -> Tensor:
        return torch.log(far.mean(axes) / mean[:, None] + 1e-3)

    # A logistic's scale is .72 of its mean magnitude.
    columns = level((1, 3)) + (torch.log(mean) - 0.33)[:, None]
    parts = (units, torch.zeros(len(weights)), level((2, 3)), columns, level((1, 2)))
    trained = [part.contiguous().to(device).requires_grad_() for part in parts]
    return _Stack(tuple(weights), starts.to(device), *trained)


def _strays(factors: Tensor) -> Tensor:
    """Return how far factors are from their mean: what it costs to code them, about a bit for a unit."""
    return (factors - factors.detach().mean(1, keepdim=True)).abs()


def _stored(values: Tensor, weight: Weight) -> Tensor:
    """Return values as the element type of the weight holds them."""
    kind = {"float16": torch.float16, "bfloat16": torch.bfloat16}.get(weight.dtype.name)
    return values if kind is None else values.to(kind).to(values.dtype)


def _code_of(factors: np.ndarray) -> np.ndarray:
    """Return what codes stand for factors, between codes by the same straight line as `factors_of`.

    Those far below the largest one are raised to what a decoder takes beside it.
    """
    mantissa, exponent = np.frexp(factors.astype(np.float64))
    codes: np.ndarray = 8.0 * (exponent - 1) + 8.0 * (2 * mantissa - 1)
    codes = np.clip(codes, 1 - _TABLE_MIDDLE, _TABLE_MIDDLE - 1)
    return np.maximum(codes, codes.max(initial=0) - 8 * _OCTAVES)


def _on_table(codes: Tensor) -> Tensor:
    return codes.detach().round().clamp(1 - _TABLE_MIDDLE, _TABLE_MIDDLE - 1).to(torch.int64)


class _Factors(torch.autograd.Function):
    """Look up the factors of codes, exactly, with the gradient of 2 to the power of an eighth of the code."""

    @staticmethod
    def forward(context: Any, codes: Tensor, table: Tensor) -> Tensor:
        factors = table[_on_table(codes) + _TABLE_MIDDLE]
        context.save_for_backward(factors)
        return factors

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (factors,) = context.saved_tensors
        return gradients[0] * factors * (np.log(2) / 8), None
