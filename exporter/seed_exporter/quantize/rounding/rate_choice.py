"""The choice of integers that takes their code lengths into account.

An integer next to the nearest one may cost fewer bits than its error is worth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from seed_exporter.codecs.code_lengths import code_lengths, count_symbols, symbol_index
from seed_runtime.codecs.encode.contexts import magnitude_classes

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]

BITS_MAX: Final = 4.0
"""Bits a weight above which integers are the nearest ones: code lengths of neighbours are nearly equal there."""
COST_LEAST, COST_MOST = 0.5, 8.0
"""What a squared step may be taken to cost, over the average: inputs that seem to cost less are dead on these inputs,
and may not be on others (with 1/8, a layer of EfficientNet-lite0 lost .15 bit a weight on other photos)."""


@dataclass(frozen=True, eq=False)
class RateChoice:
    """Chooses between the nearest integer and its neighbour towards zero. Equal only to itself.

    Attributes:
        classes: `(rows, cols)`, the class of each element of the coded matrix.
        worth: `(CLASSES * MAGNITUDES,)`, half of what the bits are worth that the neighbour saves, in squared steps,
            by class and magnitude.
    """

    classes: U8
    worth: F32

    def choose(self, scaled: F32, classes: U8, costs: F32) -> F32:
        """Return integers as float32.

        Args:
            scaled: weights in steps, overwritten.
            classes: of these weights, of the same shape.
            costs: damage of a squared step over its average, of a shape that broadcasts to theirs; see `costs_of`.
        """
        magnitudes = np.abs(scaled)
        nearest = np.rint(magnitudes)
        np.subtract(nearest, magnitudes, out=magnitudes)
        index = symbol_index(nearest, classes)
        # The neighbour's squared error is larger by 1 - 2 d, d the distance of the nearest integer beyond the weight.
        np.subtract(np.float32(0.5), magnitudes, out=magnitudes)
        magnitudes *= costs
        nearest -= magnitudes < self.worth[index]
        return np.copysign(nearest, scaled, out=scaled)


def rate_choice(integers: I32, rate: float) -> RateChoice | None:
    """Learn code lengths from integers that were rounded without them.

    Args:
        integers: `(rows, cols)`, as `coded_view` lays the weight out.
        rate: weight of a bit, in squared steps.

    Returns:
        None where the nearest integers are as good: no weight of the rate, or more than BITS_MAX bits a weight.
    """
    if not rate or (found := learned_lengths(integers)) is None:
        return None
    classes, lengths = found
    # Zero has no neighbour; exact ties at costs of 0 stay as they are, too.
    saved = np.diff(lengths, axis=1, prepend=lengths[:, :1]).clip(0)
    return RateChoice(classes, (rate / 2 * saved).astype(np.float32).reshape(-1))


def learned_lengths(integers: I32) -> tuple[U8, F64] | None:
    """Learn the classes of a matrix's elements, `(rows, cols)`, and code lengths, `(CLASSES, MAGNITUDES)` [bit].

    Args:
        integers: `(rows, cols)`, as `coded_view` lays the weight out.

    Returns:
        None above BITS_MAX bits a weight.
    """
    magnitudes = np.abs(integers)
    of_elements = magnitude_classes(magnitudes).of_elements()
    counts = count_symbols(symbol_index(magnitudes, of_elements))
    lengths = code_lengths(counts)
    return None if (counts * lengths).sum() > BITS_MAX * integers.size else (of_elements, lengths)


def costs_of(damages: F64) -> F32:
    """Compute what squared steps cost over their average, of the damage that each does, any shape.

    Bits saved are worth the same everywhere, errors are not, unless steps follow what they cost.
    """
    average = float(damages.mean())
    relative = damages / average if average > 0 else np.ones_like(damages)
    costs: F32 = np.clip(relative, COST_LEAST, COST_MOST).astype(np.float32)
    return costs
