"""Integers of few bits for planned weights: as planned where they fit, with larger steps where they don't.

A plan's integers have one step, or one for each row of its matrix. Where all fit the target, they are the device's.
Otherwise those channels, or blocks of inputs, that hold a larger one get a larger step, in eighths of an octave, and
are rounded to nearest again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from seed_exporter.codecs import codec_of
from seed_exporter.codecs.base import Plan
from seed_exporter.codecs.grid import GridPlan
from seed_exporter.graph.index import GraphIndex
from seed_exporter.graph.kinds import Kind, kind_of, matrix_min
from seed_exporter.graph.matrix import as_float32
from seed_exporter.graph.model import Graph, Weight
from seed_runtime.codecs.matrix import factors_of

I32 = npt.NDArray[np.int32]
F32 = npt.NDArray[np.float32]

Rounding = Callable[[str, F32, int, int], tuple[I32, F32, I32 | None] | None]
"""Rounds a weight `(outputs, inputs)` by its name, the size of a block and the bits of an integer, to integers
`(outputs, blocks, size)`, scales `(outputs, blocks, 1)` and the integers that stand for 0, None for 0 itself. None
where nothing is known of its inputs."""

BLOCKS: Final = (128, 64, 32, 16)
"""Sizes that a block of inputs may have, the largest first: MatMulNBits takes these."""
ROUNDED_MOST: Final = 0.05
"""Share of a weight's blocks that may need a larger step, where larger ones are taken: a scale is four bytes."""
ROUNDED_SIZE: Final = 64
"""Largest block where all have scales of their own: half the scales of blocks of 32, which a session holds three
times."""
_SCALE_BITS: Final = 16
"""Low bits of a scale that are 0 where no plan gives its step."""
_CODES: Final = factors_of(np.arange(256, dtype=np.uint8))


@dataclass(frozen=True)
class Grid:
    """Integers of a weight and their steps.

    Attributes:
        integers: in the weight's shape.
        scales: steps, `()` for one, or of a shape that broadcasts to the weight's.
        planned: True if all integers are the plan's.
        zeros: integers that stand for 0, in the shape of the scales; None for 0 itself.
    """

    integers: I32
    scales: F32
    planned: bool
    zeros: I32 | None = None

    @property
    def step(self) -> float:
        """The step of most integers, in weight units."""
        return float(np.median(np.abs(self.scales)))


def matrices(graph: Graph, index: GraphIndex) -> Iterator[Weight]:
    """Yield the weights that carry size, so that a target stores them in fewer bits."""
    least = matrix_min(graph)
    fixed = {value.name for value in index.graph.input} | index.returned
    for name, weight in graph.weights.items():
        # What callers may replace, or nested graphs call by the same name, stays a float.
        if name in fixed or index.definitions[name] > 1:
            continue
        if weight.dtype.name != "float32" or kind_of(weight, least) is not Kind.MATRIX:
            continue
        # No step holds an infinity, or what is no number.
        if np.isfinite(weight.data).all():
            yield weight


def other_floats(graph: Graph) -> list[str]:
    """Return the types of floats, other than float32, of weights that carry size; targets leave these as they are."""
    least = matrix_min(graph)
    kinds = ((weight.dtype.name, kind_of(weight, least)) for weight in graph.weights.values())
    return sorted({name for name, kind in kinds if kind is Kind.MATRIX and name != "float32"})


def by_channel(
    weight: Weight, plan: Plan, axis: int | None, largest: int, least: F32 | None = None, pairs: int | None = None
) -> Grid:
    """Return integers of a magnitude of at most `largest`, with a step for each channel where one step isn't enough.

    Args:
        weight: the source's.
        plan: of the weight.
        axis: whose entries may have steps of their own; None where all have one.
        largest: least and largest integer, without sign.
        least: least step of each channel, `(channels,)`; None for any.
        pairs: largest sum, without sign, of two integers of one sign that a channel's kernel multiplies side by side,
            more than `largest`; None for any.
    """
    needed: F32 = np.zeros((), np.float32)
    if least is not None and axis is not None:
        needed = least.astype(np.float32).reshape([-1 if each == axis else 1 for each in range(len(weight.shape))])
    others = tuple(each for each in range(len(weight.shape)) if each != axis)
    found = _planned(weight, plan, axis)
    if found is None:
        values = _restored(weight, plan).reshape(weight.shape)
        most = np.abs(values).max(axis=others, keepdims=True)
        own = np.where(most > 0, most / np.float32(largest), np.float32(1))
        if pairs is not None and axis is not None:
            own = np.maximum(own, _pair_sums(values, axis) / np.float32(pairs - 1))
        scales = _rounded_up(np.maximum(own, needed))
        integers = _nearest(values, scales, -largest, largest)
        return Grid(integers, scales if axis is not None else scales.reshape(()), False)
    integers, scales = found
    far = (np.abs(integers) > largest).any(axis=others, keepdims=True) | (scales < needed)
    if pairs is not None and axis is not None:
        far |= _pair_sums(integers, axis) > pairs
    if not far.any():
        return Grid(integers, scales, True)
    values = as_float32(weight).reshape(weight.shape)
    most = np.abs(values).max(axis=others, keepdims=True)
    reach = np.maximum(most / (largest + np.float32(0.49)), needed)
    if pairs is not None and axis is not None:
        reach = np.maximum(reach, _pair_sums(values, axis) / np.float32(pairs - 1))
    wider = np.where(far, _enlarged(np.broadcast_to(scales, far.shape), reach), scales)
    wider = wider.astype(np.float32)
    rounded = np.where(far, _nearest(values, wider, -largest, largest), integers)
    return Grid(rounded, wider if axis is not None else wider.reshape(()), False)


def by_block(
    weight: Weight, plan: Plan, *, inputs_first: bool, bits: int, rounding: Rounding | None = None
) -> tuple[Grid, int]:
    """Return integers of a few bits in blocks of inputs, `(outputs, blocks, size)`, and the size of a block.

    Args:
        weight: a matrix, whose number of inputs one of BLOCKS divides.
        plan: of the weight.
        inputs_first: whether the matrix is `(inputs, outputs)`.
        bits: of an integer; the least one is -2^(bits-1).
        rounding: rounds what a plan's step is too fine for, or has none; None to round to nearest.
    """
    found = _planned(weight, plan, 1 if inputs_first else 0)

    def rows(flat: F32) -> F32:
        matrix = flat.reshape(weight.shape)
        return np.ascontiguousarray(matrix.T) if inputs_first else matrix

    values = rows(as_float32(weight))
    least, most = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    sizes = [size for size in BLOCKS if values.shape[1] % size == 0]
    fitting, own = 0, next(each for each in sizes if each <= ROUNDED_SIZE)
    far: npt.NDArray[np.bool_] = np.zeros((0, 0), np.bool_)
    if found is not None:
        integers, row_scales = found
        if inputs_first:
            integers, row_scales = np.ascontiguousarray(integers.T), row_scales.T
        far = (integers > most) | (integers < least)
        shares = ((each, far.reshape(len(far), -1, each).any(axis=2).mean()) for each in sizes)
        fitting = next((each for each, share in shares if share <= ROUNDED_MOST), 0)
    if not fitting and rounding is not None and (rounded := rounding(weight.name, values, own, bits)) is not None:
        integers, own_scales, zeros = rounded
        return Grid(integers, own_scales, False, zeros), own
    if found is None:
        size = sizes[-2] if len(sizes) > 1 else sizes[-1]
        values = rows(_restored(weight, plan))
        blocks = values.reshape(len(values), -1, size)
        largest = np.abs(blocks).max(axis=2, keepdims=True)
        scales = _rounded_up(np.where(largest > 0, largest / np.float32(most + 0.5), np.float32(1)))
        return Grid(_nearest(blocks, scales, least, most), scales, False), size
    size = fitting or next((each for each in sizes if each <= 32), sizes[-1])
    blocks, integers = values.reshape(len(values), -1, size), integers.reshape(len(values), -1, size)
    scales = np.broadcast_to(row_scales.reshape(-1, 1, 1) if row_scales.ndim else row_scales, (*blocks.shape[:2], 1))
    wide = far.reshape(blocks.shape).any(axis=2, keepdims=True)
    if not wide.any():
        return Grid(integers, np.ascontiguousarray(scales), True), size
    largest = np.abs(blocks).max(axis=2, keepdims=True)
    scales = np.where(wide, _enlarged(scales, largest / np.float32(most + 0.49)), scales).astype(np.float32)
    return Grid(np.where(wide, _nearest(blocks, scales, least, most), integers), scales, False), size


def _pair_sums(values: F32 | I32, axis: int) -> F32:
    """Return the largest sum, without sign, of two neighbours of one sign in each channel; its other axes are kept.

    Neighbours are two inputs of a matrix, and two channels at one place of a kernel: an odd number of channels goes on
    at the next place.
    """
    channels = np.moveaxis(values, axis, 0)
    rows = (np.moveaxis(channels, 1, -1) if channels.ndim > 2 else channels).reshape(len(channels), -1)
    pairs = np.pad(rows, ((0, 0), (0, rows.shape[1] % 2))).reshape(len(rows), -1, 2)
    sums = np.maximum(np.maximum(pairs, 0).sum(axis=2), np.maximum(-pairs, 0).sum(axis=2)).max(axis=1)
    shaped: F32 = sums.reshape([-1 if each == axis else 1 for each in range(values.ndim)])
    return shaped


def _planned(weight: Weight, plan: Plan, axis: int | None) -> tuple[I32, F32] | None:
    """Return a plan's integers in the weight's shape, and their scales; None where these are not along the axis."""
    if not isinstance(plan, GridPlan):
        return None
    matrix = plan.quantize(weight)
    if matrix.col_steps is not None:
        return None
    integers = matrix.multiples().astype(np.int32, copy=False).reshape(weight.shape)
    if matrix.row_steps is None:
        return integers, np.array(matrix.step, np.float32)
    if axis != 0 or matrix.integers.shape[0] != weight.shape[0]:
        return None
    scales = np.float32(matrix.step) * factors_of(matrix.row_steps)
    return integers, scales.reshape(-1, *[1] * (len(weight.shape) - 1))


def _restored(weight: Weight, plan: Plan) -> F32:
    values: F32 = codec_of(plan).restore(weight, plan)
    return values


def _enlarged(scales: F32, needed: F32) -> F32:
    """Return scales times the least factor of a byte's code that makes them reach what is needed."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = needed / scales
    codes = np.searchsorted(_CODES, ratio).clip(0, _CODES.size - 1)
    return (scales * _CODES[codes]).astype(np.float32)


def _rounded_up(scales: F32) -> F32:
    """Return scales with zeros in their low bits, none of them smaller."""
    bits = scales.astype(np.float32).view(np.uint32)
    mask = np.uint32((1 << _SCALE_BITS) - 1)
    return ((bits + mask) & ~mask).view(np.float32)


def _nearest(values: F32, scales: F32, least: int, most: int) -> I32:
    return np.clip(np.rint(values / scales), least, most).astype(np.int32)
