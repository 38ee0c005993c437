"""Plans that keep floats as they are, or with fewer mantissa bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from seed_exporter.codecs.base import Plan
from seed_exporter.graph.model import Weight

MANTISSA_BITS: Final[Mapping[str, int]] = {"float32": 23, "bfloat16": 7, "float16": 10, "float64": 52}
"""Number of mantissa bits of each float type."""


@dataclass(frozen=True)
class ExactPlan(Plan):
    """A plan that keeps floats as they are, or with fewer mantissa bits.

    Attributes:
        mantissa_bits: mantissa bits that are kept of each float; None for all.
    """

    mantissa_bits: int | None = None

    def describe(self) -> str:
        """Describe how much of each float is kept."""
        return "exact" if self.mantissa_bits is None else f"{self.mantissa_bits} mantissa bits"


def kept(weight: Weight, plan: ExactPlan) -> npt.NDArray[Any]:
    """Return the weight's elements with the mantissa bits that the plan keeps."""
    if plan.mantissa_bits is None:
        return weight.data
    return with_mantissa(weight.data, MANTISSA_BITS[weight.dtype.name], plan.mantissa_bits)


def with_mantissa(data: npt.NDArray[Any], bits: int, kept_bits: int) -> npt.NDArray[Any]:
    """Round floats to fewer mantissa bits, to nearest; infinities and NaN stay.

    Args:
        data: an array of IEEE floats, or of bfloat16's bits in uint16.
        bits: mantissa bits of the type.
        kept_bits: mantissa bits that are kept.
    """
    if kept_bits >= bits:
        return data
    unsigned = np.dtype(f"u{data.dtype.itemsize}").type
    pattern = data.view(unsigned)
    half, mask = unsigned(1 << (bits - kept_bits - 1)), unsigned((1 << (bits - kept_bits)) - 1)
    exponent = unsigned(((1 << (8 * data.dtype.itemsize - 1 - bits)) - 1) << bits)
    rounded = (pattern + half) & ~mask
    special = (pattern & exponent == exponent) | (rounded & exponent == exponent)
    return np.where(special, pattern, rounded).view(data.dtype)
