"""The part of a training graph that some of its outputs need, as bytes that are joined to a skeleton.

ONNX Runtime runs every node of a model, whichever outputs are asked for, so that the gradients of all weights would be
computed where a few are wanted. What is selected are the part's own fields; none is written anew.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator
from typing import Final

from seed_runtime.format import primitives
from seed_runtime.skeletons.onnx_walker import Walker

_GRAPH_TAG: Final = b"\x3a"
_NAMED: Final = {"initializer": "Tensor", "input": "Value", "output": "Value"}
"""Kinds of messages by the fields of a graph whose names decide."""
_Message = list[tuple[str, str, int, int, int]]
"""Fields of a message, as `Walker.split` yields them."""


def select(part: bytes | memoryview, outputs: Collection[str], inputs: Collection[str] = ()) -> bytes:
    """Return a training graph with fewer outputs, and what they need.

    Args:
        part: a training graph that was scanned.
        outputs: names of its outputs.
        inputs: names of its inputs that stay although nothing here reads them: weights that are fed.
    """
    reader = _Reader(part)
    nodes = array("I")  # of a hostile part a million, which took 562 MB as tuples with views, and 12 MB so
    for kind, *place in reader.fields():
        nodes.extend(place if kind == "node" else ())
    needed, kept = set(outputs), set[int]()
    # Nodes stand in order, so that one that reads a value stands behind the one that makes it.
    for at in range(len(nodes) - 3, -1, -3):
        begin, start, end = nodes[at : at + 3]
        node = reader.message("Node", start, end)
        if not needed.isdisjoint(reader.texts(node, "output")):
            kept.add(begin)
            needed.update(reader.read_names(node))
    body = bytearray()
    for kind, begin, start, end in reader.fields():
        if kind == "node":
            is_kept = begin in kept
        else:
            name = next(reader.texts(reader.message(_NAMED[kind], start, end), "name"))
            is_kept = name in (outputs if kind == "output" else needed) or (kind == "input" and name in inputs)
        if is_kept:
            body += reader.data[begin:end]
    return _GRAPH_TAG + primitives.varint(len(body)) + bytes(body)


class _Reader:
    """Reads fields of a training graph."""

    def __init__(self, part: bytes | memoryview) -> None:
        self.data = memoryview(part).cast("B")
        self._walker = Walker(self.data, {})

    def fields(self) -> Iterator[tuple[str, int, int, int]]:
        """Yield each field of the graph: its name, where it begins, where its content does, and where both end."""
        ((_, _, _, begin, stop),) = self._walker.split("Addition", 0, len(self.data))
        for name, _, _, start, end in self._walker.split("AddedGraph", begin, stop):
            yield name, begin, start, end
            begin = end

    def message(self, kind: str, start: int, end: int) -> _Message:
        """Return the fields of a message."""
        return [*self._walker.split(kind, start, end)]

    def texts(self, message: _Message, name: str) -> Iterator[str]:
        """Yield what a message has in a field of texts."""
        return (str(self.data[start:end], "utf-8") for each, _, _, start, end in message if each == name)

    def read_names(self, node: _Message) -> Iterator[str]:
        """Yield the names that a node reads, or a graph in it: those of values of that graph itself do no harm."""
        yield from self.texts(node, "input")
        for name, _, _, start, end in node:
            if name == "attribute":
                for _, kind, _, a, b in self._walker.split("Attribute", start, end):
                    yield from self._names_of_graph(a, b) if kind == "Graph" else ()

    def _names_of_graph(self, start: int, end: int) -> Iterator[str]:
        for name, kind, _, a, b in self._walker.split("Graph", start, end):
            if name == "node":
                yield from self.read_names(self.message(kind, a, b))
            elif name == "output":
                yield from self.texts(self.message(kind, a, b), "name")
