"""A model on its way into a seed: the graph with its weights taken out, and the weights.

A tensor of `INLINE_MAX` bytes or more is a weight; for integers the limit is `INLINE_INTEGERS_MAX`.
Smaller ones (shapes, scalars) stay inside the model.
Every loader (loaders/) ends here, and everything that encodes, shrinks or rebuilds a model starts here.
A graph is never changed: who edits one makes a new one (edit.py), which shares the weights' data with the old.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import onnx

from seed_exporter.graph.tflite_file import TFLiteFile
from seed_runtime.format.dtypes import BY_CODE, DType

INLINE_MAX: Final = 64
"""Size from which a tensor is a weight [B]: below it, a hole costs more than the values compressed with the graph."""
INLINE_INTEGERS_MAX: Final = 256
"""Size from which a tensor of integers is a weight [B].

ONNX Runtime's shape inference reads pads, shapes and axes, which are smaller.
"""


@dataclass(frozen=True)
class Use:
    """One input of one node that reads a weight.

    Attributes:
        op: the node's operator.
        index: position among the node's inputs.
        attributes: the node's plain attributes (integers, floats, strings and lists of them), so that an encoder can
            see transB, group or axis without searching the graph.
        domain: the operator's domain.
        node: the node's name.
    """

    op: str
    index: int
    attributes: Mapping[str, Any] = field(default_factory=dict)
    domain: str = ""
    node: str = ""


@dataclass(frozen=True, eq=False)
class Weight:
    """A tensor that lives outside the model.

    Attributes:
        name: the initializer's name in the model.
        dtype: element type; 4-bit elements are packed two to a byte, the first in the low half.
        shape: dimensions in elements.
        data: C-contiguous array of `dtype.storage`, of `shape` (packed types: one axis of bytes). It may be a
            read-only map of the source file and may be shared with other graphs: copy it before writing.
        uses: every node input that reads the weight.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    data: np.ndarray
    uses: tuple[Use, ...] = ()

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """Size in the weights file [B]."""
        return self.dtype.size(self.count)


@dataclass(frozen=True, eq=False)
class Graph:
    """A model without weights, and the weights in the order of the source.

    The model's initializers that are weights have a name, a type and dimensions, but no data: they are the keys of
    `weights`. It has no functions and no sparse initializers.

    Attributes:
        model: the model; nobody may change it.
        weights: weights by name, read-only.
        notes: lines for the user on what the model lost when it was loaded.
        trains: whether its seeds hold a training graph, for which it was prepared (training/).
        processing: the unpacked part of what stands before and behind the model; empty for none.
        trained: weights that this training graph trains, in the set `small`; None for all that can be trained.
        file: the TFLite file that `model` describes and that seeds carry instead of it; None for an ONNX model.
    """

    model: onnx.ModelProto
    weights: Mapping[str, Weight]
    notes: tuple[str, ...] = ()
    trains: bool = False
    processing: bytes = b""
    trained: frozenset[str] | None = None
    file: TFLiteFile | None = None

    def __post_init__(self) -> None:
        """Keep a read-only copy of the mapping, so that no later change of the argument reaches the graph."""
        object.__setattr__(self, "weights", MappingProxyType(dict(self.weights)))

    @property
    def distinct_bytes(self) -> int:
        """Size of the source's weights, to which ratios refer, with tied copies counted once [B]."""
        return sum(weight.size for weight in self.weights.values())

    @property
    def parameters(self) -> int:
        """Number of elements of all weights."""
        return sum(weight.count for weight in self.weights.values())


def stays_inline(dtype: DType, size: int) -> bool:
    """Return whether a tensor of `size` bytes stays inside the model."""
    return size < (INLINE_MAX if "float" in dtype.name else INLINE_INTEGERS_MAX)


def storable(code: int) -> DType | None:
    """Return the element type of this TensorProto.DataType; None for strings, complex and unknown ones."""
    return BY_CODE.get(code)
