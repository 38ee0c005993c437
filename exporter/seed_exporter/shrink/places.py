"""Where the elements of a shrunk graph's initializers lay in the original, so that others can cut what belongs to them.

Healing needs it: the integers and steps that training found are cut with the weights that they stand for.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


class Places:
    """Follows initializers, by name and axis, through all rounds of shrinking one graph."""

    def __init__(self) -> None:
        self._left: dict[str, dict[int, npt.NDArray[np.intp]]] = {}

    def keep(self, name: str, axis: int, places: npt.NDArray[np.intp]) -> None:
        """Note which places along an axis, of those that are left so far, make up the axis from now on."""
        axes = self._left.setdefault(name, {})
        before = axes.get(axis)
        axes[axis] = places if before is None else before[places]

    def taken(self, name: str, array: np.ndarray) -> np.ndarray:
        """Return the part of an array that is left of an initializer.

        Args:
            name: of the initializer.
            array: of the original's shape.
        """
        for axis, places in self._left.get(name, {}).items():
            array = array.take(places, axis)
        return array
