"""What a weight is multiplied by: vectors of inputs at each position, from the values that its node reads.

A source takes the values of one run and returns `(groups, positions, inputs)` in the order of `linear_view`. Sources
are equal where they return the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx

from seed_exporter.calibrate.tflite_inputs import last_axis_source
from seed_exporter.graph import tflite_file
from seed_exporter.graph.linear import RECURRENT, is_linear
from seed_exporter.graph.model import Use, Weight
from seed_exporter.graph.padding import SAME, same_pads
from seed_runtime.backends import Feeds

F32 = npt.NDArray[np.float32]
Choose = Callable[[int], npt.NDArray[np.intp]]
"""Function that chooses some of so many positions."""


class Source(Protocol):
    """Inputs of one use of a weight."""

    @property
    def values(self) -> tuple[str, ...]:
        """Names of the values that it reads."""
        ...

    def vectors(self, values: Feeds, choose: Choose) -> F32:
        """Return the chosen vectors of one run, `(groups, positions, inputs)`."""
        ...


def source_of(node: onnx.NodeProto, index: int, weight: Weight) -> Source | None:
    """Return the inputs that a node of the main graph multiplies its input number `index`, a weight, by.

    None where the weight isn't multiplied as a matrix there, or an attribute isn't known.
    """
    if not is_linear(Use(node.op_type, index)) or len(weight.shape) < 2:
        return None
    attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    if node.domain == tflite_file.DOMAIN:
        return last_axis_source(node, weight.shape, attributes)
    if node.op_type == "Conv":
        return _patches(node, weight.shape, attributes)
    if node.op_type == "ConvTranspose":
        return _Pixels(node.input[0], int(attributes.get("group", 1)))
    if node.op_type in RECURRENT:
        return _recurrent(node, index, weight.shape, attributes)
    if attributes.get("transBatchA") or attributes.get("transBatchB"):
        return None
    other = node.input[1 - index]
    transposed = bool(attributes.get("transA" if index else "transB", 0))
    # The first operand has its inputs in the last axis, the second one in the one before.
    return _Rows(other, weight.shape[:-2], (index == 0) != transposed, float(attributes.get("alpha", 1.0)))


@dataclass(frozen=True)
class _OneValue:
    """A source that reads one value."""

    value: str

    @property
    def values(self) -> tuple[str, ...]:
        return (self.value,)


@dataclass(frozen=True)
class _Rows(_OneValue):
    """The other operand of a product of matrices."""

    batch: tuple[int, ...]
    """Leading axes of the weight."""
    swapped: bool
    """Whether inputs are counted by the last axis but one."""
    alpha: float

    def vectors(self, values: Feeds, choose: Choose) -> F32:
        array = values[self.value]
        if array.ndim == 1:
            array = array[None]
        elif self.swapped:
            array = array.swapaxes(-1, -2)
        rank = len(self.batch)
        array = array.reshape((1,) * (rank + 2 - array.ndim) + array.shape)
        free = array.ndim - 2 - rank
        array = np.broadcast_to(
            array,
            (
                *array.shape[:free],
                *(size if size > 1 else own for size, own in zip(self.batch, array.shape[free:-2], strict=True)),
                *array.shape[-2:],
            ),
        )
        grouped = [free + axis for axis, size in enumerate(self.batch) if size > 1]
        others = [axis for axis in range(array.ndim - 1) if axis not in grouped]
        vectors = array.transpose(*grouped, *others, array.ndim - 1)
        vectors = vectors.reshape(prod(self.batch), -1, array.shape[-1])
        chosen = vectors[:, choose(vectors.shape[1])].astype(np.float32)
        return chosen if self.alpha == 1 else chosen * np.float32(self.alpha)


@dataclass(frozen=True)
class _Patches(_OneValue):
    """The patches of a convolution's input, of any number of dimensions."""

    groups: int
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    """At the beginning of each axis, then at its end."""
    auto_pad: str

    def vectors(self, values: Feeds, choose: Choose) -> F32:
        array = values[self.value]
        axes = len(self.kernel)
        spans = [(size - 1) * dilation + 1 for size, dilation in zip(self.kernel, self.dilations, strict=True)]
        pads = [(0, 0), (0, 0), *self._pads(array.shape[2:], spans)]
        padded = np.pad(array, pads) if any(map(any, pads)) else array
        if any(size < span for size, span in zip(padded.shape[2:], spans, strict=True)):
            return np.zeros((self.groups, 0, array.shape[1] // self.groups * prod(self.kernel)), np.float32)
        windows = np.lib.stride_tricks.sliding_window_view(padded, spans, tuple(range(2, 2 + axes)))
        everything = slice(None)
        windows = windows[
            (
                everything,
                everything,
                *(slice(None, None, stride) for stride in self.strides),
                *(slice(None, None, dilation) for dilation in self.dilations),
            )
        ]
        places = (windows.shape[0], *windows.shape[2 : 2 + axes])
        chosen = np.unravel_index(choose(prod(places)), places)
        patches = np.moveaxis(windows, 1, 1 + axes)[tuple(chosen)].astype(np.float32)
        return patches.reshape(len(patches), self.groups, -1).transpose(1, 0, 2)

    def _pads(self, sizes: Sequence[int], spans: Sequence[int]) -> list[tuple[int, int]]:
        if self.auto_pad == "VALID":
            return [(0, 0) for _ in sizes]
        if self.auto_pad in SAME:
            before, after = same_pads(sizes, spans, self.strides, self.auto_pad)
        else:
            before, after = self.pads[: len(sizes)], self.pads[len(sizes) :]
        return list(zip(before, after, strict=True))


@dataclass(frozen=True)
class _Pixels(_OneValue):
    """The pixels of a transposed convolution's input; that patches of its output overlap is left out."""

    groups: int

    def vectors(self, values: Feeds, choose: Choose) -> F32:
        array = values[self.value]
        pixels = np.moveaxis(array, 1, -1).reshape(-1, array.shape[1])
        chosen = pixels[choose(len(pixels))].astype(np.float32)
        return chosen.reshape(len(chosen), self.groups, -1).transpose(1, 0, 2)


@dataclass(frozen=True)
class _Steps(_OneValue):
    """The inputs of a recurrent layer, which each direction sees."""

    directions: int

    def vectors(self, values: Feeds, choose: Choose) -> F32:
        array = values[self.value]
        steps = array.reshape(-1, array.shape[-1])
        chosen = steps[choose(len(steps))].astype(np.float32)
        return np.broadcast_to(chosen, (self.directions, *chosen.shape))


@dataclass(frozen=True)
class _States:
    """The hidden states that a recurrent layer goes on from.

    The candidate state of a GRU whose reset gate comes before its matrix multiplies less than these.
    """

    results: str
    """All states that the layer returns."""
    initial: str
    """Its first state; empty for zeros."""
    reversed: tuple[bool, ...]
    """For each direction, whether it begins with the last step."""
    batch_first: bool

    @property
    def values(self) -> tuple[str, ...]:
        return (self.results, self.initial) if self.initial else (self.results,)

    def vectors(self, values: Feeds, choose: Choose) -> F32:
        after = values[self.results]
        after = after.transpose(1, 2, 0, 3) if self.batch_first else after
        before = np.zeros(after.shape, np.float32)
        first = np.zeros(after.shape[1:], np.float32)
        if self.initial:
            first = values[self.initial].swapaxes(0, 1) if self.batch_first else values[self.initial]
        if len(before):
            for direction, is_reversed in enumerate(self.reversed):
                begins, at, earlier = (-1, slice(-1), slice(1, None)) if is_reversed else (0, slice(1, None), slice(-1))
                before[begins, direction] = first[direction]
                before[at, direction] = after[earlier, direction]
        states = before.swapaxes(0, 1).reshape(after.shape[1], -1, after.shape[3])
        return states[:, choose(states.shape[1])]


def _patches(node: onnx.NodeProto, shape: tuple[int, ...], attributes: Mapping[str, Any]) -> _Patches:
    ones = [1] * len(shape[2:])
    return _Patches(
        node.input[0],
        int(attributes.get("group", 1)),
        shape[2:],
        tuple(attributes.get("strides") or ones),
        tuple(attributes.get("dilations") or ones),
        tuple(attributes.get("pads") or [0] * (2 * len(ones))),
        bytes(attributes.get("auto_pad", b"NOTSET")).decode(),
    )


def _recurrent(
    node: onnx.NodeProto, index: int, shape: tuple[int, ...], attributes: Mapping[str, Any]
) -> Source | None:
    if index == 1:
        return _Steps(node.input[0], shape[0])
    if not node.output[0]:
        return None
    direction = bytes(attributes.get("direction", b"forward"))
    backwards = {b"forward": (False,), b"reverse": (True,), b"bidirectional": (False, True)}.get(direction, ())
    initial = node.input[5] if len(node.input) > 5 else ""
    return _States(node.output[0], initial, backwards, bool(attributes.get("layout", 0)))
