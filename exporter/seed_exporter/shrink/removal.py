"""Cut the channels out of a graph that an analysis found to be removable."""

from __future__ import annotations

import numpy as np
import onnx

from seed_exporter.graph.edit import FreshNames
from seed_exporter.graph.messages import copy_of
from seed_exporter.graph.model import Graph
from seed_exporter.shrink.cut import Cut
from seed_exporter.shrink.places import Places
from seed_exporter.shrink.tensors import with_arrays
from seed_exporter.shrink.values import Values


def without_dead(values: Values, places: Places) -> Graph:
    """Return the analysed graph without the channels that can be removed; the graph itself where there are none.

    Args:
        values: what is known of the graph.
        places: is told what is left of its initializers.
    """
    graph, axes = values.graph, values.axes
    removed = values.table.removable([each for every in axes.values() for each in every if each is not None])
    smaller = {name for name, each in axes.items() if any(removed[one].any() for one in each if one is not None)}
    if not smaller:
        return graph
    main = copy_of(graph.model.graph)
    cut = Cut(removed, list(main.node), FreshNames(graph))
    for position, edits in sorted(values.edits.items()):
        for edit in edits:
            edit(cut, cut.nodes[position])
    arrays = dict(cut.tensors)
    for tensor in main.initializer:
        array = values.data(tensor.name) if tensor.name in smaller else None
        if array is not None:
            for axis, channels in enumerate(axes[tensor.name]):
                if channels is not None and cut.removed(channels).any():
                    places.keep(tensor.name, axis, np.flatnonzero(~cut.removed(channels)))
                array = cut.along(array, channels, axis)
            arrays[tensor.name] = np.ascontiguousarray(array)
    for value in main.value_info:
        for dim, channels in zip(value.type.tensor_type.shape.dim, axes.get(value.name, ()), strict=False):
            if channels is not None and dim.HasField("dim_value"):
                dim.dim_value = cut.count(channels)
    return with_arrays(graph, copy_of(main, node=_in_order(cut)), arrays)


def _in_order(cut: Cut) -> list[onnx.NodeProto]:
    ordered = []
    for position, node in enumerate(cut.nodes):
        ordered += [*cut.before.get(position, ()), node, *cut.after.get(position, ())]
    return ordered
