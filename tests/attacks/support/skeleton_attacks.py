"""Attacks on skeletons: for each rule of SPEC.md, references and graphs that break it."""

from __future__ import annotations

from seed_runtime.errors import FormatError, LimitError, SeedError, UnsupportedError
from tests.support.seed_builder import Replacement
from tests.support.spec_bytes import block, number, varint

MEMORY_ADDRESSES = ("*/_ORT_MEM_ADDR_/*", "*/_ORT_NATIVE_ENDIAN_MEM_ADDR_/*")
"""Locations that ONNX Runtime takes for its own memory: the offset is an address there, and no file is opened."""

RULES: list[tuple[str, dict[str, Replacement], type[SeedError], str]] = []


def break_rule(rule: str, field: str, value: Replacement, text: str, error: type[SeedError] = FormatError) -> None:
    RULES.append((rule, {field: value}, error, text))


def add(data: bytes) -> Replacement:
    return lambda original: original + data


def nest(depth: int) -> bytes:
    """Return a graph in an attribute of a node of a graph, and so on, `depth` times."""
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
    *MEMORY_ADDRESSES,
    "_ORT_MEM_ADDR_",
    "_ORT_NATIVE_ENDIAN_MEM_ADDR_",
    "",
    "C:\\model.weights",
):
    break_rule("location", "skeleton.location", place.encode(), "lies in the file")
for place in MEMORY_ADDRESSES:
    # Every other place where a tensor can stand, or could before its kind was refused.
    entry = b"".join(
        block(13, block(1, key) + block(2, value))
        for key, value in (("location", place), ("offset", "4096"), ("length", "16"))
    )
    lying = number(1, 4) + number(2, 1) + block(8, "k") + entry + number(14, 1)
    sparse = block(1, lying) + block(2, lying) + number(3, 4)
    break_rule("location", "skeleton.graph", block(5, lying), "lies in the file")
    break_rule(
        "place", "skeleton.entry", block(13, block(1, "location") + block(2, place)), "number of|once", SeedError
    )
    main_only = "only initializers of the main graph"
    for attribute, text in (
        (block(5, lying) + number(20, 4), main_only),  # a tensor, as of Constant
        (block(10, lying) + number(20, 9), main_only),  # a list of tensors
        (block(6, block(2, "inner") + block(5, lying)) + number(20, 5), main_only),  # a body of If
        (block(11, block(2, "inner") + block(5, lying)) + number(20, 10), main_only),
        (block(22, sparse) + number(20, 11), "field 22"),
        (block(23, sparse) + number(20, 12), "field 23"),
    ):
        break_rule("inside", "skeleton.graph", block(1, block(5, block(1, "value") + attribute)), text)
    break_rule("unknown", "skeleton.graph", block(15, sparse), "field 15")  # a sparse initializer
    function = block(1, "f") + block(7, block(5, block(1, "value") + block(5, lying) + number(20, 4)))
    break_rule("unknown", "skeleton.model", block(25, function), "field 25")
    break_rule("unknown", "skeleton.model", block(20, block(1, block(5, lying))), "field 20")  # training
for text in ("1", "-64", "+64", " 64", "064", "0x40", "64.0", "", "9" * 13, "9" * 400, "\u0664\u0660"):
    break_rule("place", "skeleton.offset#1", text.encode(), "offset|nothing in it refers|place", SeedError)
    break_rule("place", "skeleton.length#1", text.encode(), "length|bytes|place", SeedError)
break_rule(
    "place",
    "skeleton.entry",
    block(13, block(1, "location") + block(2, "/etc/passwd")),
    "number of|once each",
    SeedError,
)
break_rule("place", "skeleton.entry", block(13, block(1, "checksum") + block(2, "0")), "number of|once each", SeedError)
break_rule("place", "skeleton.entry", block(9, bytes(16)), "both in the model and in a file")
break_rule("place", "skeleton.tensor", lambda original: original.replace(b"length", b"chksum"), "once each")
break_rule("place", "skeleton.tensor", lambda original: original.replace(b"length", b"offset"), "once each")
break_rule("holes", "skeleton.dims", number(1, 2) + number(1, 2), "differs in dims")
break_rule("holes", "skeleton.dims", number(1, 1 << 60), "negative or too large")
break_rule("holes", "skeleton.dims", number(1, (1 << 64) - 4), "negative or too large")
break_rule("holes", "skeleton.type", number(2, 6), "differs in dtype")
break_rule("holes", "skeleton.type", number(2, 8), "element type 8")
break_rule("holes", "skeleton.tensor", lambda original: original + original, "same name")
break_rule("holes", "skeleton.tensor#1", b"", "refers to 7 tensors")
break_rule("holes", "skeleton.offset#1", b"0", "same offset|nothing in it refers")
break_rule("names", "skeleton.name", b"x", "same name")
break_rule("names", "skeleton.name", b"", "empty or can't be printed")
break_rule("names", "skeleton.name", b"\x1b[31m", "empty or can't be printed")
break_rule("names", "skeleton.name", b"\xff", "UTF-8")
break_rule("inside", "skeleton.graph", tensor((1 << 39,), bytes(4)), "bytes of data for")
break_rule("inside", "skeleton.graph", tensor((1 << 30, 1 << 30, 1 << 30), bytes(4)), "elements of tensor", LimitError)
break_rule("inside", "skeleton.graph", tensor((1,), bytes(4), block(5, bytes(4))), "has data of two kinds")
break_rule(
    "inside",
    "skeleton.graph",
    block(1, block(5, block(1, "value") + block(5, number(2, 1) + number(14, 1)) + number(20, 4))),
    "only initializers of the main graph",
)
break_rule(
    "operators", "skeleton.graph", block(1, block(4, "Evil") + block(7, "evil.domain")), "domain", UnsupportedError
)
break_rule(
    "operators",
    "skeleton.graph",
    block(1, block(4, "EPContext") + block(7, "com.microsoft")),
    "EPContext",
    UnsupportedError,
)
break_rule(
    "operators",
    "skeleton.graph",
    block(1, block(5, block(1, "ep_cache_context"))),
    "ep_cache_context",
    UnsupportedError,
)
break_rule("operators", "skeleton.opset", block(1, "evil.domain") + number(2, 1), "domain", UnsupportedError)
break_rule("operators", "skeleton.model", block(8, number(2, 7)), "given twice")
for key, value, text in (
    ("ort_config", '{"session_options": {}}', "options"),
    ("tuning_results", "[]", "options"),
    ("ep_compatibility_info.x", "", "options"),
    ("labelsFile", "x", "names a file"),
    ("labels", "/etc/passwd", "names a file"),
    ("", "x", "its key"),
    ("\x1b[31m", "x", "its key"),
    ("k", "a\0b", "zero byte"),
):
    break_rule("metadata", "skeleton.model", block(14, block(1, key) + block(2, value)), text)
break_rule("metadata", "skeleton.model", block(14, block(1, "k") + block(2, b"\xff")), "UTF-8")
break_rule("metadata", "skeleton.model", block(14, block(1, "k")) * 2, "same key")
break_rule("metadata", "skeleton.model", block(14, block(1, "k") + block(3, "v")), "field 3")
break_rule("metadata", "skeleton.model", block(14, block(2, "v" * 1048577)), "length of", LimitError)
break_rule("metadata", "skeleton.model", block(14, block(2, "v" * 700000)) * 2, "size of metadata", LimitError)
break_rule("metadata", "skeleton.model", block(14, b"") * 257, "number of", LimitError)
break_rule("unknown", "skeleton.model", block(25, b""), "field 25")
break_rule("unknown", "skeleton.graph", block(15, b""), "field 15")
break_rule("unknown", "skeleton.model", number(7, 1), "wire type 0")
break_rule("unknown", "skeleton.model", b"\x3b", "wire type 3")
break_rule("once", "skeleton.model", block(7, b""), "given twice")
break_rule("once", "skeleton.model", number(1, 8), "given twice")
break_rule("once", "skeleton.graph", block(2, "h"), "given twice")
break_rule("numbers", "skeleton.model", b"\x88\x00\x08", "shortest form")
break_rule("numbers", "skeleton.model", b"\xff" * 11, "64 bits")
break_rule("numbers", "skeleton.model", b"\x2a" + varint(1 << 40), "wire type|past the end")
break_rule("numbers", "skeleton.model", b"\x12" + varint(1 << 40), "past the end")
break_rule("numbers", "part.data", lambda original: original[:-1], "past the end|ends within|wire type")
break_rule("depth", "skeleton.graph", nest(60), "messages in messages", LimitError)
break_rule("counts", "skeleton.model", block(8, block(1, "ai.onnx.ml")) * 20, "number of|twice", SeedError)
break_rule("formats", "part.data", lambda original: original[:4] + b"ORTM" + original[8:], "read as two formats")
break_rule(
    "attributes", "skeleton.graph", block(1, block(5, block(1, "a") + number(3, 1) + number(20, 5))), "not of its type"
)
break_rule(
    "attributes",
    "skeleton.graph",
    block(1, block(5, block(1, "a") + number(3, 1) + block(4, "s") + number(20, 2))),
    "its type",
)
break_rule("attributes", "skeleton.graph", block(1, block(5, block(1, "a") + number(3, 1))), "not of its type")
break_rule("needed", "part.data", number(1, 8), "no graph, no version or no opset")
break_rule("needed", "part.data", lambda original: original[2:], "no graph, no version or no opset")
break_rule("needed", "part.data", b"", "no graph, no version or no opset")


def typed(content: bytes) -> bytes:
    """Return an output of this type."""
    return block(12, block(1, "z") + block(2, content))


def axis(content: bytes) -> bytes:
    """Return an output with one dimension."""
    return typed(block(1, number(1, 1) + block(2, block(1, content))))


float_tensor = block(1, number(1, 1))
break_rule("types", "skeleton.graph", typed(float_tensor + block(4, b"")), "a type is of two kinds")
break_rule("types", "skeleton.graph", typed(block(4, b"") + block(9, b"")), "a type is of two kinds")
break_rule("types", "skeleton.graph", typed(float_tensor * 2), "given twice")
break_rule("types", "skeleton.graph", axis(number(1, 3) + block(2, "n")), "both a number and a name")
break_rule("types", "skeleton.graph", axis(number(1, (1 << 64) - 1)), "a dimension is -1")
break_rule("types", "skeleton.graph", axis(block(2, "\x1b")), "can't be printed")
break_rule("types", "skeleton.graph", typed(block(1, number(1, 1 << 31))), "elem_type is 2147483648")
break_rule("types", "skeleton.graph", typed(block(7, b"")), "field 7")  # an opaque type
break_rule("dimensions", "skeleton.graph", tensor((1 << 41,), bytes(4)), "negative or too large")
break_rule("dimensions", "skeleton.graph", tensor(((1 << 64) - 1,), bytes(4)), "negative or too large")
break_rule("dimensions", "skeleton.graph", tensor((1 << 39, 4), bytes(4)), "elements of tensor", LimitError)
break_rule("dimensions", "skeleton.graph", tensor((1,) * 65, bytes(4)), "number of", LimitError)
break_rule("dimensions", "skeleton.dims", number(1, 1) * 8 + number(1, 4), "axes of tensor", LimitError)
break_rule("names", "skeleton.graph", block(12, block(1, "")), "empty or can't be printed")
break_rule("names", "skeleton.graph", tensor((1,), bytes(4)) * 2, "same name")
break_rule("metadata", "skeleton.model", block(14, block(1, "k") + block(2, "/\u00a0x")), "names a file")


def inline(code: int, data: bytes, dims: tuple[int, ...] = (2,)) -> bytes:
    """Return a tensor of any type with this field of data in the model."""
    return block(5, b"".join(number(1, dim) for dim in dims) + number(2, code) + block(8, "k") + data)


for code, data, text in (
    (1, block(4, bytes(7)), "7 bytes of data"),
    (1, block(9, bytes(9)), "9 bytes of data"),
    (1, block(10, bytes(16)), "data in double_data"),
    (1, b"", "no data for 2 elements"),
    (0, block(9, b""), "element type 0"),
    (27, block(9, bytes(2)), "element type 27"),
    (8, block(9, bytes(2)), "data in raw_data"),
    (8, block(6, "a"), "1 strings of data"),
    (7, block(7, b"\1"), "1 numbers of data"),
    (7, block(7, b"\1\x81\0"), "shortest form"),
    (7, block(7, b"\1" + b"\xff" * 9 + b"\2"), "shortest form"),
    (7, block(7, b"\1\x80"), "ends within a number"),
    (7, number(7, 1) * 2, "wire type 0"),
    (7, block(7, b"\1") * 2, "given twice"),
    (12, block(5, b"\1\1"), "data in int32_data"),
    (22, block(5, b"\1\1"), "2 numbers of data"),
    (25, block(9, b"\1\1"), "2 bytes of data"),
):
    break_rule("inside", "skeleton.graph", inline(code, data), text)
break_rule("inside", "skeleton.graph", inline(1, block(9, bytes(8)), ()), "8 bytes of data")
break_rule("unknown", "skeleton.dims", block(1, b"\4"), "wire type 2")  # packed
break_rule("unknown", "skeleton.graph", block(1, block(5, block(1, "f") + number(2, 1))), "wire type 0")
break_rule("names", "skeleton.graph", block(5, number(2, 7) + block(8, "x") + block(7, b"\1")), "another type or shape")
break_rule(
    "names",
    "skeleton.graph",
    block(5, number(1, 1) * 2 + number(2, 1) + block(8, "x") + block(9, bytes(4))),
    "another type or shape",
)
break_rule("names", "skeleton.graph", block(1, block(1, b"\xff")), "UTF-8")
break_rule("names", "skeleton.name", b"n" * 4097, "length of", LimitError)
break_rule("operators", "skeleton.model", block(8, block(1, "ai.onnx") + number(2, 13)), "given twice")
break_rule("attributes", "skeleton.graph", block(1, block(5, number(20, 2)) * 2), "an attribute twice")
break_rule("attributes", "skeleton.graph", block(1, block(5, block(22, b"") + number(20, 11))), "field 22")
break_rule("attributes", "skeleton.graph", block(1, block(5, number(20, 15))), "not of its type")
break_rule("counts", "skeleton.graph", block(1, block(5, number(20, 2)) * 257), "number of", LimitError)
break_rule("counts", "skeleton.model", block(8, block(1, "ai.onnx.ml")) * 17, "number of", LimitError)
break_rule("counts", "skeleton.graph", block(12, block(1, "z")) * 4096, "number of", LimitError)
