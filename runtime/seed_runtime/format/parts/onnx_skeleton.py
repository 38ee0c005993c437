"""Part 0x0001: an ONNX ModelProto whose weights are external data.

What it says of its weights follows from the table of holes. A seed may leave these initializers out, a third of a small
skeleton; a reader then writes them behind the part (SPEC.md, "Initializers that a seed leaves out").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from seed_runtime.format import primitives
from seed_runtime.format.parts.kind import HoleLike, PartKind

MODEL_FILE: Final = "model.onnx"
"""The file that the skeleton is assembled to."""
WEIGHTS_FILE: Final = "model.weights"
"""The file beside it that holds the weights; a skeleton may refer to no other one."""

_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""Digits of base 62, in which names are numbered."""
# Fields of onnx.proto: their number and wire type.
_GRAPH_INITIALIZER: Final = 5 << 3 | 2
_DIMS, _DATA_TYPE, _NAME, _EXTERNAL_DATA, _DATA_LOCATION = 1 << 3, 2 << 3, 8 << 3 | 2, 13 << 3 | 2, 14 << 3
_KEY, _VALUE = 1 << 3 | 2, 2 << 3 | 2
_EXTERNAL: Final = 1


def number_name(number: int) -> str:
    """Write `number` in bijective base 62, which leaves no text out: 61 is Z and 62 is 00."""
    text = _DIGITS[number % 62]
    while number := number // 62:
        number -= 1
        text = _DIGITS[number % 62] + text
    return text


def initializers(names: str, holes: Sequence[HoleLike]) -> Iterator[bytes]:
    """Yield the graph's initializer of each hole.

    Args:
        names: what their names begin with.
        holes: in their order.
    """
    for number, hole in enumerate(holes):
        message = b"".join(_number(_DIMS, size) for size in hole.dims) + _number(_DATA_TYPE, hole.dtype.code)
        message += _bytes(_NAME, (names + number_name(number)).encode())
        for key, value in (("location", WEIGHTS_FILE), ("offset", str(hole.offset)), ("length", str(hole.size))):
            message += _bytes(_EXTERNAL_DATA, _bytes(_KEY, key.encode()) + _bytes(_VALUE, value.encode()))
        yield _bytes(_GRAPH_INITIALIZER, message + _number(_DATA_LOCATION, _EXTERNAL))


def _number(tag: int, value: int) -> bytes:
    return primitives.uint(tag, 1) + primitives.varint(value)


def _bytes(tag: int, data: bytes) -> bytes:
    return _number(tag, len(data)) + data


ONNX_SKELETON: Final = PartKind(0x0001, "ONNX skeleton", MODEL_FILE, is_skeleton=True, tail=initializers)
