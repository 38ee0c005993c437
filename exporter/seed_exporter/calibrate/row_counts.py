"""How often each row of a table is read, so that frequent rows can be kept more exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from seed_exporter.calibrate.statistic import Observer, Seen, Statistic, Subject, Watch
from seed_exporter.graph.linear import table_axis_is_first

Counts = npt.NDArray[np.int64]


def _measure(subject: Subject) -> Observer[Counts]:
    return _RowCounts(subject)


ROW_COUNTS: Final = Statistic("how often rows of tables are read", _measure)
"""Number of times that each row of a table is read by Gather nodes of the main graph, `(parts, rows)`.

Places that a mask input says only fill a text up don't count. None where there are no feeds.
"""


class _RowCounts(Observer[Counts]):
    def __init__(self, subject: Subject) -> None:
        main, weights = subject.graph.model.graph, subject.graph.weights
        tables: dict[str, list[str]] = {}
        for node in main.node if subject.feeds else ():
            if node.op_type == "Gather" and node.input[0] in weights and node.input[1] not in weights:
                axis = next((each.i for each in node.attribute if each.name == "axis"), 0)
                if axis in (0, -2) and table_axis_is_first(weights[node.input[0]]):
                    tables.setdefault(node.input[0], []).append(node.input[1])
        self._counters = {
            name: _Counter(tuple(indices), weights[name].shape[0], subject.parts) for name, indices in tables.items()
        }
        self.watches: Sequence[_Counter] = list(self._counters.values())

    def values(self) -> Mapping[str, Counts]:
        return {name: counter.counts for name, counter in self._counters.items()}


class _Counter(Watch):
    def __init__(self, indices: tuple[str, ...], rows: int, parts: int) -> None:
        self.values = tuple(dict.fromkeys(indices))
        self.counts = np.zeros((parts, rows), np.int64)
        self.size = self.counts.nbytes
        self._indices = indices

    def see(self, seen: Seen) -> None:
        rows = self.counts.shape[1]
        for name in self._indices:
            indices = seen.values[name]
            if seen.mask is not None and indices.shape == seen.mask.shape:
                indices = indices[seen.mask != 0]
            self.counts[seen.part] += np.bincount(indices.reshape(-1) % rows, minlength=rows)
