"""Names that a seed can't carry: refused where programs use them, replaced where nobody does.

The names of weights, nodes and values in between are replaced by numbers later, whatever they are (skeletons/onnx.py).
"""

from __future__ import annotations

import onnx

from seed_exporter.graph.index import all_graphs
from seed_runtime.errors import UnsupportedError
from seed_runtime.format.primitives import printable
from seed_runtime.limits import STRING_MAX
from seed_runtime.skeletons.onnx_schema import TEXT_MAX


def check_names(graph: onnx.GraphProto) -> None:
    """Raise UnsupportedError for the first input or output whose name a seed can't carry."""
    for kind, values in (("input", graph.input), ("output", graph.output)):
        for value in values:
            # A seed states the memory that a model needs by the names of inputs that have free sizes.
            most = STRING_MAX if kind == "input" and _is_free(value) else TEXT_MAX
            size = len(value.name.encode())
            shown = repr(value.name[:60]) + ("..." if len(value.name) > 60 else "")
            if size > most:
                raise UnsupportedError(
                    f"the name of {kind} {shown} has {size:,} bytes and a seed takes {most:,}; rename it in the model"
                )
            if not value.name or not printable(value.name):
                raise UnsupportedError(
                    f"the name of {kind} {shown} is empty or holds characters that can't be printed; rename it in the "
                    f"model"
                )


def replace_dimension_names(graph: onnx.GraphProto) -> None:
    """Give dimensions whose names can't be printed, or are too long, other names: each the same wherever it stands."""
    dims = [
        dim
        for inner in all_graphs(graph)
        for value in [*inner.input, *inner.output, *inner.value_info]
        for dim in value.type.tensor_type.shape.dim
        if dim.dim_param
    ]
    taken = {dim.dim_param for dim in dims}
    replaced: dict[str, str] = {}
    for dim in dims:
        name = dim.dim_param
        if printable(name) and len(name.encode()) <= TEXT_MAX:
            continue
        if name not in replaced:
            number = len(replaced)
            while (new := f"dim_{number}") in taken:
                number += 1
            taken.add(new)
            replaced[name] = new
        dim.dim_param = replaced[name]


def _is_free(value: onnx.ValueInfoProto) -> bool:
    tensor = value.type.tensor_type
    return not tensor.HasField("shape") or any(not dim.HasField("dim_value") for dim in tensor.shape.dim)
