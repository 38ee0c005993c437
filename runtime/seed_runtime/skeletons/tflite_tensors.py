"""Tensors of a TFLite model: types, shapes, sizes of constants, quantization, and tables of sparse ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Final

import numpy as np

from seed_runtime.errors import LimitError, UnsupportedError
from seed_runtime.format.dtypes import BY_NAME, DType
from seed_runtime.limits import RANK_MAX, STRING_MAX, WEIGHTS_MAX
from seed_runtime.skeletons import tflite_schema as schema
from seed_runtime.skeletons.flatbuffer import Table, Text, Vector, Walker
from seed_runtime.skeletons.info import refuse

BITS: Final = {
    **{name: BY_NAME[name].bits for name in schema.TYPES if name in BY_NAME},
    "complex64": 64,
    "complex128": 128,
    "int2": 2,
}
"""Size of an element of each type that constants have [bit]; texts and handles have none."""
_AXES_MAX: Final = 64
"""Largest number of axes of a tensor; constants that are left out have RANK_MAX."""
_DENSE: Final = 0
_SPARSE: Final = 1
"""Formats of an axis of a sparse tensor, as for _DENSE."""


@dataclass(frozen=True)
class Tensors:
    """The tensors of a subgraph.

    Attributes:
        dtypes: names of their types.
        shapes: their shapes; -1 for a free size.
        known: 1 for those that have a value before the subgraph runs: constants and variables.
        constant: 1 for those with constant data.
    """

    dtypes: list[str]
    shapes: list[tuple[int, ...]]
    known: bytearray
    constant: bytearray
    _names: list[Text | None]
    _walker: Walker

    def name(self, number: int) -> str:
        """Return a tensor's name, of which what no seed carries is cut off by one byte too many."""
        return self._walker.text(self._names[number], "Tensor.name", STRING_MAX + 1)

    def dims(self, number: int) -> tuple[int | str | None, ...]:
        """Return a tensor's dimensions; None for a free one."""
        return tuple(None if size < 0 else size for size in self.shapes[number])


class TensorTable:
    """Checks the tensors of all subgraphs.

    Attributes:
        first_uses: name, type and dimensions of the first tensor of each buffer that holds data, by its number.
    """

    def __init__(self, walker: Walker, buffers: Sequence[Vector | None]) -> None:
        self._walker, self._buffers = walker, buffers
        self.first_uses: dict[int, tuple[str, DType, tuple[int, ...]]] = {}
        if buffers and buffers[0] is not None and buffers[0].length:
            refuse("its buffer 0, which stands for none, holds data")

    def check(self, subgraph: int, tensors: Sequence[Table]) -> Tensors:
        """Check the tensors of a subgraph."""
        found = Tensors([], [], bytearray(len(tensors)), bytearray(len(tensors)), [], self._walker)
        for number, tensor in enumerate(tensors):
            where = f"tensor {number} of subgraph {subgraph}"
            kind = tensor.get("type", 0)
            if kind >= len(schema.TYPES):
                raise UnsupportedError(
                    f"this model has a tensor of type {kind}, which this runtime doesn't know; update seed-runtime"
                )
            if kind < 0:
                refuse(f"{where} has type {kind}")
            if tensor.get("external_buffer"):
                raise UnsupportedError("this model has data outside of its flatbuffer; no seed carries them")
            dtype, shape = schema.TYPES[kind], self._shape(tensor.get("shape"), where)
            self._check_quantization(tensor.get("quantization", {}), shape, where)
            buffer = tensor.get("buffer", 0)
            if buffer >= max(1, len(self._buffers)):
                refuse(f"{where} has buffer {buffer:,}, and there are {len(self._buffers):,}")
            data = self._buffers[buffer] if self._buffers else None
            if data is not None and data.length:
                self._check_constant(tensor, dtype, shape, data, where)
                found.constant[number] = found.known[number] = 1
                if buffer not in self.first_uses:
                    self.first_uses[buffer] = self._described(tensor, dtype, shape, data, where)
            elif tensor.get("is_variable") or 0 in shape:
                found.known[number] = 1
            found.dtypes.append(dtype)
            found.shapes.append(self._free_shape(tensor, shape, where))
            found._names.append(tensor.get("name"))
        return found

    def _shape(self, vector: Vector | None, where: str) -> tuple[int, ...]:
        if vector is None:
            return ()
        if vector.length > _AXES_MAX:
            raise LimitError(f"skeleton: axes of {where}", vector.length, _AXES_MAX)
        shape = tuple(self._walker.numbers(vector, f"the shape of {where}").tolist())
        if any(size < 0 for size in shape) or prod(shape) > WEIGHTS_MAX:
            refuse(f"{where} has the shape {list(shape)}")
        return shape

    def _free_shape(self, tensor: Table, shape: tuple[int, ...], where: str) -> tuple[int, ...]:
        """Return a tensor's shape with its free sizes, which it states beside a shape that it is opened with."""
        vector: Vector | None = tensor.get("shape_signature")
        if vector is None or not vector.length:
            return shape
        if vector.length > _AXES_MAX:
            raise LimitError(f"skeleton: axes of {where}", vector.length, _AXES_MAX)
        free = tuple(self._walker.numbers(vector, f"the free shape of {where}").tolist())
        if len(free) != len(shape) or any(size < -1 for size in free):
            refuse(f"{where} has two shapes that don't fit: {list(shape)} and {list(free)}")
        return free

    def _check_constant(self, tensor: Table, dtype: str, shape: tuple[int, ...], data: Vector, where: str) -> None:
        if tensor.get("is_variable"):
            refuse(f"{where} is a variable with constant data")
        if dtype == "string":
            self._check_texts(data, prod(shape), where)
            return
        if dtype not in BITS:
            refuse(f"{where} is a {dtype} with constant data")
        count = prod(shape)
        if "sparsity" in tensor:
            count = self._stored(tensor["sparsity"], shape, where)
        size = (count * BITS[dtype] + 7) // 8
        if size != data.length:
            refuse(f"{where} has {data.length:,} bytes of data for {count:,} elements of {dtype}, which take {size:,}")

    def _check_texts(self, data: Vector, count: int, where: str) -> None:
        """Check a constant of texts: their number, where each begins, where the last one ends, and the texts."""
        words = Vector("i", data.offset, 1)
        stated = int(self._walker.numbers(words, where)[0]) if data.length >= 4 else -1
        if stated != count or data.length < 4 * (count + 2):
            refuse(f"{where} has data that aren't {count:,} texts")
        offsets = self._walker.numbers(Vector("i", data.offset + 4, count + 1), where)
        if offsets[0] != 4 * (count + 2) or (np.diff(offsets) < 0).any() or offsets[-1] > data.length:
            refuse(f"{where} has texts that lie outside of its data")

    def _described(
        self, tensor: Table, dtype: str, shape: tuple[int, ...], data: Vector, where: str
    ) -> tuple[str, DType, tuple[int, ...]]:
        known = BY_NAME.get(dtype)
        if known is None or len(shape) > RANK_MAX:
            known, shape = BY_NAME["uint8"], (data.length,)
        elif "sparsity" in tensor:
            shape = (8 * data.length // known.bits,)
        return self._walker.text(tensor.get("name"), f"the name of {where}", STRING_MAX), known, shape

    def _check_quantization(self, fields: Table, shape: tuple[int, ...], where: str) -> None:
        scales, zeros = (fields[name].length if name in fields else 0 for name in ("scale", "zero_point"))
        axis = fields.get("quantized_dimension", 0)
        if scales > 1 and not (0 <= axis < len(shape) and shape[axis] == scales):
            refuse(f"{where} has {scales:,} scales for axis {axis} of the shape {list(shape)}")
        if zeros not in (0, 1, scales):
            refuse(f"{where} has {scales:,} scales and {zeros:,} zero points")

    def _stored(self, sparsity: Table, shape: tuple[int, ...], where: str) -> int:
        """Check the tables of a sparse tensor; return how many elements it stores."""
        order, blocks = (
            self._walker.numbers(sparsity[name], f"the {name} of {where}").tolist() if name in sparsity else []
            for name in ("traversal_order", "block_map")
        )
        axes: list[Table] = sparsity.get("dim_metadata", [])
        if len(order) > _AXES_MAX or sorted(order) != list(range(len(shape) + len(blocks))) or len(axes) != len(order):
            refuse(f"{where} is sparse in an order that isn't one of its axes")
        if any(not 0 <= axis < len(shape) for axis in blocks) or len(set(blocks)) < len(blocks):
            refuse(f"{where} is sparse in blocks of axes that it doesn't have")
        sizes = self._block_sizes(order, blocks, axes, shape, where)
        count = 1
        for axis, fields in zip(order, axes, strict=True):
            count = self._count_along(fields, count, sizes[axis], where)
            if count > WEIGHTS_MAX:
                raise LimitError(f"skeleton: elements of {where}", count, WEIGHTS_MAX)
        return count

    def _block_sizes(
        self, order: list[int], blocks: list[int], axes: list[Table], shape: tuple[int, ...], where: str
    ) -> list[int]:
        """Return the size of each axis once it is divided into blocks, then the sizes within blocks."""
        sizes = list(shape)
        for number, axis in enumerate(blocks):
            size = axes[order.index(len(shape) + number)].get("dense_size", 0)
            if size <= 0 or sizes[axis] % size:
                refuse(f"{where} is sparse in blocks of {size:,} of {sizes[axis]:,}")
            sizes[axis] //= size
            sizes.append(size)
        return sizes

    def _count_along(self, fields: Table, count: int, size: int, where: str) -> int:
        """Return how many elements `count` ones before this axis become along it."""
        form = fields.get("format", _DENSE)
        if form == _DENSE:
            if fields.get("dense_size", 0) != size:
                refuse(f"{where} is sparse with {fields.get('dense_size', 0):,} of {size:,} along a dense axis")
            return count * size
        if form != _SPARSE or "array_segments" not in fields or "array_indices" not in fields:
            refuse(f"{where} is sparse in a way that has no tables")
        segments, indices = (
            self._walker.numbers(fields[name]["values"], where) if "values" in fields[name] else np.zeros(0, np.uint8)
            for name in ("array_segments", "array_indices")
        )
        last = segments.astype(np.int64)
        if len(last) != count + 1 or last[0] or (np.diff(last) < 0).any() or last[-1] != len(indices):
            refuse(f"{where} is sparse in segments that aren't those of its indices")
        if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < size:
            refuse(f"{where} is sparse with an index beyond {size:,}")
        return len(indices)
