"""Valid seeds whose header, parts or skeleton have what few others have."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator

from tests.conformance.support import packings
from tests.conformance.support.seeds import (
    FOOTPRINT,
    GOLDEN,
    OPSET,
    SIGNATURE,
    Options,
    Part,
    Stream,
    Tensor,
    build,
    identity,
    value,
)
from tests.conformance.support.valid_exact import noise, raw
from tests.conformance.support.vector import Vector
from tests.golden import plain
from tests.support.spec_bytes import block, f32, number, string, u8, varint


def vectors() -> Iterator[Vector]:
    """Yield all vectors of this module."""
    yield build("empty", "a model without weights: no holes, no streams, an empty weights file", [])
    yield from _headers()
    yield from _golden()
    yield from _footprints()
    yield from _skeletons()
    yield from _types()


def four() -> Stream:
    """Return a stream of four bytes, for seeds that are about something else."""
    return raw([Tensor(2, (4,))], b"\1\2\3\4")


def model(name: str, version: int = 1, level: int = 1, parameters: int = 4, source_bytes: int = 16) -> bytes:
    """Return the payload of MODEL."""
    return string(name) + b"".join(map(varint, (version, level, parameters, source_bytes)))


def _headers() -> Iterator[Vector]:
    for name, tests, payload in (
        ("empty", "an empty id", model("")),
        ("unicode", "an id in other scripts", model("t\u00fcr-\u9580-\U0001f6aa")),
        ("longest", "an id of 255 bytes, the largest version", model("x" * 255, (1 << 63) - 1)),
        ("level-0", "level 0 of the format", model("vector", level=0)),
        ("most", "as many parameters and bytes as there may be", model("vector", 1, 1, 1 << 41, 1 << 43)),
    ):
        yield build(f"model-{name}", tests, [four()], Options(model=payload))
    sections = {0x8001: b"", 0x8123: b"unknown", 0xF000: bytes(300), 0xFFFE: b"\0"}
    yield build("sections-ignored", "optional sections that no reader knows", [four()], Options(sections=sections))
    many = {0x9000 + index: b"" for index in range(59)}
    yield build("sections-64", "as many sections as there may be", [four()], Options(sections=many))
    parts = [Part(0x8100, 0, 5, b"known"), Part(0x8123, 9, 32 << 20, b"of a packing that no reader knows")]
    text = "optional parts that no reader knows: of an ignored one, neither packing nor raw_size are compared with it"
    yield build("parts-ignored", text, [four()], Options(parts=parts))
    joined = block(7, block(1, block(2, "train.loss") + block(4, "Sum")))
    text = "a training graph, whose rules only readers that train follow"
    yield build("parts-training", text, [four()], Options(parts=[Part(0x8001, 0, len(joined), joined)]))
    described = varint(2) + b"{}" + varint(1) + string("labels.txt") + varint(3) + b"a\nb"
    text = "a description of processing, whose rules only readers that use it follow"
    yield build("parts-processing", text, [four()], Options(parts=[Part(0x8002, 0, len(described), described)]))
    empty = [Part(0x8100 + index, 0, 0, b"") for index in range(15)]
    yield build("parts-16", "as many parts as there may be, empty ones", [four()], Options(parts=empty))
    signature = {SIGNATURE: b"SSHSIG" + noise(40)}
    text = "a signature of an unknown kind, for a reader that doesn't check signatures"
    yield build("signature", text, [four()], Options(sections=signature))


def golden(inputs: list[bytes], outputs: list[bytes], rng_seed: int = 0) -> bytes:
    """Return the payload of GOLDEN."""
    return varint(rng_seed) + varint(len(inputs)) + b"".join(inputs) + varint(len(outputs)) + b"".join(outputs)


def golden_input(kind: int, dtype: int, dims: tuple[int, ...], a: float, b: float) -> bytes:
    """Return a record "golden_input" of a kind that is generated."""
    return u8(kind) + u8(dtype) + varint(len(dims)) + b"".join(map(varint, dims)) + f32(a, b)


def _golden() -> Iterator[Vector]:
    values = u8(1) + varint(12) + f32(2.0**-20, 3.5) + varint(2) + varint(3) + f32(float("nan"), float("inf"), 1)
    text = u8(2) + varint(3) + noise(8)
    for name, tests, dtype, record, outputs in (
        ("zeros", "zeros", 1, golden_input(0, 1, (2, 3, 4), 5, -5), [values]),
        ("uniform", "numbers from a to b, a float16 input", 10, golden_input(1, 10, (1, 3, 4), -1, 1), [values]),
        (
            "normal",
            "a normal input; outputs that are not compared",
            1,
            golden_input(2, 1, (1, 3, 4), 0, 1),
            [b"\0"] * 64,
        ),
        ("integers", "integers, all of int8", 3, golden_input(3, 3, (1, 3, 4), -128, 128), [values]),
        ("bool", "a bool input", 9, golden_input(3, 9, (1, 3, 4), 0, 2), [values]),
        ("empty", "an axis of 0", 1, golden_input(2, 1, (0, 3, 4), 0, 1), [values]),
        ("supplied", "an input with its bytes", 3, u8(255) + u8(3) + varint(3) + b"\1\3\4" + noise(12), [values]),
        (
            "text",
            "an input and an output of text",
            8,
            u8(255) + u8(8) + b"\3\1\3\4" + string("\u00e9t\u00e9") * 12,
            [text],
        ),
    ):
        graph = _graph(value(11, "x", ["n", 3, 4], dtype))
        options = Options(sections={GOLDEN: golden([record], outputs, 7)}, graph=graph)
        yield build(f"golden-{name}", f"golden sample: {tests}", [four()], options)
    most = golden_input(0, 1, (4 << 20,), 0, 0)
    text_ = "a golden sample of 2^22 elements, for an input of unknown rank"
    options = Options(sections={GOLDEN: golden([most], [])}, graph=_graph(value(11, "x", None)))
    yield build("golden-largest", text_, [four()], options)
    options = Options(sections={GOLDEN: golden([], [])}, graph=block(2, "g"))
    yield build("golden-no-inputs", "a golden sample of a model without inputs and outputs", [four()], options)


def _graph(values: bytes, more: bytes = b"") -> bytes:
    node = block(1, block(1, "x") + block(2, "y") + block(4, "Identity"))
    return node + block(2, "g") + values + value(12, "y", ["n", 3, 4]) + more


def _footprints() -> Iterator[Vector]:
    mode = string("lean") + varint(20) + varint(1)
    none = varint(0) + varint(1) + varint(1) + mode + varint(16)
    yield build(
        "footprint-no-axes", "a footprint without free dimensions", [four()], Options(sections={FOOTPRINT: none})
    )
    axes = varint(2) + string("x") + varint(0) + string("x") + varint(7)
    points = varint(3) + varint(0) + varint(5) + varint(1) + varint(1) + varint(1 << 31) + varint(5)
    modes = varint(2) + mode + varint(3) + varint(0) + varint(3) + string("fast") + varint(1 << 24) * 5
    options = Options(sections={FOOTPRINT: axes + points + modes}, graph=_graph(value(11, "x", None)))
    yield build("footprint-axes", "two axes of an input of unknown rank, three points, two modes", [four()], options)


def tensor(field: int, name: str, dtype: int, dims: tuple[int, ...], data: bytes) -> bytes:
    """Return a tensor with its data in the model; `data` is a whole field."""
    return block(field, b"".join(number(1, dim) for dim in dims) + number(2, dtype) + block(8, name) + data)


def nested(depth: int, innermost: bytes = b"") -> bytes:
    """Return a node with a graph in an attribute, which has such a node, and so on; each takes three levels."""
    graph = innermost
    for _ in range(depth):
        graph = block(1, block(5, block(1, "body") + block(6, graph) + number(20, 5)))
    return graph


def _skeletons() -> Iterator[Vector]:
    pairs = (
        ("names", "0: cat\n1: \x1b[31mdog"),
        ("pathology", "/"),
        ("portfolio", "../\u00a0x\n"),
        ("sort", "/ a"),
        ("k" * 255, ""),
        ("unit", "a /b c"),
    )
    last = OPSET + b"".join(block(14, block(1, key) + block(2, text)) for key, text in pairs)
    text_ = (
        "metadata: line breaks and control characters in a value, keys that only look like a file's, the longest key"
    )
    yield build("skeleton-metadata", text_, [four()], Options(last=last))
    most = b"".join(block(14, block(1, f"k{index}")) for index in range(256))
    options = Options(last=OPSET + most, pack=lambda data: (packings.DEFLATE, packings.deflate_fixed(data)))
    yield build("skeleton-metadata-256", "as many pairs of metadata as there may be", [four()], options)
    names = block(1, block(3, "n" * 4096)) + value(12, "o" * 4096, ["d" * 4096])
    options = Options(graph=identity() + names, pack=lambda data: (packings.DEFLATE, packings.deflate_fixed(data)))
    yield build("skeleton-longest-names", "names of 4096 bytes", [four()], options)
    default = tensor(5, "gain", 1, (1,), block(9, f32(2)))
    graph = _graph(value(11, "x", ["n", 3, 4]) + value(11, "gain", [1]), default)
    options = Options(graph=graph, sections={GOLDEN: golden([golden_input(0, 1, (1, 3, 4), 0, 0)], [])})
    yield build("skeleton-default", "an input with a default, which the golden sample leaves out", [four()], options)
    first = number(1, 8) + block(2, "maker") + block(3, "1.0") + block(4, "org") + number(5, 3)
    last = block(8, block(1, "ai.onnx.ml") + number(2, 3)) + block(8, block(1, "ai.onnx") + number(2, 17))
    yield build(
        "skeleton-front", "all fields of the model but the needed ones", [four()], Options(first=first, last=last)
    )
    body = block(1, block(2, "z") + block(4, "Constant") + block(7, "ai.onnx") + block(5, _constant()))
    body += block(2, "body") + tensor(5, "inner", 7, (2,), block(7, b"\1\x80\1"))
    node = block(
        1, block(4, "If") + block(3, "if") + block(5, block(1, "then_branch") + block(6, body) + number(20, 5))
    )
    yield build(
        "skeleton-subgraph",
        "a graph in an attribute, with a tensor of its own",
        [four()],
        Options(graph=identity() + node),
    )
    attributes = _attributes()
    graph = identity() + block(1, block(4, "Custom") + b"".join(block(5, each) for each in attributes))
    yield build("skeleton-attributes", "an attribute of each type, and empty lists", [four()], Options(graph=graph))
    options = Options(graph=identity() + nested(21))
    yield build("skeleton-depth", "messages in messages, as deep as they may be", [four()], options)
    entries = block(13, block(1, "length") + block(2, "4")) + block(
        13, block(2, "model.weights") + block(1, "location")
    )
    entries += block(13, block(1, "offset") + block(2, "0"))
    yield from _order(entries)
    tensors = [Tensor(2, (1,)), Tensor(7, (1, 2)), Tensor(1, ()), Tensor(22, (3, 300)), Tensor(16, (1, 1, 2, 3))]
    data = noise(sum(plain.Hole(each.dtype, 0, list(each.dims)).size for each in tensors))
    text = "the initializers of five holes are left out"
    options = Options(names="", pack=lambda data: (packings.DEFLATE, packings.deflate_fixed(data)))
    yield build("skeleton-left-out", text, [raw(tensors, data)], options)
    node = block(1, block(1, "0") + block(2, "y") + block(4, "Identity"))
    graph = node + block(2, "g") + value(11, "0", ["n", 3, 4]) + value(12, "y", ["n", 3, 4])
    options = Options(names="\u00fc/_", graph=graph)
    yield build("skeleton-left-out-names", "the same of one hole, whose name begins with other text", [four()], options)


def _order(entries: bytes) -> Iterator[Vector]:
    made = build("skeleton-order", "", [four()])
    written = b"".join(
        block(13, block(1, key) + block(2, text))
        for key, text in (("location", "model.weights"), ("offset", "0"), ("length", "4"))
    )
    before = block(5, number(1, 4) + number(2, 2) + block(8, "t0") + written + number(14, 1))
    after = block(5, number(14, 1) + entries + block(8, "t0") + number(2, 2) + number(1, 4))
    assert before in made.model
    assert len(before) == len(after)
    skeleton = made.model.replace(before, after)
    seed = made.seed.replace(made.model, skeleton)
    front, header_size = seed[:24], int.from_bytes(seed[12:16], "little")
    header = seed[56 : 56 + header_size].replace(hashlib.sha256(made.model).digest(), hashlib.sha256(skeleton).digest())
    seed = front + hashlib.sha256(front + header).digest() + header + seed[56 + header_size :]
    text = "fields of messages in another order than their numbers"
    yield Vector("skeleton-order", text, seed, model=skeleton, weights=made.weights, holes=made.holes)


def _constant() -> bytes:
    return block(1, "value") + tensor(5, "", 10, (2,), block(5, b"\x80\x78\1")) + number(20, 4)


def _attributes() -> list[bytes]:
    float_type = block(1, number(1, 1))
    return [
        block(1, "f") + b"\x15" + f32(1) + number(20, 1),
        block(1, "i") + number(3, (1 << 64) - 1) + number(20, 2),
        block(1, "s") + block(4, b"\xff\0") + number(20, 3),
        block(1, "t") + tensor(5, "", 1, (0,), b"") + number(20, 4),
        block(1, "g") + block(6, b"") + number(20, 5),
        block(1, "floats") + (b"\x3d" + f32(0.5)) * 20 + number(20, 6),
        block(1, "ints") + number(8, 7) * 20 + number(20, 7),
        block(1, "strings") + block(9, "a") * 20 + number(20, 8),
        block(1, "tensors") + tensor(10, "", 8, (2,), block(6, "a") + block(6, b"\xff")) + number(20, 9),
        block(1, "graphs") + number(20, 10),
        block(1, "tp") + block(14, float_type) + number(20, 13),
        block(1, "type_protos") + block(15, float_type) * 2 + number(20, 14),
        block(1, "nothing") + number(20, 2),
    ]


def _types() -> Iterator[Vector]:
    tensors = [
        tensor(5, "float", 1, (2,), block(4, f32(1, 2))),
        tensor(5, "double", 11, (1,), block(10, struct.pack("<d", 1))),
        tensor(5, "complex64", 14, (1,), block(4, f32(1, 2))),
        tensor(5, "complex128", 15, (1,), block(9, bytes(16))),
        tensor(5, "int4", 22, (3,), block(5, b"\x21\3")),
        tensor(5, "uint2", 25, (5,), block(9, bytes(2))),
        tensor(5, "float4", 23, (3,), block(9, bytes(2))),
        tensor(5, "float8e8m0", 24, (3,), block(9, bytes(3))),
        tensor(5, "uint32", 12, (2,), block(11, b"\1\xff\xff\xff\xff\x0f")),
        tensor(5, "int64", 7, (1,), block(7, b"\xff" * 9 + b"\1")),
        tensor(5, "text", 8, (2,), block(6, "a") + block(6, b"")),
        tensor(5, "none", 7, (0, 5), b""),
        tensor(5, "scalar", 9, (), block(5, b"\1") + number(14, 0)),
        tensor(5, "rank9", 2, (1,) * 9, block(9, b"\7")),
    ]
    text = "tensors with their data in the model, of many types and in each field"
    yield build("skeleton-inline", text, [four()], Options(graph=identity() + b"".join(tensors)))
    float_type = block(1, number(1, 1))
    types = {
        "sequence": block(4, block(1, float_type)),
        "map": block(5, number(1, 7) + block(2, float_type)),
        "maps": block(4, block(1, block(5, number(1, 8) + block(2, float_type)))),
        "optional": block(9, block(1, float_type)),
        "sparse": block(8, number(1, 1)),
        "meaning": float_type + block(6, "IMAGE"),
        "no type": b"",
    }
    outputs = b"".join(block(12, block(1, name) + block(2, content)) for name, content in types.items())
    info = block(13, block(1, "a") + block(2, block(1, number(1, 1) + block(2, block(1, block(3, "DATA_BATCH"))))))
    text = "outputs that are sequences, maps, optional, sparse, or of no type; an axis without a size"
    yield build("skeleton-types", text, [four()], Options(graph=identity() + outputs + info))
