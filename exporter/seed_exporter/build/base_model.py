"""The seed that a new version is coded against: its tensors, and whether both have the same graph."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy.typing as npt

import seed_runtime
from seed_exporter.graph.model import Graph, Weight
from seed_runtime.assembly.base_file import Key, MappedWeights, holes_of_base, key_of, places_of
from seed_runtime.assembly.cache import ModelCache
from seed_runtime.codecs import BaseWeights
from seed_runtime.errors import UsageError
from seed_runtime.format.header import BaseInfo, Hole, Part
from seed_runtime.format.sections.holes import name_digest
from seed_runtime.limits import CHAIN_MAX
from seed_runtime.seed import Seed

_CACHE_MAX: Final = 1 << 44
"""Size of the cache in the export's own folder [B]: what is there is needed until the end."""


@dataclass(frozen=True, eq=False)
class BaseModel:
    """A seed whose weights can be read by any number of threads, until the block of `opened` ends."""

    seed: Seed
    cache: ModelCache | None
    """Cache that holds what was assembled of it; None where nothing was."""
    _weights: BaseWeights
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    @contextmanager
    def opened(cls, paths: Sequence[str | os.PathLike[str]], folder: Path) -> Iterator[BaseModel]:
        """Open and assemble a seed, and those that it is on top of.

        Args:
            paths: the first one is whole, each other one is on top of the one before, and the last one is the base.
            folder: for what is assembled.

        Raises:
            UsageError: a path is none of a seed, or the chain is as long as it may be.
        """
        base: Seed | None = None
        for path in paths:
            try:
                base = seed_runtime.open(path, enforce=False, base=base)
            except OSError as error:
                raise UsageError(f"--base {path}: {error.strerror}; give the path of a seed") from None
        if base is None:
            raise UsageError("--base names no seed; give the path of one")
        if base.header.depth_above > CHAIN_MAX:
            raise UsageError(
                f"--base {paths[-1]}: it is the end of a chain of {CHAIN_MAX} seeds, which is the longest; "
                f"give an earlier one, or leave out --base for a whole seed"
            )
        cache = ModelCache(folder, _CACHE_MAX)
        with base.assembled_weights(cache) as weights:
            yield cls(base, cache, weights)

    @property
    def info(self) -> BaseInfo:
        """Section BASE of a seed on top of it."""
        return BaseInfo(self.seed.digest, self.seed.header.depth_above)

    @cached_property
    def _places(self) -> dict[Key, int]:
        """Numbers of the holes that can be told apart."""
        return places_of(self.seed.header.holes)

    def values(self, weight: Weight) -> npt.NDArray[Any] | None:
        """Return the base's tensor of a weight's name, type and shape, laid out as its data; None where it has none."""
        number = self._places.get(_key(weight))
        if number is None:
            return None
        return self.read(number, 0, weight.count).reshape(weight.data.shape)

    def read(self, hole: int, start: int, stop: int) -> npt.NDArray[Any]:
        """Return elements of the base's tensor by the number of its hole; see `BaseWeights`."""
        with self._lock:
            return self._weights.read(hole, start, stop)

    def order_of(self, graph: Graph) -> list[str] | None:
        """Return a graph's weights in the order of the base's holes; None unless they are the same ones."""
        names = {_key(weight): name for name, weight in graph.weights.items()}
        counts = {len(names), len(graph.weights), len(self.seed.header.holes)}
        if names.keys() != self._places.keys() or len(counts) > 1:
            return None
        return [names[key] for key, _ in sorted(self._places.items(), key=lambda item: item[1])]

    def shares(self, holes: Sequence[Hole], others: Sequence[Part], skeleton: bytes) -> bool:
        """Return whether a seed may leave out its parts and holes, because they are the base's.

        Args:
            holes: of the seed.
            others: its parts but the skeleton.
            skeleton: its whole skeleton.
        """
        own = self.seed.header
        return (
            list(map(key_of, holes)) == list(map(key_of, own.holes))
            and list(others) == list(own.parts[1:])
            and skeleton == bytes(self.seed.skeleton_bytes())
        )

    def weights(self, holes: Sequence[Hole], *, shared: bool) -> BaseWeights:
        """Return the base's weights for the holes of a seed on top of it."""
        return self if shared else MappedWeights(self, holes_of_base(holes, self.seed.header.holes))


def _key(weight: Weight) -> Key:
    return key_of(Hole(weight.dtype, tuple(weight.shape), 0, name_digest=name_digest(weight.name)))
