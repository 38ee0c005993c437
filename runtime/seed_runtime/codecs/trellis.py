"""Values of integers on a trellis, where the parities before an element choose its grid (SPEC.md, "Trellis").

The grid of element i is u_i = p_(i-2d) + u_(i-d) + u_(i-3d) modulo 2, with the parities p and the delay d. In powers X
of the delay, u (1 + X + X^3) = X^2 p; multiplied by 1 + X + X^2 + X^4 that is u (1 + X^7) = (X^2 + X^3 + X^4 + X^6) p:
four shifts and a running sum in strides of 7 d, without a step for each element. 1 / (1 + X^7) is the product of
1 + X^7, 1 + X^14, 1 + X^28 and so on; from 1 + X^56 on, strides are whole bytes of packed bits.

Source: Ungerboeck, "Channel coding with multilevel/phase signals", IEEE Transactions on Information Theory 28 (1982).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from seed_runtime.codecs.arrays import U8, WINDOW, Values
from seed_runtime.limits import DELAY_MAX

_TAPS: Final = 2, 3, 4, 6
"""Delays after which a parity reaches the grids."""
_DELAYS_HELD: Final = 7
"""Delays after which the grids repeat where all parities are 0, and bytes of a trellis for each of its delay."""


def held_bytes(counts: Sequence[int]) -> int:
    """Return the most that the trellis of a matrix of one of these sizes holds [B]: no header tells its delay."""
    return _DELAYS_HELD * min(DELAY_MAX, max(counts))


class Trellis:
    """The state of one matrix's trellis, which takes elements in the matrix's order.

    Memory: 7 * delay + WINDOW bytes at most, and some windows while values are computed.
    """

    def __init__(self, delay: int, count: int) -> None:
        """Begin a matrix of `count` elements."""
        self._delay = delay
        # From `_start` on: what the parities so far add to the grids of the next 7 * delay elements; then zeros.
        self._sums, self._start = np.zeros(_DELAYS_HELD * delay + min(count, WINDOW), np.uint8), 0

    def values(self, integers: Values) -> Values:
        """Compute 2 * z - u * sign(z) of the next integers z, modulo 2**32.

        Args:
            integers: `(n,)`, n <= WINDOW, int8, int16 with magnitudes below 2**14, or int32.

        Returns:
            `(n,)`, int32 of int32, else int16.
        """
        grids = self._grids((integers & 1).astype(np.uint8)).view(np.int8)
        signs = np.sign(integers)
        np.multiply(signs, grids, out=signs)
        values: Values = integers.astype(np.int32 if integers.dtype == np.int32 else np.int16)
        np.add(values, values, out=values)
        np.subtract(values, signs, out=values)
        return values

    def _grids(self, parities: U8) -> U8:
        """Return the grids of elements with these parities, `(n,)`, 0 or 1; the next call overwrites them."""
        count, memory = parities.size, _DELAYS_HELD * self._delay
        if self._start + count + memory > self._sums.size:
            self._sums[:memory] = self._sums[self._start : self._start + memory]
            self._sums[memory:] = 0
            self._start = 0
        sums = self._sums[self._start : self._start + count + memory]
        for tap in _TAPS:
            sums[tap * self._delay :][:count] ^= parities
        for stride in (memory, 2 * memory, 4 * memory):
            sums[stride:] ^= sums[:-stride]
        if 8 * memory < sums.size:
            packed, stride = np.packbits(sums), memory
            while stride < packed.size:
                packed[stride:] ^= packed[:-stride]
                stride *= 2
            sums[:] = np.unpackbits(packed, count=sums.size)
        self._start += count
        return sums[:count]
