"""Element types of tensors. The numbers are ONNX's TensorProto.DataType, so a reader can compare them directly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class DType:
    """One element type."""

    code: int
    name: str
    bits: int
    """Size of one element [bit]."""
    storage: np.dtype[np.generic]
    """The NumPy type that holds the bits: an unsigned integer where NumPy has no such type."""

    def size(self, count: int) -> int:
        """Return the bytes of `count` elements; 4-bit elements are packed two to a byte, the last byte padded."""
        return (count * self.bits + 7) // 8


_ROWS: tuple[tuple[int, str, int, str], ...] = (
    (1, "float32", 32, "<f4"),
    (2, "uint8", 8, "u1"),
    (3, "int8", 8, "i1"),
    (4, "uint16", 16, "<u2"),
    (5, "int16", 16, "<i2"),
    (6, "int32", 32, "<i4"),
    (7, "int64", 64, "<i8"),
    (9, "bool", 8, "u1"),
    (10, "float16", 16, "<f2"),
    (11, "float64", 64, "<f8"),
    (12, "uint32", 32, "<u4"),
    (13, "uint64", 64, "<u8"),
    (16, "bfloat16", 16, "<u2"),
    (17, "float8e4m3fn", 8, "u1"),
    (18, "float8e4m3fnuz", 8, "u1"),
    (19, "float8e5m2", 8, "u1"),
    (20, "float8e5m2fnuz", 8, "u1"),
    (21, "uint4", 4, "u1"),
    (22, "int4", 4, "u1"),
)

BY_CODE = {code: DType(code, name, bits, np.dtype(storage)) for code, name, bits, storage in _ROWS}
BY_NAME = {dtype.name: dtype for dtype in BY_CODE.values()}
FLOAT32 = BY_NAME["float32"]
STRING = DType(8, "string", 8, np.dtype(object))
"""Text, for inputs and outputs only: no weight is one, and an element has no fixed size."""
