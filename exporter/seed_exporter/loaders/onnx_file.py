"""Load ONNX files: initializers, external data, Constant nodes, subgraphs, functions, sparse tensors.

Weights are taken out first, so that no protobuf message comes near the 2 GB that it can hold.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import onnx
from google.protobuf.message import DecodeError

from seed_exporter.graph.dedup import deduplicate
from seed_exporter.graph.edit import drop_unused, with_graph
from seed_exporter.graph.index import all_graphs, with_uses
from seed_exporter.graph.messages import replace_elements
from seed_exporter.graph.model import Graph
from seed_exporter.graph.versions import FIRST_IR, lower_versions
from seed_exporter.loaders.defaults import find_defaults
from seed_exporter.loaders.functions import inline_functions
from seed_exporter.loaders.names import check_names, replace_dimension_names
from seed_exporter.loaders.weights import WeightCollector
from seed_runtime.backends.onnxruntime_releases import oldest_release
from seed_runtime.errors import UnsupportedError, UsageError
from seed_runtime.skeletons import metadata

FILE_MAX: Final = (1 << 31) - 1
"""Largest protobuf message, which an ONNX file is [B]."""
_KEYS_SHOWN: Final = 5
"""Number of keys of metadata that a note names for each reason to leave them out."""


def matches(source: object) -> bool:
    """Return whether `source` is an ONNX model or the path of an ONNX file."""
    return isinstance(source, onnx.ModelProto) or (
        isinstance(source, (str, Path)) and Path(source).suffix.lower() == ".onnx"
    )


def load(source: str | Path | onnx.ModelProto) -> Graph:
    """Load an ONNX file, or a model in memory whose data is in memory too.

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
        if (size := path.stat().st_size) > FILE_MAX:
            raise UnsupportedError(
                f"{path} has {size:,} bytes, and an ONNX file holds at most {FILE_MAX:,}; save the weights beside it: "
                f"onnx.save(model, path, save_as_external_data=True)"
            )
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}; check the path") from None
    if not data:
        raise UnsupportedError(f"{path} is empty; copy or export it again")
    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError:
        if missing := _missing_bytes(data):
            raise UnsupportedError(
                f"{path} is cut, the last {missing:,} bytes or more are missing; copy it again"
            ) from None
        raise UnsupportedError(f"{path} is no ONNX model, or it is damaged; copy or export it again") from None
    del data
    return from_proto(model, path)


def from_proto(model: onnx.ModelProto, path: Path | None) -> Graph:
    """Make a graph of a model.

    Args:
        model: the model. It is changed, because a copy of it would hold the weights twice.
        path: the model's file, beside which its external data is; None for a model in memory.

    Raises:
        UnsupportedError: the model holds no graph, or its data is missing or damaged.
    """
    if not model.HasField("graph") or not model.opset_import:
        raise UnsupportedError(
            f"{path or 'the model'} holds no graph or names no opset, or it is cut; copy or export it again"
        )
    collector = WeightCollector(path)
    defaults, notes = find_defaults(model)
    # Initializers that aren't inputs are constants, which is what ONNX Runtime needs to fold and prepack them.
    model.ir_version = max(model.ir_version, FIRST_IR)
    initializers = collector.take_initializers(model.graph, defaults)
    held = {tensor.name for tensor in initializers} - defaults
    replace_elements(model.graph.input, [value for value in model.graph.input if value.name not in held])
    replace_elements(model.graph.initializer, initializers)
    if model.functions:
        model = inline_functions(model)
        initializers = list(model.graph.initializer)
    initializers += collector.take_from_nodes(model.graph)
    _free_negative_dimensions(model.graph)
    check_names(model.graph)
    replace_dimension_names(model.graph)
    # Into a new message: the old one's memory holds the weights until it goes as a whole.
    replace_elements(model.graph.initializer, initializers)
    slim = onnx.ModelProto()
    slim.CopyFrom(model)
    del model, initializers
    lower_versions(slim)
    notes += _select_metadata(slim) + _needed_release(slim)
    graph = deduplicate(_without_unused(Graph(slim, collector.weights, notes)))
    return with_uses(_without_unused(graph))


def _missing_bytes(data: bytes) -> int:
    """Return how many bytes at least a ModelProto lacks at its end; 0 where it is whole, or something else."""
    known, pos = onnx.ModelProto.DESCRIPTOR.fields_by_number, 0

    def number() -> int:
        nonlocal pos
        value, shift = 0, 0
        while True:
            byte = data[pos]  # IndexError: the data ends within the number
            value |= (byte & 0x7F) << shift
            pos, shift = pos + 1, shift + 7
            if byte < 0x80:
                return value

    try:
        while pos < len(data):
            tag = number()
            # All fields of a model are numbers or have a length.
            if tag >> 3 not in known or tag & 7 not in (0, 2):
                return 0
            size = number()
            pos += size if tag & 7 == 2 else 0
    except IndexError:
        return 1
    return pos - len(data)


def _without_unused(graph: Graph) -> Graph:
    return with_graph(graph, drop_unused(graph.model.graph))


def _select_metadata(model: onnx.ModelProto) -> tuple[str, ...]:
    """Remove the metadata that a seed can't carry; return a note on it, if there is any."""
    kept, dropped = metadata.select((pair.key, pair.value) for pair in model.metadata_props)
    del model.metadata_props[:]
    for key, value in kept.items():
        model.metadata_props.add(key=key, value=value)
    if not dropped:
        return ()
    keys: dict[str, list[str]] = {}
    for key, problem in dropped.items():
        keys.setdefault(problem, []).append(repr(key[:80]))
    reasons = ", ".join(
        f"{', '.join(names[:_KEYS_SHOWN])}{', ...' if len(names) > _KEYS_SHOWN else ''} ({problem})"
        for problem, names in keys.items()
    )
    entries = "1 entry" if len(dropped) == 1 else f"{len(dropped)} entries"
    return (f"{entries} of the model's metadata left out: {reasons}",)


def _needed_release(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return a note on the ONNX Runtime that devices need, if not all that seed-runtime admits take the model."""
    opsets = {"" if each.domain == "ai.onnx" else each.domain: each.version for each in model.opset_import}
    release = oldest_release(model.ir_version, opsets)
    if release == oldest_release(0, {}):
        return ()
    versions = f"IR version {model.ir_version}, opset {opsets.get('', 0)}"
    if release is None:
        return (f"no ONNX Runtime is known that takes this model ({versions})",)
    return (f"devices need ONNX Runtime {release} or newer for this model ({versions})",)


def _free_negative_dimensions(graph: onnx.GraphProto) -> None:
    """Make dimensions of -1, as Paddle writes them, unknown; ONNX Runtime reads them so."""
    for inner in all_graphs(graph):
        for value in [*inner.input, *inner.output, *inner.value_info]:
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_value < 0:
                    dim.ClearField("dim_value")
