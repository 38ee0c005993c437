"""Codecs on the encode side: plans for weights, and streams of the weights that were planned for a codec.

A codec is one file in this folder and one line in `CODECS`; its decoder is the file of the same name in
`seed_runtime.codecs`. `quantize` makes plans, `build` groups the weights of equal plans into streams. Neither needs to
know which codecs there are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import numpy.typing as npt

from seed_exporter.graph.matrix import coded_view
from seed_exporter.graph.model import Weight
from seed_runtime import codecs as decoders
from seed_runtime.codecs.encode.symbols import StreamEstimate, SymbolStream
from seed_runtime.limits import SIDE_MAX

Progress = Callable[[int], None]
"""Progress callback: gets the number of elements done since its last call."""


class Plan(ABC):
    """Plan of how one weight is coded. Each codec has a frozen dataclass of its own; equal plans give equal bytes.

    A plan may hold what was expensive to find, or what the weight is coded against: integers, factors, a base's weight.
    Such records are equal only to themselves (`eq=False`), so that comparing plans stays cheap; an array is left out of
    the comparison.
    """

    adjustable: ClassVar[bool] = False
    """True if a search for a size may choose another plan of this kind, of less or more error."""

    @abstractmethod
    def describe(self) -> str:
        """Describe in a few words, for a report, what is kept of the weight."""


P = TypeVar("P", bound=Plan)
T = TypeVar("T")


class Codec(ABC, Generic[P, T]):
    """One codec's encode side.

    `prepare` does what one weight needs alone, in a thread of its own where there are several; `encode` makes one
    stream of the prepared weights that share it.
    """

    name: ClassVar[str]
    """Name of the decoder in `seed_runtime.codecs`."""
    plan: type[P]
    """Plans that this codec carries out."""
    sides_max: ClassVar[int] = SIDE_MAX
    """Most rows and columns of all weights of a stream together."""
    reuses_prepared: ClassVar[bool] = False
    """True if a prepared weight takes about a byte an element, and is worth keeping until its plan changes."""

    @property
    def number(self) -> int:
        """Number of the codec in a seed."""
        return decoders.BY_NAME[self.name].number

    def stream_key(self, weight: Weight) -> str:
        """Return a key that is equal for weights that may share a stream.

        By default the element type: exponents and bytes of different types have nothing to learn from each other.
        """
        return weight.dtype.name

    def sides(self, weight: Weight) -> int:
        """Return how many rows and columns the weight adds to its stream."""
        return sum(coded_view(weight))

    @abstractmethod
    def prepare(self, weight: Weight, plan: P, index: int) -> T:
        """Do what the weight needs alone.

        Args:
            weight: what is coded.
            plan: how.
            index: the weight's place in its stream, from 0 on.
        """

    @abstractmethod
    def encode(self, prepared: Sequence[T], progress: Progress | None = None) -> SymbolStream:
        """Code prepared weights as one stream."""

    @abstractmethod
    def estimate(self, prepared: Sequence[T]) -> StreamEstimate:
        """Compute the sizes that `encode` gives within 1 %, per chunk and per weight."""

    def size_among(self, prepared: Sequence[T]) -> Callable[[T], float]:
        """Return a function that computes a weight's bytes in the stream of these, whose tables stay as they are.

        An allocator asks it for many plans of a weight, among the plans of all others. By default, for codecs without
        tables, a weight takes what it takes alone.
        """
        return lambda one: float(self.estimate([one]).size)

    @abstractmethod
    def restore(self, weight: Weight, plan: P) -> npt.NDArray[Any]:
        """Compute the weight as a device will have it, in the layout of `Weight.data`, without coding it."""


def measured(stream: SymbolStream, sizes: Sequence[float]) -> StreamEstimate:
    """Describe a stream that was coded to learn its size, its bytes divided in proportion to the weights' `sizes`.

    The stream is handed on with the sizes, so that it isn't coded twice.
    """
    chunks = tuple(map(len, stream.chunks))
    scale = sum(chunks) / max(1, sum(sizes))
    return StreamEstimate(chunks, tuple(scale * size for size in sizes), stream)
