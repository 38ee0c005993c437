"""Statistics: values that are measured of each weight before a method plans."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from seed_exporter.graph.model import Graph
from seed_runtime.backends import Feeds

V = TypeVar("V")


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


@dataclass(frozen=True, eq=False)
class Statistic(Generic[V]):
    """One statistic; equal only to itself.

    Attributes:
        name: description for people.
        measure: function that returns its value of each weight that has one, by the weight's name.
    """

    name: str
    measure: Callable[[Subject], Mapping[str, V]]


class Statistics:
    """The statistics that were measured."""

    def __init__(self, values: Mapping[Statistic[Any], Mapping[str, Any]]) -> None:
        """Hold the values of some statistics."""
        self._values = dict(values)

    def __getitem__(self, statistic: Statistic[V]) -> Mapping[str, V]:
        """Return the values of a statistic by the weights' names.

        Raises:
            KeyError: it wasn't asked for, see `Method.needs`.
        """
        if statistic not in self._values:
            raise KeyError(f"{statistic.name} wasn't measured; name it in the method's needs")
        return self._values[statistic]
