"""Lower a model's IR version and opset, so that devices whose ONNX Runtime is older than the exporter take it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import onnx

from seed_exporter.graph.index import all_graphs
from seed_exporter.graph.messages import replace_elements

FIRST_IR: Final = 4
"""The IR version from which on initializers needn't be inputs."""
OPSET: Final = 21
"""Opset of the oldest ONNX Runtime that seed-runtime admits, 1.19.

Models are lowered to it and not further: ONNX Runtime's optimizers look at the opset, so that they could fuse other
nodes than in the original.
"""
_SOFTMAX: Final = frozenset({"Softmax", "LogSoftmax", "Hardmax"})
_SOFTMAX_OPSET: Final = 13
"""Opset from which these operators look at one axis. The converter leaves them as they are where it knows no shapes."""
_TYPES: Final = {
    9: ("FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ"),
    10: ("UINT4", "INT4"),
    11: ("FLOAT4E2M1",),
    12: ("FLOAT8E8M0",),
    13: ("UINT2", "INT2"),
    14: ("FLOAT6E2M3", "FLOAT6E3M2"),
}
"""Element types by the IR version that brought them. Source: onnx.proto, enum Version."""
_IR_OF_TYPE: Final = {
    code: ir for ir, names in _TYPES.items() for name, code in onnx.TensorProto.DataType.items() if name in names
}
_TYPE_ATTRIBUTES: Final = frozenset({"to", "dtype", "output_dtype"})
"""Attributes that hold an element type."""


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of ONNX's own operators in a model; 1 where it states none."""
    return next((each.version for each in model.opset_import if plain_domain(each.domain) == ""), 1)


def lower_versions(model: onnx.ModelProto) -> None:
    """Lower the opset to the first from OPSET on in which the graph is the same, and the IR version to what it needs.

    Args:
        model: without weights' data and without functions. It is changed.
    """
    newest_type = max((_IR_OF_TYPE.get(code, FIRST_IR) for code in _element_types(model)), default=FIRST_IR)
    for imported in model.opset_import:
        # Types that came after OPSET need the operators that came with them.
        if imported.domain in ("", "ai.onnx") and newest_type <= onnx.helper.OP_SET_ID_VERSION_MAP["ai.onnx", OPSET]:
            old = imported.version
            lower = (each for each in range(OPSET, old) if _is_model_same_at(model, old, each))
            imported.version = next(lower, old)
    try:
        # Other domains than ONNX's own don't say what they need.
        needed = onnx.helper.find_min_ir_version_for(
            [each for each in model.opset_import if each.domain in ("", "ai.onnx", "ai.onnx.ml")]
        )
    except ValueError:
        return  # an opset that came after this onnx
    model.ir_version = max(FIRST_IR, min(model.ir_version, max(needed, newest_type)))


def is_same_at(nodes: Sequence[onnx.NodeProto], domain: str, old: int, new: int) -> bool:
    """Return whether nodes that were written for opset `old` of a domain mean the same in opset `new`.

    They do if the same version of each operator's schema is in force in both, or if onnx's version converter changes
    none of them. Graphs nested in the nodes are looked at as well.
    """
    graph = onnx.GraphProto(name="g", node=nodes)
    return all(_are_same(inner, domain, old, new) for inner in all_graphs(graph))


def _is_model_same_at(model: onnx.ModelProto, old: int, new: int) -> bool:
    return all(_are_same(graph, "", old, new) for graph in all_graphs(model.graph))


def _are_same(graph: onnx.GraphProto, domain: str, old: int, new: int) -> bool:
    """Do the same for the nodes of one graph, without those nested in it."""
    nodes = [node for node in graph.node if plain_domain(node.domain) == domain]
    schemas = [(_schema_version(node, domain, old), _schema_version(node, domain, new)) for node in nodes]
    if all(before is not None and before == after for before, after in schemas):
        return True
    if domain:
        return False  # the converter knows no other domains
    if min(old, new) < _SOFTMAX_OPSET and not _SOFTMAX.isdisjoint(node.op_type for node in nodes):
        return False
    probe = onnx.ModelProto(ir_version=FIRST_IR, opset_import=[onnx.helper.make_opsetid("", old)])
    probe.graph.name = "g"
    probe.graph.node.extend(nodes)
    for node in probe.graph.node:
        replace_elements(node.attribute, [each for each in node.attribute if not each.HasField("g")])
    probe.graph.value_info.extend(graph.value_info)
    known = {value.name: value for value in [*graph.value_info, *graph.input]}
    for tensor in graph.initializer:
        known[tensor.name] = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
    made = {name for node in nodes for name in node.output}
    read = dict.fromkeys(name for node in nodes for name in node.input if name and name not in made)
    # What comes from an outer graph has no type here, and the converter then asks for none.
    probe.graph.input.extend(known.get(name) or onnx.ValueInfoProto(name=name) for name in read)
    probe.graph.output.extend(onnx.ValueInfoProto(name=value.name) for value in graph.output if value.name in made)
    before = [node.SerializeToString(deterministic=True) for node in probe.graph.node]
    try:
        typed = onnx.shape_inference.infer_shapes(probe)
        converted = onnx.version_converter.convert_version(typed, new)
    except Exception:  # whatever the C++ side threw: it can't be shown that the graph is the same
        return False
    return before == [node.SerializeToString(deterministic=True) for node in converted.graph.node]


def plain_domain(domain: str) -> str:
    """Return the domain under its one name: ONNX's own has two."""
    return "" if domain == "ai.onnx" else domain


def _schema_version(node: onnx.NodeProto, domain: str, opset: int) -> int | None:
    """Return the version of the operator's schema in an opset, None where this onnx can't tell."""
    # Of a later opset, this onnx would answer with the newest that it knows.
    newest = max(
        (version for name, version in onnx.helper.OP_SET_ID_VERSION_MAP if name == (domain or "ai.onnx")), default=0
    )
    try:
        return int(onnx.defs.get_schema(node.op_type, opset, domain).since_version) if opset <= newest else None
    except onnx.defs.SchemaError:
        return None


def _element_types(model: onnx.ModelProto) -> Iterator[int]:
    """Yield the element types of all tensors, stated values and casts."""
    for graph in all_graphs(model.graph):
        yield from (tensor.data_type for tensor in graph.initializer)
        yield from (value.type.tensor_type.elem_type for value in [*graph.input, *graph.output, *graph.value_info])
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t.data_type
                elif attribute.name in _TYPE_ATTRIBUTES:
                    yield attribute.i
