"""ONNX skeletons: a model's ONNX bytes without weights.

Every weight becomes an initializer with external data in `model.weights`, 64-byte aligned.
What ONNX Runtime doesn't need is left out, because each byte of it would travel to every device.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

import onnx

from seed_exporter.graph.index import all_graphs
from seed_exporter.graph.messages import replace_elements
from seed_exporter.graph.model import Graph
from seed_exporter.skeletons.known_shapes import needed_shapes
from seed_exporter.skeletons.layout import HoleLayout, Skeleton, lay_out
from seed_runtime.errors import FormatError, UnsupportedError
from seed_runtime.format.parts import ONNX_SKELETON
from seed_runtime.skeletons import check_holes
from seed_runtime.skeletons.onnx import WEIGHTS_FILE, scan

_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""Digits of base 62, in which values are numbered."""
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
    return isinstance(graph.model, onnx.ModelProto)


class Builder:
    """Builds ONNX skeletons of one graph; what doesn't depend on the weights' order is done once.

    Names of inputs and outputs stay; weights and values in between get short names and nodes get none.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._model: onnx.ModelProto | None = None
        self._names: dict[str, str] = {}
        """Name of each value and weight in the skeleton."""
        self._built: dict[tuple[str, ...], Skeleton] = {}
        self._checked: set[tuple[str, ...]] = set()

    def build(self, order: Sequence[str]) -> Skeleton:
        """Build the skeleton of this order and check that devices accept it, see `SkeletonBuilder.build`."""
        skeleton = self.build_unchecked(order)
        if tuple(order) not in self._checked:
            _check(skeleton)
            self._checked.add(tuple(order))
        return skeleton

    def build_unchecked(self, order: Sequence[str]) -> Skeleton:
        """Build the skeleton of this order without that check, see `SkeletonBuilder.build_unchecked`."""
        if (known := self._built.get(tuple(order))) is not None:
            return known
        if sorted(order) != sorted(self._graph.weights):
            raise ValueError("order must hold the name of each weight once")
        holes = lay_out(self._graph.weights[name] for name in order)
        if self._model is None:
            self._model = onnx.ModelProto()
            self._model.CopyFrom(self._graph.model)
            _place(self._model.graph, holes)
            replace_elements(self._model.graph.value_info, needed_shapes(self._model))
            _strip(self._model)
            self._names = _shorten_names(self._model.graph, self._graph.weights)
        else:
            _place(self._model.graph, [replace(hole, name=self._names[hole.name]) for hole in holes])
        data = self._model.SerializeToString(deterministic=True)
        skeleton = Skeleton(ONNX_SKELETON.number, data, holes, holes[-1].offset + holes[-1].size if holes else 0)
        self._built[tuple(order)] = skeleton
        return skeleton


def _check(skeleton: Skeleton) -> None:
    """Raise UnsupportedError unless a device accepts the skeleton."""
    try:
        check_holes(scan(skeleton.data), skeleton.holes)
    except FormatError as error:
        problem = f"{error.where}: {error.problem}"
        raise UnsupportedError(f"no device would accept this model's graph: {problem}; simplify it") from error


def _place(graph: onnx.GraphProto, holes: list[HoleLayout]) -> None:
    """Make weights external initializers in the order of the file, which compresses best, before the small ones."""
    placed = {hole.name for hole in holes}
    small = [tensor for tensor in graph.initializer if tensor.name not in placed]
    external = []
    for hole in holes:
        tensor = onnx.TensorProto(name=hole.name, data_type=hole.dtype.code, dims=hole.dims)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", WEIGHTS_FILE), ("offset", hole.offset), ("length", hole.size)):
            tensor.external_data.add(key=key, value=str(value))
        external.append(tensor)
    replace_elements(graph.initializer, [*external, *small])


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


def _shorten_names(graph: onnx.GraphProto, weights: Iterable[str]) -> dict[str, str]:
    """Rename weights and the values between nodes to numbers; return the new name of each.

    One injective map is applied to all names of all graphs, so that every name refers to the same value as before, in
    every scope. Names that programs use stay: inputs and outputs. Weights have the first numbers in the order of
    `weights`, which packs best, and are found by the digest of their names that their holes have.
    """
    keep = {value.name for value in [*graph.input, *graph.output]}
    new_names = {name: name for name in keep} | {"": ""}
    number = 0

    def short(name: str) -> str:
        nonlocal number
        if name not in new_names:
            candidate = _base62(number)
            while candidate in keep:
                number += 1
                candidate = _base62(number)
            number += 1
            new_names[name] = candidate
        return new_names[name]

    for name in weights:
        short(name)
    for inner in all_graphs(graph):
        for value in [*inner.input, *inner.output]:
            value.name = short(value.name)
        for tensor in inner.initializer:
            tensor.name = short(tensor.name)
        for node in inner.node:
            # Results first: numbers then grow along the graph.
            node.output[:] = [short(name) for name in node.output]
            node.input[:] = [short(name) for name in node.input]
        for value in inner.value_info:
            value.name = short(value.name)
    return new_names


def _base62(number: int) -> str:
    """Write `number` in bijective base 62, which leaves no text out: 61 is Z and 62 is 00."""
    text = _DIGITS[number % 62]
    while number := number // 62:
        number -= 1
        text = _DIGITS[number % 62] + text
    return text
