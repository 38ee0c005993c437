"""The covariances of what matrices are multiplied by, which rounding by second order needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from seed_exporter.calibrate.covariance import Covariance
from seed_exporter.calibrate.linear_inputs import Source, source_of
from seed_exporter.calibrate.statistic import Observer, Seen, Statistic, Subject, Watch
from seed_exporter.evaluate.samples import spread
from seed_exporter.graph.kinds import FLOATS
from seed_exporter.graph.linear import linear_view
from seed_exporter.graph.model import Graph, Weight

INPUTS_MAX: Final = 4096
"""Most inputs of a group of a layer that has covariances: their matrix takes 64 MB a part."""
POSITIONS_MAX: Final = 1024
"""Most positions (tokens, pixels) of one sample that are looked at, spread evenly."""
POSITIONS_PER_INPUT: Final = 64
"""Number of positions for each input of a layer from which on, over all samples, no more are looked at."""
POSITIONS_LEAST: Final = 4096
"""Number of positions over all samples that are looked at however few inputs a layer has."""
MEMORY_MAX: Final = 64 << 20
"""Size of all moments from which on they are kept in a file [B]."""

_FILE: Final = "moments.f32"


def _measure(subject: Subject) -> Observer[Covariance]:
    return _Covariances(subject)


COVARIANCES: Final = Statistic("the covariances of layers' inputs", _measure)
"""Covariance of the inputs of each weight that is multiplied as a matrix in the main graph.

Weights that are used several times have the mean over all positions of all uses. Places that a mask input says only
fill a text up don't count. There is none without feeds, of layers with more inputs than INPUTS_MAX, and of weights
that only bodies of If, Loop and Scan use.
"""


def shortage(found: Mapping[str, Covariance]) -> str:
    """Write a note on layers that have seen fewer positions than they have inputs; "" where none has."""
    short = sum(int(each.positions.sum()) < each.moments.shape[-1] for each in found.values())
    if not short:
        return ""
    return (
        f"{short} of {len(found)} layers have more inputs than the calibration has positions, so that their rounding "
        f"follows it less; give more inputs with --calib"
    )


class _Covariances(Observer[Covariance]):
    def __init__(self, subject: Subject) -> None:
        by_sources: dict[tuple[Source, ...], _Moments] = {}
        self._of_weight: dict[str, _Moments] = {}
        for name, sources in _sources(subject.graph).items() if subject.feeds else ():
            groups, inputs = _group_sizes(subject.graph.weights[name])
            if sources not in by_sources:
                by_sources[sources] = _Moments(sources, groups, inputs, subject)
            self._of_weight[name] = by_sources[sources]
        self.watches: Sequence[_Moments] = list(by_sources.values())
        self._path: Path | None = None
        if subject.folder is not None and sum(watch.size for watch in self.watches) > MEMORY_MAX:
            self._path = subject.folder / _FILE
            self._path.unlink(missing_ok=True)
            for watch in self.watches:
                watch.path = self._path

    def values(self) -> dict[str, Covariance]:
        # One map for all, since each holds a file open.
        stored = None if self._path is None else np.memmap(self._path, np.float32, "r")
        found = {id(watch): watch.covariance(stored) for watch in self.watches if watch.positions.any()}
        return {name: found[id(watch)] for name, watch in self._of_weight.items() if id(watch) in found}


class _Moments(Watch):
    """Sums of the moments of one or several sources."""

    def __init__(self, sources: tuple[Source, ...], groups: int, inputs: int, subject: Subject) -> None:
        parts = subject.parts
        self.values = tuple(dict.fromkeys(name for source in sources for name in source.values))
        self.path: Path | None = None
        self.positions = np.zeros(parts, np.int64)
        self._sources = sources
        self._shape = (parts, groups, inputs, inputs)
        self.size = 4 * parts * groups * inputs * inputs
        self._moments: npt.NDArray[np.float32] | None = None
        self._offset = 0
        enough = max(POSITIONS_LEAST, POSITIONS_PER_INPUT * inputs)
        self._most = min(POSITIONS_MAX, -(-enough // len(subject.feeds)))

    def see(self, seen: Seen) -> None:
        if self._moments is None:
            self._moments = np.zeros(self._shape, np.float32)
        rng = np.random.default_rng(seen.number)
        tokens = None if seen.mask is None else np.flatnonzero(seen.mask)

        def choose(count: int) -> npt.NDArray[np.intp]:
            most = self._most * seen.samples
            if tokens is not None and seen.mask is not None and count == seen.mask.size:
                return tokens[spread(len(tokens), most, rng)]
            return spread(count, most, rng)

        for source in self._sources:
            vectors = source.vectors(seen.values, choose)
            # What overflows says nothing about the layer.
            finite = np.isfinite(vectors).all(axis=(0, 2))
            vectors = vectors if finite.all() else vectors[:, finite]
            # Moments that overflow are infinite, and nothing is chosen by them.
            with np.errstate(over="ignore", invalid="ignore"):
                self._moments[seen.part] += np.matmul(vectors.swapaxes(1, 2), vectors)
            self.positions[seen.part] += vectors.shape[1]

    def finish(self) -> None:
        if self._moments is None:
            return
        counts = np.maximum(1, self.positions)
        self._moments /= counts[:, None, None, None].astype(np.float32)
        if self.path is not None:
            with self.path.open("ab") as file:
                self._offset = file.tell() // 4
                file.write(self._moments.data)
            self._moments = None

    def covariance(self, stored: npt.NDArray[np.float32] | None) -> Covariance:
        moments = self._moments
        if moments is None:
            assert stored is not None
            moments = stored[self._offset : self._offset + self.size // 4].reshape(self._shape)
        return Covariance(moments, self.positions)


def _sources(graph: Graph) -> dict[str, tuple[Source, ...]]:
    """Return the sources of each weight that can have a covariance, in the order of the nodes that read it first."""
    found: dict[str, list[Source]] = {}
    tables = _transposed(graph)
    known = {value.name for value in graph.model.graph.input}
    known |= {tensor.name for tensor in graph.model.graph.initializer} - graph.weights.keys()
    for node in graph.model.graph.node:
        known |= set(node.output)
        for index, name in enumerate(node.input):
            weight = tables.get(name) if (node.op_type, index) == ("MatMul", 1) else None
            weight = weight or graph.weights.get(name)
            if weight is None or weight.dtype.name not in FLOATS:
                continue
            view, is_table = linear_view(weight), name in tables
            if not (is_table or view is not None) or _group_sizes(weight)[1] > INPUTS_MAX:
                continue
            source = source_of(node, index, weight)
            if source is not None and known.issuperset(source.values):
                found.setdefault(weight.name, []).append(source)
    return {name: tuple(sources) for name, sources in found.items()}


def _transposed(graph: Graph) -> dict[str, Weight]:
    """Return matrices `(outputs, inputs)` without a linear use, by the names of their transposes in the main graph.

    Such is a table of words whose transpose computes the scores of all words.
    """
    found = {}
    for node in graph.model.graph.node:
        weight = graph.weights.get(node.input[0]) if node.op_type == "Transpose" else None
        if weight is None or len(weight.shape) != 2 or linear_view(weight) is not None:
            continue
        if all(list(each.ints) == [1, 0] for each in node.attribute if each.name == "perm"):
            found[node.output[0]] = weight
    return found


def _group_sizes(weight: Weight) -> tuple[int, int]:
    """Return the number of groups and of a group's inputs."""
    view = linear_view(weight)
    return (1, weight.shape[1]) if view is None else (view.shape[0], view.shape[2])
