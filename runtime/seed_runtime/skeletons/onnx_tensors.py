"""Check of tensors with their data in the model: one field of data, that of their type, and as long as they are.

ONNX Runtime takes memory by the dimensions before it looks at the data, and other parsers read what is too short or too
long in other ways.

Source: onnx.proto of ONNX IR version 14, TensorProto.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from seed_runtime.format.dtypes import BY_CODE
from seed_runtime.skeletons.info import refuse

_STRING: Final = 8
_BITS: Final = {code: dtype.bits for code, dtype in BY_CODE.items()} | {14: 64, 15: 128, 23: 4, 24: 8, 25: 2, 26: 2}
"""Bits of an element by the number of its type: those of weights, and complex numbers and floats of 4 and 8 bits and
integers of 2, which only lie in the model."""
_OF_INT32: Final = frozenset({2, 3, 4, 5, 6, 9, 10, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26})
_TYPES: Final[Mapping[str, frozenset[int]]] = {
    "float_data": frozenset({1, 14}),
    "int32_data": _OF_INT32,
    "string_data": frozenset({_STRING}),
    "int64_data": frozenset({7}),
    "raw_data": frozenset(_BITS),
    "double_data": frozenset({11, 15}),
    "uint64_data": frozenset({12, 13}),
}
"""Types whose data each field may hold."""
_PORTION: Final = 1 << 16
"""Bytes that are looked at together."""
_VARINT_BYTES: Final = 10


def check_inline(name: str, code: int, count: int, sizes: Mapping[str, int]) -> None:
    """Raise FormatError unless the data are as long as type and dimensions say, and in the field of the type.

    Args:
        name: of the tensor, for messages.
        code: number of its type.
        count: its elements.
        sizes: of each field of data that it has: numbers of varints, strings, or bytes.
    """
    if code not in _BITS and code != _STRING:
        refuse(f"tensor {name[:80]!r} has element type {code}, which no skeleton holds")
    if len(sizes) > 1:
        refuse(f"tensor {name[:80]!r} has data of two kinds")
    for field, size in sizes.items():
        if code not in _TYPES[field]:
            refuse(f"tensor {name[:80]!r} of element type {code} has its data in {field}")
        wanted = _wanted(field, code, count)
        if size != wanted:
            unit = {"string_data": "strings", "raw_data": "bytes", "float_data": "bytes", "double_data": "bytes"}
            refuse(
                f"tensor {name[:80]!r} has {size:,} {unit.get(field, 'numbers')} of data for {count:,} elements, "
                f"which take {wanted:,}"
            )
    if count and not sizes:
        refuse(f"tensor {name[:80]!r} has no data for {count:,} elements")


def count_varints(data: memoryview, where: str) -> int:
    """Return how many numbers a packed field holds, after checking that each is in its shortest form, below 2**64."""
    done = start = 0
    while start < len(data):
        window = np.frombuffer(data[start : start + _PORTION], np.uint8)
        ends = np.flatnonzero(window < 0x80)
        if not ends.size:
            refuse(f"{where} ends within a number")
        sizes, last = np.diff(ends, prepend=-1), window[ends]
        padded = (sizes > 1) & (last == 0)
        above_64_bits = (sizes > _VARINT_BYTES) | ((sizes == _VARINT_BYTES) & (last > 1))
        if (padded | above_64_bits).any():
            refuse(f"a number in {where} is not in its shortest form")
        done += ends.size
        start += int(ends[-1]) + 1
    return done


def _wanted(field: str, code: int, count: int) -> int:
    """Return how many varints, strings or bytes `count` elements take in a field."""
    if field in ("string_data", "int64_data", "uint64_data"):
        return count
    if field == "int32_data":
        # Elements of less than a byte share one.
        return -(-count * min(_BITS[code], 8) // 8)
    return -(-count * _BITS[code] // 8)
