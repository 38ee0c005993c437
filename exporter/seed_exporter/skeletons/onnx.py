"""ONNX skeletons: a model's ONNX bytes without weights.

Every weight becomes an initializer with external data in `model.weights`, 64-byte aligned.
What ONNX Runtime doesn't need is left out, because each byte of it would travel to every device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import onnx

from seed_exporter.graph.index import all_graphs
from seed_exporter.graph.messages import replace_elements
from seed_exporter.graph.model import Graph
from seed_exporter.graph.renaming import rename_all_in_place
from seed_exporter.skeletons.defaults import drop_defaults
from seed_exporter.skeletons.known_shapes import needed_shapes
from seed_exporter.skeletons.layout import Skeleton, SkeletonBuilder
from seed_runtime.errors import FormatError, UnsupportedError
from seed_runtime.format import primitives
from seed_runtime.format.parts import ONNX_SKELETON
from seed_runtime.format.parts.onnx_skeleton import initializers, number_name
from seed_runtime.skeletons import check_holes
from seed_runtime.skeletons.onnx import scan

_GRAPH_TAG: Final = b"\x3a"
"""Field 7 of a ModelProto, of bytes."""
_UNREAD: Final = frozenset(
    {
        "doc_string",
        "metadata_props",
        "denotation",
        "quantization_annotation",
        "device_configurations",
        "configuration",
        "training_info",
    }
)
"""Fields for people and other tools, at any depth. A device refuses all but the model's own `metadata_props`."""


def matches(graph: Graph) -> bool:
    """Return whether the graph's model is an ONNX model."""
    return graph.file is None


class Builder(SkeletonBuilder):
    """Builds ONNX skeletons of one graph; what doesn't depend on the weights' order is done once.

    Names of inputs and outputs stay; weights and values in between get short names and nodes get none. The weights'
    initializers are the end of the file, where a seed leaves them out.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph.weights)
        self._graph = graph
        self._model: onnx.ModelProto | None = None
        """The model without its weights' initializers, and with its own names."""
        self._built: dict[tuple[str, ...], Skeleton] = {}

    def build_unchecked(self, order: Sequence[str]) -> Skeleton:
        """Build the skeleton of this order without that check, see `SkeletonBuilder.build_unchecked`."""
        if (known := self._built.get(tuple(order))) is not None:
            return known
        holes = self._lay_out(order)
        if self._model is None:
            self._model = _without_weights(self._graph)
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        names = _shorten_names(model.graph, order)
        tail = b"".join(initializers(names, holes))
        skeleton = Skeleton(
            kind=ONNX_SKELETON.number,
            data=_serialized(model, tail),
            names=names,
            tail=len(tail),
            holes=holes,
        )
        self._built[tuple(order)] = skeleton
        return skeleton

    @staticmethod
    def _check(skeleton: Skeleton) -> None:
        """Raise UnsupportedError unless a device accepts the skeleton."""
        try:
            check_holes(scan(skeleton.data), skeleton.holes)
        except FormatError as error:
            problem = f"{error.where}: {error.problem}"
            raise UnsupportedError(f"no device would accept this model's graph: {problem}; simplify it") from error


def _without_weights(graph: Graph) -> onnx.ModelProto:
    """Return what ONNX Runtime needs of the model beside its weights."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    small = [tensor for tensor in model.graph.initializer if tensor.name not in graph.weights]
    # Shapes follow from those of the weights.
    stated = [
        onnx.TensorProto(
            name=weight.name,
            data_type=weight.dtype.code,
            dims=weight.shape,
            data_location=onnx.TensorProto.EXTERNAL,
        )
        for weight in graph.weights.values()
    ]
    replace_elements(model.graph.initializer, [*stated, *small])
    replace_elements(model.graph.value_info, needed_shapes(model))
    replace_elements(model.graph.initializer, small)
    _strip(model)
    drop_defaults(model)
    return model


def _serialized(model: onnx.ModelProto, tail: bytes) -> bytes:
    """Return the model's bytes with more of its graph's, which are then the last ones of the model."""
    graph = model.graph.SerializeToString(deterministic=True)
    model.ClearField("graph")
    size = primitives.varint(len(graph) + len(tail))
    return b"".join((model.SerializeToString(deterministic=True), _GRAPH_TAG, size, graph, tail))


def _strip(model: onnx.ModelProto) -> None:
    """Remove what ONNX Runtime doesn't need to compute the same."""
    for field in ("producer_name", "producer_version", "domain", "model_version"):
        model.ClearField(field)
    pairs = [(pair.key, pair.value) for pair in model.metadata_props]
    _strip_unread(model)
    for key, value in pairs:
        model.metadata_props.add(key=key, value=value)
    used = {node.domain for graph in all_graphs(model.graph) for node in graph.node} | {"", "ai.onnx"}
    opsets = {"" if each.domain == "ai.onnx" else each.domain: each.version for each in model.opset_import}
    del model.opset_import[:]
    for domain, version in opsets.items():
        if domain in used:
            model.opset_import.add(domain=domain, version=version)
    for graph in all_graphs(model.graph):
        graph.name = "g"  # the ONNX checker requires a name
        for node in graph.node:
            node.ClearField("name")


def _strip_unread(message: Any) -> None:
    """Clear the fields `_UNREAD` of a message and of all messages within it."""
    for field, value in message.ListFields():
        if field.name in _UNREAD:
            message.ClearField(field.name)
        elif field.message_type is not None:
            for inner in [value] if hasattr(value, "DESCRIPTOR") else value:
                _strip_unread(inner)


def _shorten_names(graph: onnx.GraphProto, weights: Sequence[str]) -> str:
    """Rename weights and the values between nodes to numbers; return what the weights' names begin with.

    One injective map is applied to all names of all graphs, so that every name refers to the same value as before, in
    every scope. Names that programs use stay: inputs and outputs. Weights have the first numbers in their order, and
    are found by the digest of their names that their holes have.
    """
    outputs = {value.name for value in graph.output}
    keep = {value.name for value in graph.input} | outputs
    prefix = ""
    while not keep.isdisjoint(prefix + number_name(number) for number in range(len(weights))):
        prefix += "_"
    new_names = {name: name for name in keep} | {"": ""}
    new_names |= {name: prefix + number_name(number) for number, name in enumerate(weights)}
    number = len(weights)

    def short(name: str) -> str:
        nonlocal number
        if name not in new_names:
            while (candidate := number_name(number)) in keep:
                number += 1
            number += 1
            new_names[name] = candidate
        return new_names[name]

    rename_all_in_place(graph, short)
    for name in weights:
        if name in outputs:
            graph.node.add(op_type="Identity", input=[new_names[name]], output=[name])
    return prefix
