"""Run a model and show values between its nodes to whoever watches them, in bounded memory.

One pass over the feeds shows as many values as memory holds: in a small model all of them. Watches of later layers wait
for the next pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import numpy_helper

from seed_exporter.calibrate.statistic import Seen, Subject, Watch
from seed_exporter.evaluate.model_files import backend_of, write_model_files
from seed_exporter.graph.edit import FreshNames, with_graph, with_outputs
from seed_exporter.graph.index import GraphIndex
from seed_exporter.graph.messages import copy_of
from seed_exporter.graph.model import Graph
from seed_exporter.graph.tflite_file import TFLiteFile
from seed_runtime.backends import Array, Feeds, litert
from seed_runtime.system.scratch import scratch_folder

MEMORY_MAX: Final = 256 << 20
"""Most memory of the values of one run and of the watches that look at them, unless one watch alone needs more [B]."""
_ELEMENT_BYTES: Final = 8
"""Size that an element of a value is taken to have, whatever its type [B]."""


def show(subject: Subject, watches: Sequence[Watch]) -> None:
    """Run the model on all feeds, show the watches what they want to see, and finish them.

    Raises:
        UnsupportedError: the backend can't run the model.
        InputError: a feed doesn't fit it.
    """
    if not subject.feeds:
        for watch in watches:
            watch.finish()
        return
    index = GraphIndex(subject.graph)
    constants = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in subject.graph.model.graph.initializer
        if tensor.name not in subject.graph.weights
    }
    computed = [name for watch in watches for name in watch.values if name in index.producers]
    names = list(dict.fromkeys(computed))
    sizes = sizes_of(subject.graph, names, subject.feeds[0], subject.folder, subject.jobs)
    for group in _groups(watches, sizes):
        wanted = [name for name in sizes if any(name in watch.values for watch in group)]
        for number, values in enumerate(_runs(subject, _showing(subject.graph, wanted), wanted)):
            known = {**constants, **values}
            samples, mask = samples_of(subject.graph, values), _mask_of(subject.graph, values)
            for watch in group:
                wanted_values = {name: known[name] for name in watch.values}
                watch.see(Seen(number, number % subject.parts, samples, wanted_values, mask))
        for watch in group:
            watch.finish()


def _showing(graph: Graph, names: Sequence[str]) -> Graph:
    """Return a graph that has these values as outputs; a TFLite model shows every value as it is."""
    return graph if graph.file is not None else with_outputs(graph, names)


def samples_of(graph: Graph, feeds: Feeds) -> int:
    """Return the size of a batch: what the free first axes of all inputs have in common, 1 where nothing."""
    shapes = GraphIndex(graph).shapes
    initialized = {tensor.name for tensor in graph.model.graph.initializer}
    firsts = set()
    for value in graph.model.graph.input:
        if value.name in initialized:
            continue
        shape = shapes.get(value.name, ())
        firsts.add(feeds[value.name].shape[0] if len(shape) > 1 and not isinstance(shape[0], int) else 1)
    return max(1, firsts.pop()) if len(firsts) == 1 else 1


def _mask_of(graph: Graph, feeds: Feeds) -> Array | None:
    """Return the input that masks what fills texts up to one length; None where there isn't exactly one."""
    names = [value.name for value in graph.model.graph.input if "mask" in value.name.lower() and value.name in feeds]
    if len(names) != 1:
        return None
    mask = feeds[names[0]]
    is_mask = mask.ndim == 2 and mask.dtype.kind in "biu" and np.isin(mask, (0, 1)).all()
    return mask if is_mask and mask.any() and not mask.all() else None


def sizes_of(graph: Graph, names: Sequence[str], feeds: Feeds, folder: Path | None, jobs: int) -> dict[str, int]:
    """Measure how much memory each value takes in a run on these feeds [B]. Nothing but sizes leaves the run."""
    if not names:
        return {}
    if graph.file is not None:
        found = next(_runs(Subject(graph, [feeds], folder, jobs), graph, names))
        return {name: _ELEMENT_BYTES * found[name].size for name in names}
    fresh = FreshNames(graph)
    sizes = {name: fresh.take(f"{name}_size") for name in names}
    main = graph.model.graph
    nodes = [onnx.helper.make_node("Size", [name], [size]) for name, size in sizes.items()]
    edited = with_graph(graph, copy_of(main, node=[*main.node, *nodes]))
    wanted = list(sizes.values())
    found = next(_runs(Subject(graph, [feeds], folder, jobs), with_outputs(edited, wanted), wanted))
    return {name: _ELEMENT_BYTES * int(found[size]) for name, size in sizes.items()}


def _groups(watches: Sequence[Watch], sizes: Mapping[str, int]) -> Iterator[list[Watch]]:
    """Divide watches into those that memory holds at once, in order."""
    group: list[Watch] = []
    held: set[str] = set()
    taken = 0
    for watch in watches:
        new = {name for name in watch.values if name in sizes} - held
        needed = watch.size + sum(sizes[name] for name in new)
        if group and taken + needed > MEMORY_MAX:
            yield group
            group, held, taken = [], set(), 0
            new = {name for name in watch.values if name in sizes}
            needed = watch.size + sum(sizes[name] for name in new)
        group.append(watch)
        held |= new
        taken += needed
    if group:
        yield group


def _runs(subject: Subject, graph: Graph, wanted: Sequence[str]) -> Iterator[dict[str, Array]]:
    """Yield each feed together with the wanted outputs that a graph has for it."""
    if not wanted:
        yield from map(dict, subject.feeds)
        return
    with scratch_folder(subject.folder) as folder:
        write_model_files(graph, folder)
        if graph.file is not None:
            yield from _tflite_runs(subject, graph.file, folder, wanted)
            return
        runner = backend_of(folder).open(folder, "fast", subject.jobs)
        try:
            for feeds in subject.feeds:
                yield {**feeds, **runner.run(feeds, wanted)}
        finally:
            runner.close()


def _tflite_runs(subject: Subject, file: TFLiteFile, folder: Path, wanted: Sequence[str]) -> Iterator[dict[str, Array]]:
    runner = litert.BACKEND.open_preserving(folder, subject.jobs)
    try:
        for feeds in subject.feeds:
            runner.run(feeds, [])
            yield {**feeds, **{name: runner.inner(file.numbers[name]) for name in wanted}}
    finally:
        runner.close()
