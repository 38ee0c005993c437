"""Dependent quantization: the best path of integers through a code of 8 states (docs/adr/0014).

Two grids take turns, even multiples of half a step, and odd ones with zero: the parities of the integers before an
element decide which of them stands for it. What an integer is worth therefore depends on all that come after it, and
the least cost of all is found over whole paths.

Source: Marcellin and Fischer, "Trellis coded quantization of memoryless and Gauss-Markov sources" (1990); the code is
that of Ungerboeck, "Channel coding with multilevel/phase signals" (1982), with 8 states.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from seed_exporter.codecs.code_lengths import symbol_index
from seed_exporter.quantize.rounding.rate_choice import learned_lengths
from seed_runtime.codecs.encode.grid import INTEGER_MAX

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
Index = npt.NDArray[np.intp]

STATES: Final = 8
"""Number of states: the grid of the next element, that of the one after it, and that of the one before."""
RATE_SHARE: Final = 0.5
"""Weight of a bit over that for integers of one grid, as a path makes less error with each bit already.

Of Gaussian numbers at 2 bits, .05 squared steps a bit save .110 bit, .03 and .1 save .102 and .087; of Laplacian ones
at 1.5 bits .043, none and none.
"""
_BLOCK: Final = 3
"""Elements after which each state has been reached from each state, on one path."""
_WINDOW: Final = _BLOCK << 10
"""Most elements of one search: a longer path goes on from its best state, which costs a bit or two."""
_RESIDUES: Final = np.array([[0], [2], [3], [1]], np.float32)
"""Magnitudes in half steps modulo 4, by branch: twice the grid, plus the parity of the integer."""
_LEAST: Final = np.array([[0], [2], [0], [1]], np.float32)
"""Least magnitude of each branch in half steps: both grids have a zero, of even parity."""


def next_state(state: int, parity: int) -> int:
    """Return the state after an integer of this parity."""
    grid, second, before = state >> 2, state >> 1 & 1, state & 1
    return second << 2 | (parity ^ second ^ before) << 1 | grid


def _branches_of_blocks() -> Index:
    """List the branches of the one path of a block between two states, `(states, states, elements)`."""
    branches = np.zeros((STATES, STATES, _BLOCK), np.intp)
    for first in range(STATES):
        for parities in range(1 << _BLOCK):
            state, path = first, []
            for element in range(_BLOCK):
                parity = parities >> element & 1
                path.append((state >> 2) * 2 + parity)
                state = next_state(state, parity)
            branches[first, state] = path
    return branches


_BRANCHES: Final = _branches_of_blocks()


class PathChoice:
    """Chooses values for elements that follow each other on one path, and remembers the state that it is in."""

    def __init__(self, integers: I32, rate: float) -> None:
        """Begin a path.

        Args:
            integers: `(rows, cols)`, the weights rounded to nearest, of which code lengths are learned.
            rate: weight of a bit, in squared steps.
        """
        found = learned_lengths(integers) if rate else None
        self.classes = None if found is None else found[0]
        """`(rows, cols)`, the class of each element; None where all integers cost the same."""
        self._worth = None if found is None else (4 * RATE_SHARE * rate * found[1]).astype(np.float32).reshape(-1)
        self._state = 0

    def restart(self) -> None:
        """Begin another path."""
        self._state = 0

    def choose(self, scaled: F32, classes: U8 | None, costs: F32) -> F32:
        """Return the values of the next elements.

        Args:
            scaled: `(n,)`, weights in half steps.
            classes: `(n,)`, of these elements; None where there are none.
            costs: `(n,)` or `(1,)` for all, damage of a squared step over its average.

        Returns:
            `(n,)`, whole numbers of half steps, of which `integers_of` makes integers.
        """
        values = np.empty_like(scaled)
        for start in range(0, scaled.size, _WINDOW):
            part = slice(start, start + _WINDOW)
            magnitudes, found = self._candidates(
                np.abs(scaled[part]),
                None if classes is None else classes[part],
                costs if costs.size == 1 else costs[part],
            )
            branches, self._state = best_path(found, self._state)
            values[part] = np.take_along_axis(magnitudes, branches[None], axis=0)[0]
        return np.copysign(values, scaled, out=values)

    def _candidates(self, magnitudes: F32, classes: U8 | None, costs: F32) -> tuple[F32, F32]:
        """Return the best magnitude of each branch, and what it costs, both `(branches, n)`.

        The two that enclose a weight: bits are worth less than what the error grows by in whole turns of 4 half steps.
        """
        # One turn above it must be a magnitude as well.
        magnitudes = np.minimum(magnitudes, INTEGER_MAX - 4)
        lower = magnitudes - _RESIDUES
        lower *= np.float32(0.25)
        np.floor(lower, out=lower)
        lower *= 4
        lower += _RESIDUES
        upper = lower + 4
        np.maximum(lower, _LEAST, out=lower)
        below, above = magnitudes - lower, upper - magnitudes
        for errors, values in ((below, lower), (above, upper)):
            errors *= errors
            errors *= costs
            if self._worth is not None and classes is not None:
                errors += self._worth[symbol_index((values + 1) * np.float32(0.5), classes)]
        return np.where(above < below, upper, lower), np.minimum(above, below)


def integers_of(values: I32) -> I32:
    """Return the integers that stand for values in half steps, of the same shape."""
    integers = np.abs(values)
    integers += 1
    integers >>= 1
    integers *= np.sign(values)
    return integers


def best_path(costs: F32, state: int) -> tuple[Index, int]:
    """Find the path of least cost.

    Costs between all pairs of states are joined for two blocks, four, and so on, and the states in the middle of the
    path, of its halves and so on are read off: fourteen times the sums of a search element by element, in a few
    operations on whole arrays. A path of 384 elements takes .5 ms; step by step it would be 10.

    Args:
        costs: `(branches, n)`, of each element.
        state: in which the path begins; it may end in any.

    Returns:
        The branch of each element, `(n,)`, and the state after them.
    """
    count = costs.shape[1]
    blocks = -(-count // _BLOCK)
    padded = np.zeros((_BLOCK, len(costs), blocks), np.float32)
    for element in range(_BLOCK):
        own = costs[:, element::_BLOCK]
        padded[element, :, : own.shape[1]] = own
    whole = padded[0][_BRANCHES[..., 0]]
    for element in range(1, _BLOCK):
        whole += padded[element][_BRANCHES[..., element]]
    levels = []
    while whole.shape[2] > 1:
        pairs = whole.shape[2] // 2
        firsts = np.ascontiguousarray(whole[:, :, 0 : 2 * pairs : 2])
        seconds = np.ascontiguousarray(whole[:, :, 1 : 2 * pairs : 2])
        levels.append((firsts, seconds))
        joined = _joined(firsts, seconds)
        whole = np.concatenate([joined, whole[:, :, 2 * pairs :]], axis=2) if whole.shape[2] % 2 else joined
    begins, ends = np.array([state]), whole[state, :, 0].argmin()[None]
    for firsts, seconds in reversed(levels):
        pairs = firsts.shape[2]
        both = firsts[begins[:pairs], :, np.arange(pairs)] + seconds[:, ends[:pairs], np.arange(pairs)].T
        middle = both.argmin(axis=1)
        begins = np.concatenate([np.stack([begins[:pairs], middle], axis=1).reshape(-1), begins[pairs:]])
        ends = np.concatenate([np.stack([middle, ends[:pairs]], axis=1).reshape(-1), ends[pairs:]])
    branches = _BRANCHES[begins, ends].reshape(-1)[:count]
    last = int(begins[-1])
    for branch in branches[(blocks - 1) * _BLOCK :]:
        last = next_state(last, int(branch) & 1)
    return branches, last


def _joined(firsts: F32, seconds: F32) -> F32:
    """Return the least costs by way of any state in the middle, `(states, states, pairs)`."""
    least = firsts[:, :1] + seconds[0]
    through = np.empty_like(least)
    for middle in range(1, STATES):
        np.add(firsts[:, middle, None], seconds[middle], out=through)
        np.minimum(least, through, out=least)
    return least
