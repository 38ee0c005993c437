"""The part of a training graph that some of its outputs need, as bytes that are joined to a skeleton.

ONNX Runtime runs every node of a model, whichever outputs are asked for, so that the gradients of all weights would be
computed where a few are wanted. What is selected are the part's own fields; none is written anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from seed_runtime.format import primitives

_GRAPH: Final = 7
_NODE, _INITIALIZER, _INPUT, _OUTPUT = 1, 5, 11, 12
"""Fields of a GraphProto."""
_READS, _MAKES, _ATTRIBUTE = 1, 2, 5
"""Fields of a NodeProto: names of its inputs, of its outputs, attributes."""
_SUBGRAPHS: Final = (6, 11)
"""Fields of an AttributeProto that hold graphs."""
_TENSOR_NAME, _VALUE_NAME = 8, 1
_GRAPH_TAG: Final = b"\x3a"

_Field = tuple[int, memoryview, memoryview]
"""A field of bytes: its number, its content, and all of it with tag and length."""


def select(part: bytes | memoryview, outputs: Collection[str], inputs: Collection[str] = ()) -> bytes:
    """Return a training graph with fewer outputs, and what they need.

    Args:
        part: a training graph that was scanned.
        outputs: names of its outputs.
        inputs: names of its inputs that stay although nothing here reads them: weights that are fed.
    """
    ((_, graph, _),) = _fields(memoryview(part))
    fields = [*_fields(graph)]
    needed, kept = set(outputs), set[int]()
    # Nodes stand in order, so that one that reads a value stands behind the one that makes it.
    for place, (number, content, _) in reversed([*enumerate(fields)]):
        if number == _NODE and not needed.isdisjoint(_texts(content, _MAKES)):
            kept.add(place)
            needed.update(_read_names(content))
    chosen = []
    for place, (number, content, whole) in enumerate(fields):
        if number == _NODE:
            is_kept = place in kept
        elif number == _OUTPUT:
            is_kept = next(_texts(content, _VALUE_NAME)) in outputs
        elif number == _INPUT:
            name = next(_texts(content, _VALUE_NAME))
            is_kept = name in needed or name in inputs
        else:
            is_kept = number == _INITIALIZER and next(_texts(content, _TENSOR_NAME)) in needed
        if is_kept:
            chosen.append(whole)
    body = b"".join(chosen)
    return _GRAPH_TAG + primitives.varint(len(body)) + body


def _fields(message: memoryview) -> Iterator[_Field]:
    """Yield the fields of a message that hold bytes; the part was scanned, so that they are whole."""
    pos = 0
    while pos < len(message):
        begin = pos
        tag, pos = _number(message, pos)
        size, pos = _number(message, pos) if tag & 7 in (0, 2) else (4, pos)
        if tag & 7 == 0:
            continue
        pos += size
        if tag & 7 == 2:
            yield tag >> 3, message[pos - size : pos], message[begin:pos]


def _number(message: memoryview, pos: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[pos]
        value |= (byte & 0x7F) << shift
        pos, shift = pos + 1, shift + 7
        if byte < 0x80:
            return value, pos


def _texts(message: memoryview, number: int) -> Iterator[str]:
    return (str(content, "utf-8") for each, content, _ in _fields(message) if each == number)


def _read_names(node: memoryview) -> Iterator[str]:
    """Yield the names that a node reads, or a graph in it: those of values of that graph itself do no harm."""
    for number, content, _ in _fields(node):
        if number == _READS:
            yield str(content, "utf-8")
        elif number == _ATTRIBUTE:
            for kind, graph, _ in _fields(content):
                if kind in _SUBGRAPHS:
                    for each, inner, _ in _fields(graph):
                        yield from _read_names(inner) if each == _NODE else ()
                        yield from _texts(inner, _VALUE_NAME) if each == _OUTPUT else ()
