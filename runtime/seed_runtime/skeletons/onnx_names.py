"""Names that ONNX graphs define: of a skeleton, and of what is joined to one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from seed_runtime.errors import LimitError
from seed_runtime.format.primitives import printable
from seed_runtime.limits import TRAINING_RAW_MAX
from seed_runtime.skeletons.info import ValueInfo, refuse
from seed_runtime.skeletons.onnx import HANDLERS, check_node
from seed_runtime.skeletons.onnx_walker import Fields, Handler, Walker


@dataclass(frozen=True)
class Addition:
    """More of a model's graph.

    Attributes:
        inputs: its inputs.
        outputs: its outputs.
        defined: names of its constants, and of the results of its nodes.
    """

    inputs: tuple[ValueInfo, ...]
    outputs: tuple[ValueInfo, ...]
    defined: tuple[str, ...]


def scan_addition(data: bytes | memoryview) -> Addition:
    """Check the bytes that are joined to a skeleton by the rules of skeletons.

    Memory: the names that it defines.

    Raises:
        FormatError: they are no ModelProto with more of a graph and nothing else.
        UnsupportedError: an operator or domain that a seed may not use.
    """
    found: Addition | None = _walk(data, "Addition")
    if found is None:
        refuse("its training graph has no graph")
    return found


def defined_names(data: bytes | memoryview) -> frozenset[str]:
    """Return the names that the main graph of a skeleton defines, which `onnx.scan` has checked."""
    found: frozenset[str] = _walk(data, "NamedModel")
    return found


def _walk(data: bytes | memoryview, kind: str) -> Any:
    if len(data) > TRAINING_RAW_MAX:
        raise LimitError("skeleton: model with a training graph", len(data), TRAINING_RAW_MAX)
    with memoryview(data) as view, view.cast("B") as octets:
        return Walker(octets, _HANDLERS).message(kind, 0, len(octets), 0)


def _node(fields: Fields) -> tuple[str, ...]:
    check_node(fields)
    return tuple(name for name in fields.get("output", ()) if name)


def _added(fields: Fields) -> Addition:
    made = [name for names in fields.get("node", ()) for name in names]
    for name in fields.get("initializer", ()):
        if not name or not printable(name):
            refuse(f"the name of a constant of its training graph is empty or can't be printed: {name[:80]!r}")
    defined = (*fields.get("initializer", ()), *made)
    return Addition(tuple(fields.get("input", ())), tuple(fields.get("output", ())), defined)


def _named(fields: Fields) -> frozenset[str]:
    made = [name for names in fields.get("node", ()) for name in names]
    values = (*fields.get("input", ()), *fields.get("initializer", ()))
    return frozenset([*made, *(value.name for value in values)])


_HANDLERS: Final[dict[str, Handler]] = {
    **HANDLERS,
    "Addition": lambda fields: fields.get("graph"),
    "AddedGraph": _added,
    "NamedModel": lambda fields: fields["graph"],
    "NamedGraph": _named,
    "NamedNode": _node,
}
