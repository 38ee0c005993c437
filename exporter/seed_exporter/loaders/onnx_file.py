"""ONNX files: initializers, external data, Constant nodes, subgraphs, functions, sparse tensors.

Weights are taken out first, so that no protobuf message comes near the 2 GB that it can hold.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from seed_exporter.graph import dedup
from seed_exporter.graph.edit import Names, drop_unused, replace
from seed_exporter.graph.model import Graph, all_graphs, find_uses
from seed_exporter.loaders.collect import Collector
from seed_runtime.errors import UnsupportedError, UsageError


def matches(source: object) -> bool:
    return isinstance(source, onnx.ModelProto) or (
        isinstance(source, (str, Path)) and Path(source).suffix.lower() == ".onnx"
    )


def load(source: str | Path | onnx.ModelProto) -> Graph:
    """The graph of an ONNX file, or of a model in memory whose data is in memory too.

    Memory: external data is mapped; what is inside the file is read once and copied once.

    Raises:
        UsageError: there is no such file.
        UnsupportedError: the file is no ONNX model, or its data is missing or damaged.
    """
    if isinstance(source, onnx.ModelProto):
        model = onnx.ModelProto()
        model.CopyFrom(source)
        return from_proto(model, None)
    path = Path(source)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}; check the path") from None
    if not data:
        raise UnsupportedError(f"{path} is empty; copy or export it again")
    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError:
        raise UnsupportedError(f"{path} is no ONNX model, or it is cut; copy or export it again") from None
    del data
    return from_proto(model, path)


def from_proto(model: onnx.ModelProto, path: Path | None) -> Graph:
    """Take the weights out of `model`, which is changed. `path` is where its external data lies beside."""
    if not model.HasField("graph") or not model.opset_import:
        raise UnsupportedError(f"{path or 'the model'} holds no graph or names no opset; export it again")
    collector = Collector(path)
    # Up to IR 3 every initializer was an input with a default. From IR 4 on those that aren't inputs
    # are constants, which is what ONNX Runtime needs to fold and prepack them.
    model.ir_version = max(model.ir_version, 4)
    initializers = collector.take_initializers(model.graph)
    held = {tensor.name for tensor in initializers}
    inputs = [value for value in model.graph.input if value.name not in held]
    replace(model.graph.input, inputs)
    replace(model.graph.initializer, initializers)
    if model.functions:
        model = _inline_functions(model)
        initializers = list(model.graph.initializer)
    names = Names(model.graph)
    initializers += collector.take_sparse(model.graph)
    initializers += collector.take_constants(model.graph, names)
    # Innermost first: what an outer graph's nodes are replaced by are copies, inner graphs included.
    for inner in reversed(list(all_graphs(model.graph))[1:]):
        initializers += collector.hoist(inner, names)
    collector.bring_in_attributes(model.graph)
    _free_negative_dimensions(model.graph)
    # Into a new message: the old one's memory holds the weights until it goes as a whole.
    replace(model.graph.initializer, initializers)
    slim = onnx.ModelProto()
    slim.CopyFrom(model)
    del model, initializers
    graph = Graph(slim, collector.weights)
    _settle(graph)
    dedup.share_identical(graph)
    dedup.share_small(graph)
    dedup.share_rearranged(graph, Names(slim.graph))
    _settle(graph)
    for name, uses in find_uses(slim, set(graph.weights)).items():
        graph.weights[name].uses = uses
    return graph


def _inline_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Put the bodies of the model's own functions where they are called, weights included."""
    from onnx import inliner

    try:
        return inliner.inline_local_functions(model)
    except Exception as error:  # the inliner raises whatever its C++ side threw
        raise UnsupportedError(
            f"the model's functions can't be expanded ({error}); export it without functions"
        ) from error


def _free_negative_dimensions(graph: onnx.GraphProto) -> None:
    """Make dimensions of -1, as Paddle writes them, unknown; ONNX Runtime reads them so."""
    for inner in all_graphs(graph):
        for value in [*inner.input, *inner.output, *inner.value_info]:
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_value < 0:
                    dim.ClearField("dim_value")


def _settle(graph: Graph) -> None:
    """Drop what nothing reads, and forget the weights that went with it."""
    drop_unused(graph.model.graph)
    left = {tensor.name for tensor in graph.model.graph.initializer}
    graph.weights = {name: weight for name, weight in graph.weights.items() if name in left}
