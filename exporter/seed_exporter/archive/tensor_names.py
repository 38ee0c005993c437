"""Names of tensors, which skeletons have no use for: an archive's seeds hold them as metadata of the model.

With them a checkpoint that is restored has its own names again, and finds its tensors in other seeds when it is coded
again. Seeds with the base's graph have the base's, so that a chain holds them once.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import onnx

from seed_exporter.graph.index import all_graphs, definitions
from seed_exporter.graph.model import Graph
from seed_exporter.graph.renaming import rename_all_in_place
from seed_runtime.errors import FormatError
from seed_runtime.format.header import Hole
from seed_runtime.format.sections.holes import name_digest
from seed_runtime.limits import METADATA_ENTRIES_MAX, METADATA_MAX
from seed_runtime.skeletons.metadata import size_of

KEY: Final = "seed.tensors"
"""Key of the pair of metadata."""


def with_names(graph: Graph) -> Graph:
    """Return a graph that holds the names of its weights; the same one where there is no room for them."""
    pairs = [(pair.key, pair.value) for pair in graph.model.metadata_props if pair.key != KEY]
    names = json.dumps(sorted(graph.weights))
    if size_of([*pairs, (KEY, names)]) > METADATA_MAX or len(pairs) >= METADATA_ENTRIES_MAX:
        return graph
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    del model.metadata_props[:]
    for key, value in [*pairs, (KEY, names)]:
        model.metadata_props.add(key=key, value=value)
    return replace(graph, model=model)


def _names(text: str) -> list[str]:
    """Return the names of a pair of metadata, which may come from anywhere."""
    with contextlib.suppress(ValueError, RecursionError):
        names = json.loads(text)
        if isinstance(names, list) and all(isinstance(name, str) and name for name in names):
            return names
    raise FormatError(f"metadata {KEY}", "it is no list of names")


def restore_names(model: onnx.ModelProto, holes: Sequence[Hole]) -> None:
    """Give the weights of an assembled model their own names again, in place; none where it holds none.

    Args:
        model: its initializers with external data are the holes, in order.
        holes: of its seed.

    Raises:
        FormatError: what is there are no names.
    """
    found = [pair.value for pair in model.metadata_props if pair.key == KEY]
    left = [(pair.key, pair.value) for pair in model.metadata_props if pair.key != KEY]
    del model.metadata_props[:]
    for key, value in left:
        model.metadata_props.add(key=key, value=value)
    if not found:
        return
    fixed = {value.name for value in [*model.graph.input, *model.graph.output]}
    # A weight that is an output itself has a short name and a copy of its own name.
    of_digest = {name_digest(name): name for name in _names(found[0]) if name not in fixed}
    weights = [tensor.name for tensor in model.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    named = {
        short: of_digest[hole.name_digest]
        for short, hole in zip(weights, holes, strict=True)
        if hole.name_digest in of_digest
    }
    taken = {name for graph in all_graphs(model.graph) for name in definitions(graph)} | fixed | set(named.values())
    others: dict[str, str] = {}

    def new_name(name: str) -> str:
        if name in fixed or not name or (name not in named and name not in named.values()):
            return name
        if name in named:
            return named[name]
        # Another value has the short name that is a weight's own one.
        if name not in others:
            number = 0
            while (candidate := f"{name}_{number}") in taken:
                number += 1
            taken.add(candidate)
            others[name] = candidate
        return others[name]

    rename_all_in_place(model.graph, new_name)
