"""Statistics: values that are measured of each weight before a method plans."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from seed_exporter.graph.model import Graph
from seed_runtime.backends import Array, Feeds

V = TypeVar("V")

PARTS_MAX: Final = 4
"""Most parts that the inputs are divided into, for cross-validation."""


@dataclass(frozen=True)
class Subject:
    """Model that statistics are measured of, with what the measuring needs.

    Attributes:
        graph: the model with its weights.
        feeds: inputs to run it on; none for statistics of the weights alone.
        folder: for models that are run, and for arrays that memory doesn't hold; None where nothing is run.
        jobs: threads.
    """

    graph: Graph
    feeds: Sequence[Feeds] = ()
    folder: Path | None = None
    jobs: int = 1

    @property
    def parts(self) -> int:
        """Number of parts that the feeds are divided into: feed number i belongs to part i modulo it."""
        return min(PARTS_MAX, len(self.feeds))


@dataclass(frozen=True)
class Seen:
    """Values of one run of the model.

    Attributes:
        number: position of the run's inputs among the subject's feeds.
        part: part of the feeds that they belong to.
        samples: number of independent inputs, the size of the batch.
        values: what was asked for, by name; read-only.
        mask: input that says which places of a text are tokens and which fill it up, `(batch, length)`; None where
            there is none, or nothing is filled up.
    """

    number: int
    part: int
    samples: int
    values: Feeds
    mask: Array | None = None


class Watch(ABC):
    """Looks at some values of a model while it runs. All watches share the runs.

    Attributes:
        values: names of inputs, of small constants, or of results of nodes of the main graph.
        size: memory that is held from the first `see` to `finish` [B].
    """

    values: tuple[str, ...]
    size: int = 0

    @abstractmethod
    def see(self, seen: Seen) -> None:
        """Take the values of one run; called once for each feed, in order."""

    def finish(self) -> None:  # noqa: B027  most have nothing to do
        """Release memory, once all feeds were seen."""


class Observer(ABC, Generic[V]):
    """Measures a statistic while the model runs.

    Attributes:
        watches: what it looks at.
    """

    watches: Sequence[Watch]

    @abstractmethod
    def values(self) -> Mapping[str, V]:
        """Return the statistic's value of each weight that has one, once all watches have finished."""


@dataclass(frozen=True, eq=False)
class Statistic(Generic[V]):
    """One statistic; equal only to itself.

    Attributes:
        name: description for people.
        measure: function that returns its value of each weight that has one, by the weight's name; or an observer,
            which finds these while the model runs on the subject's feeds.
    """

    name: str
    measure: Callable[[Subject], Mapping[str, V] | Observer[V]]


class Statistics:
    """The statistics that were measured."""

    def __init__(self, values: Mapping[Statistic[Any], Mapping[str, Any]]) -> None:
        """Hold the values of some statistics."""
        self._values = dict(values)

    def replaced(self, other: Statistics) -> Statistics:
        """Return these with the values of `other` in place of their own."""
        return Statistics({**self._values, **other._values})

    def __contains__(self, statistic: Statistic[Any]) -> bool:
        """Return whether a statistic was asked for."""
        return statistic in self._values

    def __getitem__(self, statistic: Statistic[V]) -> Mapping[str, V]:
        """Return the values of a statistic by the weights' names.

        Raises:
            KeyError: it wasn't asked for, see `Method.needs`.
        """
        if statistic not in self._values:
            raise KeyError(f"{statistic.name} wasn't measured; name it in the method's needs")
        return self._values[statistic]
