"""Read nodes, copy protobuf messages, and replace the elements of their repeated fields."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import onnx

M = TypeVar("M", onnx.ModelProto, onnx.GraphProto)


def input_of(node: onnx.NodeProto, index: int) -> str:
    """Return the name of a node's input; "" where it is left out."""
    return node.input[index] if index < len(node.input) else ""


def attribute_of(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """Return the value of a node's attribute, strings as str; `default` where it is left out."""
    for each in node.attribute:
        if each.name == name:
            value = onnx.helper.get_attribute_value(each)
            return value.decode() if isinstance(value, bytes) else value
    return default


def copy_of(message: M, **fields: Iterable[Any]) -> M:
    """Return a copy of a message.

    Args:
        message: what is copied; it isn't changed.
        fields: for names of repeated fields, the messages whose copies are the elements there; they may come from
            `message`.
    """
    copy = type(message)()
    copy.CopyFrom(message)
    for name, elements in fields.items():
        field = getattr(copy, name)
        del field[:]
        field.extend(elements)  # copies them
    return copy


def replace_elements(field: Any, messages: Iterable[Any]) -> None:
    """Make copies of `messages` the elements of a repeated field, in place; they may come from the field itself."""
    copies = []
    for message in messages:
        copy = type(message)()
        copy.CopyFrom(message)
        copies.append(copy)
    del field[:]
    field.extend(copies)
