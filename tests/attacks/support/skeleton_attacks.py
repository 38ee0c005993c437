"""The attacks on skeletons: for each rule of SPEC.md, references and graphs that break it."""

from __future__ import annotations

from seed_runtime.errors import FormatError, LimitError, SeedError, UnsupportedError
from tests.attacks.support.seed_builder import Lie
from tests.attacks.support.spec_bytes import block, number, varint

RULES: list[tuple[str, dict[str, Lie], type[SeedError], str]] = []


def lie(rule: str, field: str, value: Lie, text: str, error: type[SeedError] = FormatError) -> None:
    RULES.append((rule, {field: value}, error, text))


def add(data: bytes) -> Lie:
    return lambda truth: truth + data


def nest(depth: int) -> bytes:
    """A graph in an attribute of a node of a graph, and so on."""
    graph = b""
    for _ in range(depth):
        graph = block(1, block(5, block(1, "body") + block(6, graph) + number(20, 5)))
    return graph


def tensor(dims: tuple[int, ...], raw: bytes, *more: bytes) -> bytes:
    return block(
        5, b"".join(number(1, dim) for dim in dims) + number(2, 1) + block(8, "k") + block(9, raw) + b"".join(more)
    )


for place in (
    "../model.weights",
    "..",
    "/etc/passwd",
    "/proc/self/mem",
    "sub/model.weights",
    "./model.weights",
    "model.weights\0",
    "*/_ORT_MEM_ADDR_/*",
    "_ORT_MEM_ADDR_",
    "",
    "C:\\model.weights",
):
    lie("location", "skeleton.location", place.encode(), "lies in the file")
for text in ("1", "-64", "+64", " 64", "064", "0x40", "64.0", "", "9" * 13, "9" * 400, "\u0664\u0660"):
    lie("place", "skeleton.offset#1", text.encode(), "offset|nothing in it refers|place", SeedError)
    lie("place", "skeleton.length#1", text.encode(), "length|bytes|place", SeedError)
lie(
    "place",
    "skeleton.entry",
    block(13, block(1, "location") + block(2, "/etc/passwd")),
    "number of|once each",
    SeedError,
)
lie("place", "skeleton.entry", block(13, block(1, "checksum") + block(2, "0")), "number of|once each", SeedError)
lie("place", "skeleton.entry", block(9, bytes(16)), "both in the model and in a file")
lie("place", "skeleton.tensor", lambda truth: truth.replace(b"length", b"chksum"), "once each")
lie("place", "skeleton.tensor", lambda truth: truth.replace(b"length", b"offset"), "once each")
lie("holes", "skeleton.dims", number(1, 2) + number(1, 2), "differs in dims")
lie("holes", "skeleton.dims", number(1, 1 << 60), "negative or too large")
lie("holes", "skeleton.dims", number(1, (1 << 64) - 4), "negative or too large")
lie("holes", "skeleton.type", number(2, 6), "differs in dtype")
lie("holes", "skeleton.type", number(2, 8), "element type 8")
lie("holes", "skeleton.tensor", lambda truth: truth + truth, "same name")
lie("holes", "skeleton.tensor#1", b"", "refers to 4 tensors")
lie("holes", "skeleton.offset#1", b"0", "same offset|nothing in it refers")
lie("names", "skeleton.name", b"x", "same name")
lie("names", "skeleton.name", b"", "empty or can't be printed")
lie("names", "skeleton.name", b"\x1b[31m", "empty or can't be printed")
lie("names", "skeleton.name", b"\xff", "UTF-8")
lie("inside", "skeleton.graph", tensor((1 << 39,), bytes(4)), "bytes of data for")
lie("inside", "skeleton.graph", tensor((1 << 30, 1 << 30, 1 << 30), bytes(4)), "elements of tensor", LimitError)
lie("inside", "skeleton.graph", tensor((1,), bytes(4), block(5, bytes(4))), "no type, or data of two kinds")
lie(
    "inside",
    "skeleton.graph",
    block(1, block(5, block(1, "value") + block(5, number(2, 1) + number(14, 1)) + number(20, 4))),
    "only initializers of the main graph",
)
lie("operators", "skeleton.graph", block(1, block(4, "Evil") + block(7, "evil.domain")), "domain", UnsupportedError)
lie(
    "operators",
    "skeleton.graph",
    block(1, block(4, "EPContext") + block(7, "com.microsoft")),
    "EPContext",
    UnsupportedError,
)
lie(
    "operators",
    "skeleton.graph",
    block(1, block(5, block(1, "ep_cache_context"))),
    "ep_cache_context",
    UnsupportedError,
)
lie("operators", "skeleton.opset", block(1, "evil.domain") + number(2, 1), "domain", UnsupportedError)
lie("operators", "skeleton.model", block(8, number(2, 7)), "given twice")
lie("unknown", "skeleton.model", block(14, block(1, "session.x") + block(2, "1")), "field 14")
lie("unknown", "skeleton.model", block(25, b""), "field 25")
lie("unknown", "skeleton.graph", block(15, b""), "field 15")
lie("unknown", "skeleton.model", number(7, 1), "wire type 0")
lie("unknown", "skeleton.model", b"\x3b", "wire type 3")
lie("once", "skeleton.model", block(7, b""), "given twice")
lie("once", "skeleton.model", number(1, 8), "given twice")
lie("once", "skeleton.graph", block(2, "h"), "given twice")
lie("numbers", "skeleton.model", b"\x88\x00\x08", "shortest form")
lie("numbers", "skeleton.model", b"\xff" * 11, "64 bits")
lie("numbers", "skeleton.model", b"\x2a" + varint(1 << 40), "wire type|past the end")
lie("numbers", "skeleton.model", b"\x12" + varint(1 << 40), "past the end")
lie("numbers", "part.data", lambda truth: truth[:-1], "past the end|ends within|wire type")
lie("depth", "skeleton.graph", nest(60), "messages in messages", LimitError)
lie("counts", "skeleton.model", block(8, block(1, "ai.onnx.ml")) * 20, "number of|twice", SeedError)
lie("formats", "part.data", lambda truth: truth[:4] + b"ORTM" + truth[8:], "read as two formats")
lie("attributes", "skeleton.graph", block(1, block(5, block(1, "a") + number(3, 1) + number(20, 5))), "not of its type")
lie(
    "attributes",
    "skeleton.graph",
    block(1, block(5, block(1, "a") + number(3, 1) + block(4, "s") + number(20, 2))),
    "its type",
)
lie("attributes", "skeleton.graph", block(1, block(5, block(1, "a") + number(3, 1))), "not of its type")
lie("needed", "part.data", number(1, 8), "no graph, no version or no opset")
lie("needed", "part.data", lambda truth: truth[2:], "no graph, no version or no opset")
lie("needed", "part.data", b"", "no graph, no version or no opset")
