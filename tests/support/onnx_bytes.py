"""ONNX models as bytes, written field by field."""

from __future__ import annotations

from dataclasses import dataclass

from seed_runtime.format.dtypes import BY_NAME, DType
from tests.support import spec_bytes
from tests.support.spec_bytes import block as put

# Written from onnx.proto and the encoding of protobuf, not by a protobuf library: what these helpers
# write, a library would often refuse to.


def varint(value: int) -> bytes:
    """Return a varint; of a negative number as protobuf encodes it, in 64 bits."""
    return spec_bytes.varint(value % (1 << 64))


def num(field: int, value: int) -> bytes:
    """Return a field that is a number."""
    return spec_bytes.number(field, value % (1 << 64))


def entries(**pairs: str) -> bytes:
    """Return entries of external data."""
    return b"".join(put(13, put(1, key) + put(2, value)) for key, value in pairs.items())


PLACE = {"location": "model.weights", "offset": "64", "length": "24"}
EXTERNAL = num(14, 1)
HEAD = num(1, 2) + num(1, 3) + num(2, 1) + put(8, "w")  # float32 [2, 3] named w


def weight(place: dict[str, str] | None = None, extra: bytes = b"", head: bytes = HEAD) -> bytes:
    """Return an initializer whose data stands at `place` in a file."""
    return head + entries(**(PLACE if place is None else place)) + EXTERNAL + extra


def value(name: str = "x", dims: bytes = put(1, put(2, "n")) + put(1, num(1, 3))) -> bytes:
    return put(1, name) + put(2, put(1, num(1, 1) + put(2, dims)))


def node(attribute: bytes = b"", op: str = "MatMul", domain: bytes = b"", extra: bytes = b"") -> bytes:
    attributes = put(5, attribute) if attribute else b""
    return put(1, "x") + put(1, "w") + put(2, "y") + put(4, op) + attributes + domain + extra


def graph(nodes: bytes | None = None, tensors: bytes | None = None, extra: bytes = b"") -> bytes:
    return (
        put(1, node() if nodes is None else nodes)
        + put(2, "g")
        + put(5, weight() if tensors is None else tensors)
        + put(11, value())
        + put(12, value("y", put(1, b"") + put(1, num(1, 2))))
        + extra
    )


def model(main: bytes | None = None, extra: bytes = b"", opset: bytes = put(8, put(1, "") + num(2, 17))) -> bytes:
    return num(1, 8) + put(7, graph() if main is None else main) + opset + extra


def attribute(kind: int, content: bytes, name: str = "a") -> bytes:
    return put(1, name) + content + num(20, kind)


@dataclass(frozen=True)
class Hole:
    dtype: DType = BY_NAME["float32"]
    dims: tuple[int, ...] = (2, 3)
    offset: int = 64
    size: int = 24
