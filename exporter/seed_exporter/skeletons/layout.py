"""Skeletons of every kind: a model's bytes, and the place of each weight in the weights file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from seed_exporter.graph.model import Weight
from seed_runtime.errors import UnsupportedError
from seed_runtime.format.dtypes import DType
from seed_runtime.limits import RANK_MAX
from seed_runtime.skeletons import ALIGNMENT


@dataclass(frozen=True)
class HoleLayout:
    """Place of one weight in the weights file.

    Attributes:
        name: the weight's name in the model.
        dtype: element type.
        dims: dimensions in elements.
        skip: zero bytes between the end of the previous weight and this one [B].
        offset: start of the weight in the weights file [B].
        size: bytes of the weight [B].
    """

    name: str
    dtype: DType
    dims: tuple[int, ...]
    skip: int
    offset: int
    size: int


@dataclass(frozen=True)
class Skeleton:
    """A model without weights, as a seed carries it.

    Attributes:
        kind: the number of the part that holds it (SPEC.md, "Parts").
        data: the model's bytes.
        names: what the weights' names begin with in the model, for kinds whose end a seed leaves out.
        tail: how many bytes of it a seed leaves out, because they follow from names and holes [B].
        holes: one per weight, in the order of the weights file.
    """

    kind: int
    data: bytes
    names: str
    tail: int
    holes: list[HoleLayout]

    @property
    def weights_size(self) -> int:
        """Size of the weights file, which ends with the last weight, without padding [B]."""
        return self.holes[-1].offset + self.holes[-1].size if self.holes else 0

    @property
    def carried(self) -> bytes:
        """Bytes that a seed carries, before they are packed."""
        return self.data[: len(self.data) - self.tail]


class SkeletonBuilder(ABC):
    """Builds skeletons of one graph, which is never changed, for any order of its weights.

    The same graph and order give the same bytes.

    Args:
        weights: the graph's weights by name.
    """

    def __init__(self, weights: Mapping[str, Weight]) -> None:
        self._weights = weights
        self._checked: set[tuple[str, ...]] = set()

    def build(self, order: Sequence[str]) -> Skeleton:
        """Build the skeleton whose weights follow each other in `order`, and check that devices accept it.

        Raises:
            ValueError: `order` isn't a permutation of the weights' names.
            UnsupportedError: the skeleton holds more or other things than a device accepts.
        """
        skeleton = self.build_unchecked(order)
        if tuple(order) not in self._checked:
            self._check(skeleton)
            self._checked.add(tuple(order))
        return skeleton

    @abstractmethod
    def build_unchecked(self, order: Sequence[str]) -> Skeleton:
        """Build the same skeleton without checking that devices accept it.

        Raises:
            ValueError: `order` isn't a permutation of the weights' names.
        """

    @staticmethod
    @abstractmethod
    def _check(skeleton: Skeleton) -> None:
        """Raise UnsupportedError unless a device accepts the skeleton."""

    def _lay_out(self, order: Sequence[str]) -> list[HoleLayout]:
        """Place the weights in this order, see `lay_out`; ValueError unless it holds the name of each once."""
        if sorted(order) != sorted(self._weights):
            raise ValueError("order must hold the name of each weight once")
        return lay_out(self._weights[name] for name in order)


def lay_out(weights: Iterable[Weight]) -> list[HoleLayout]:
    """Place weights one after the other, each at the next multiple of `ALIGNMENT`.

    Raises:
        UnsupportedError: a weight has more axes than a device accepts.
    """
    holes = []
    end = 0
    for weight in weights:
        if len(weight.shape) > RANK_MAX:
            raise UnsupportedError(
                f"weight {weight.name!r} has {len(weight.shape)} axes and a device accepts {RANK_MAX}; "
                f"reshape it in the model"
            )
        offset = -(-end // ALIGNMENT) * ALIGNMENT
        holes.append(HoleLayout(weight.name, weight.dtype, weight.shape, offset - end, offset, weight.size))
        end = offset + weight.size
    return holes
