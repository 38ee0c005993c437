"""Decoded weights as the type in which the model stores them, and back."""

from __future__ import annotations

from typing import Final

import numpy as np

from seed_runtime.codecs.arrays import Values
from seed_runtime.format.dtypes import DType

STORED_AS: Final = frozenset({"float32", "float16", "bfloat16", "float64"})
"""Types that weights decoded as float32 can be rounded to."""


def from_storage(values: Values, dtype: DType) -> Values:
    """Return elements of a type in STORED_AS as float32, those of float64 as they are; none is rounded."""
    if dtype.name == "bfloat16":
        return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return values if dtype.name == "float64" else values.astype(np.float32, copy=False)


def to_storage(values: Values, dtype: DType) -> Values:
    """Round to the nearest, ties to even, too large values to infinity; bfloat16 is returned as its bits in uint16."""
    if dtype.name == "bfloat16":
        bits = values.view(np.uint32)
        return ((bits + (np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1)))) >> np.uint32(16)).astype(
            np.uint16
        )
    with np.errstate(over="ignore"):
        return values.astype(dtype.storage, copy=False)
