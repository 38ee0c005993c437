"""The skeleton walker against bytes written by hand, and attacks."""

from __future__ import annotations

import contextlib
import mmap
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from seed_runtime import limits, skeletons
from seed_runtime.errors import FormatError, LimitError, UnsupportedError
from seed_runtime.format.dtypes import BY_NAME
from seed_runtime.skeletons import onnx
from tests.support.onnx_bytes import (
    EXTERNAL,
    HEAD,
    PLACE,
    Hole,
    attribute,
    entries,
    graph,
    model,
    node,
    num,
    put,
    value,
    varint,
    weight,
)


def test_a_skeleton_written_by_hand_is_read():
    info = onnx.scan(model())
    assert info.ir_version == 8
    assert info.opsets == {"": 17}
    assert info.inputs == (skeletons.ValueInfo("x", 1, ("n", 3)),)
    assert info.outputs == (skeletons.ValueInfo("y", 1, (None, 2)),)
    assert info.tensors == (skeletons.ExternalTensor("w", BY_NAME["float32"], (2, 3), 64, 24),)
    assert skeletons.check_holes(info, [Hole()]) == ("w",)


@pytest.mark.parametrize(
    ("op", "missing", "breaks"), [("IsNaN", True, False), ("GRU", False, True), ("Add", False, False)]
)
def test_operators_that_decide_what_a_model_may_be_given_are_noted(op: str, missing: bool, breaks: bool):
    info = onnx.scan(model(graph(extra=put(1, put(4, op)))))
    assert (info.takes_missing, info.breaks_on_empty) == (missing, breaks)


def inline(name: str, kind: int = 1) -> bytes:
    """Return an initializer of three elements whose data is in the model."""
    return put(5, num(1, 3) + num(2, kind) + put(8, name) + put(9, bytes(12)))


def test_an_input_may_have_a_default_in_the_model():
    for dims in (put(1, num(1, 3)), put(1, put(2, "n")), put(1, b"")):
        info = onnx.scan(model(graph(extra=inline("z") + put(11, value("z", dims)))))
        assert [each.name for each in info.inputs] == ["x"]
        assert [each.name for each in info.optional_inputs] == ["z"]


def test_holes_and_references_must_be_the_same_set():
    info = onnx.scan(model())
    other = BY_NAME["int32"]
    for holes in (
        [],
        [Hole(), Hole()],
        [Hole(offset=0)],
        [Hole(dims=(3, 2))],
        [Hole(dims=(6,))],
        [Hole(dtype=other)],
        [Hole(size=20)],
    ):
        with pytest.raises(FormatError):
            skeletons.check_holes(info, holes)
    twice = replace(info, tensors=(*info.tensors, replace(info.tensors[0], name="v", offset=128)))
    with pytest.raises(FormatError, match="nothing in it refers"):
        skeletons.check_holes(twice, [Hole(), Hole()])


def test_a_skeleton_cut_at_any_byte_is_refused():
    whole = model()
    # Cut between two fields of the model, what is left still has a graph; then only the opset is missing.
    for end in range(len(whole)):
        with pytest.raises(FormatError):
            onnx.scan(whole[:end])


def test_maps_and_views_are_read_and_released(tmp_path: Path):
    path = tmp_path / "model.onnx"
    path.write_bytes(model())
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        assert onnx.scan(mapped).tensors[0].name == "w"
        mapped.close()  # BufferError if anything still held on to it
    assert onnx.scan(memoryview(b"..." + model())[3:]).ir_version == 8


WEIGHT_ATTACKS = {
    "absolute": weight(PLACE | {"location": "/etc/passwd"}),
    "parent": weight(PLACE | {"location": "../model.weights"}),
    "inner parent": weight(PLACE | {"location": "a/../model.weights"}),
    "dot": weight(PLACE | {"location": "./model.weights"}),
    "memory address": weight(PLACE | {"location": "*/_ORT_MEM_ADDR_/*", "offset": "4096"}),
    "memory address of native numbers": weight(
        PLACE | {"location": "*/_ORT_NATIVE_ENDIAN_MEM_ADDR_/*", "offset": "4096"}
    ),
    "other file": weight(PLACE | {"location": "model.onnx"}),
    "case": weight(PLACE | {"location": "Model.weights"}),
    "nul": weight(PLACE | {"location": "model.weights\0"}),
    "empty location": weight(PLACE | {"location": ""}),
    "no location": weight({"offset": "64", "length": "24"}),
    "no offset": weight({"location": "model.weights", "length": "24"}),
    "no length": weight({"location": "model.weights", "offset": "64"}),
    "location twice": weight(extra=entries(location="/etc/passwd")),
    "offset twice": weight(extra=entries(offset="0")),
    "further key": weight(PLACE | {"checksum": "00"}),
    "prepacked": weight(PLACE | {"prepacked_0": "key|0;24"}),
    "key twice in an entry": weight(
        {"location": "model.weights", "offset": "64"},
        put(13, put(1, "checksum") + put(1, "length") + put(2, "24")),
    ),
    "negative offset": weight(PLACE | {"offset": "-64"}),
    "signed offset": weight(PLACE | {"offset": "+64"}),
    "spaced offset": weight(PLACE | {"offset": " 64"}),
    "hex offset": weight(PLACE | {"offset": "0x40"}),
    "padded offset": weight(PLACE | {"offset": "064"}),
    "underscored offset": weight(PLACE | {"offset": "6_4"}),
    "foreign digits": weight(PLACE | {"offset": "٦٤"}),
    "superscript": weight(PLACE | {"offset": "6²"}),
    "empty offset": weight(PLACE | {"offset": ""}),
    "huge offset": weight(PLACE | {"offset": "9" * 13}),
    "a very long offset": weight(PLACE | {"offset": "1" * 4000}),
    "unaligned": weight(PLACE | {"offset": "68"}),
    "short": weight(PLACE | {"length": "20"}),
    "long": weight(PLACE | {"length": "28"}),
    "zero length": weight(PLACE | {"length": "0"}, head=num(1, 0) + num(2, 1) + put(8, "w")),
    "raw data too": weight(extra=put(9, bytes(24))),
    "empty raw data too": weight(extra=put(9, b"")),
    "float data too": weight(extra=put(4, bytes(24))),
    "entries but no location": HEAD + entries(**PLACE),
    "entries but default location": HEAD + entries(**PLACE) + num(14, 0),
    "external without entries": HEAD + EXTERNAL,
    "unknown data location": HEAD + entries(**PLACE) + num(14, 2),
    "data location twice": weight(extra=num(14, 1)),
    "data type twice": weight(extra=num(2, 1)),
    "name twice": weight(extra=put(8, "v")),
    "no name": weight(head=num(1, 2) + num(1, 3) + num(2, 1)),
    "name to fool a terminal": weight(head=num(1, 2) + num(1, 3) + num(2, 1) + put(8, "w\x1b[2J")),
    "name not UTF-8": weight(head=num(1, 2) + num(1, 3) + num(2, 1) + put(8, b"\xff")),
    "long name": weight(head=num(1, 2) + num(1, 3) + num(2, 1) + put(8, "w" * 5000)),
    "strings outside": weight(head=num(1, 2) + num(1, 3) + num(2, 8) + put(8, "w")),
    "unknown type": weight(head=num(1, 2) + num(1, 3) + num(2, 99) + put(8, "w")),
    "no type": weight(head=num(1, 2) + num(1, 3) + put(8, "w")),
    "packed dimensions": weight(head=put(1, b"\2\3") + num(2, 1) + put(8, "w")),
    "negative dimension": weight(head=num(1, -2) + num(1, -3) + num(2, 1) + put(8, "w")),
    "padded dimension": weight(head=b"\x08\x82\x00" + num(1, 3) + num(2, 1) + put(8, "w")),
    "too long a number": weight(head=b"\x08" + b"\xff" * 10 + b"\x01" + num(2, 1) + put(8, "w")),
    "65 bits": weight(head=b"\x08" + b"\xff" * 9 + b"\x02" + num(2, 1) + put(8, "w")),
    "nine axes": weight(head=num(1, 2) + num(1, 3) + num(1, 1) * 7 + num(2, 1) + put(8, "w")),
    "many axes": weight(head=num(1, 1) * 100 + num(2, 1) + put(8, "w")),
    "huge dimensions": weight(head=num(1, 1 << 40) * 8 + num(2, 1) + put(8, "w")),
    "segment": weight(extra=put(3, num(1, 0) + num(2, 24))),
    "metadata": weight(extra=put(16, put(1, "k") + put(2, "v"))),
    "doc string": weight(extra=put(12, "hello")),
    "unknown field": weight(extra=num(99, 1)),
    "group": weight(extra=varint(17 << 3 | 3) + varint(17 << 3 | 4)),
    "field zero": weight(extra=b"\0"),
    "padded tag": weight(extra=b"\x88\x80\x00" + b"\1"),
    "inline, but as much as gigabytes": num(1, 1 << 30) + num(2, 1) + put(8, "w"),
    "inline, two kinds of data": HEAD + put(9, bytes(24)) + put(4, bytes(24)),
    "inline, of another size": HEAD + put(9, bytes(28)),
    "inline, data in pieces": HEAD + put(4, bytes(12)) + put(4, bytes(12)),
    "inline, data not packed": HEAD + (varint(4 << 3 | 5) + bytes(4)) * 6,
    "inline, too few strings": num(1, 1 << 30) + num(2, 8) + put(8, "w") + put(6, "a"),
}


@pytest.mark.parametrize("name", WEIGHT_ATTACKS)
def test_a_weight_that_lies_is_refused(name: str):
    with pytest.raises(FormatError):
        onnx.scan(model(graph(tensors=WEIGHT_ATTACKS[name])))


ELSEWHERE = {
    "a node's tensor": graph(nodes=node(attribute(4, put(5, weight())))),
    "a node's tensors": graph(nodes=node(attribute(9, put(10, weight())))),
    "a nested graph": graph(nodes=node(attribute(5, put(6, graph())))),
    "nested graphs": graph(nodes=node(attribute(10, put(11, graph())))),
    "a sparse initializer's values": graph(extra=put(15, put(1, weight()) + put(2, weight()) + num(3, 6))),
    "a node's sparse tensor": graph(nodes=node(attribute(11, put(22, put(1, weight()))))),
    "a node's sparse tensors": graph(nodes=node(attribute(12, put(23, put(1, weight()))))),
    "a hidden value of another kind": graph(nodes=node(attribute(2, num(3, 1) + put(5, weight())))),
}


@pytest.mark.parametrize("where", ELSEWHERE)
def test_weights_elsewhere_than_in_the_main_graph_are_refused(where: str):
    with pytest.raises(FormatError):
        onnx.scan(model(ELSEWHERE[where]))


MODEL_ATTACKS = {
    "empty": b"",
    "nothing but zeros": bytes(64),
    "training info": model(extra=put(20, put(1, graph()))),
    "functions": model(extra=put(25, put(1, "f") + put(7, node()))),
    "devices": model(extra=put(26, put(1, "d"))),
    "session options": model(extra=put(14, put(1, "ort_config") + put(2, "{}"))),
    "a second graph": model(extra=put(7, graph())),
    "a second graph that only adds": model(extra=put(7, put(5, weight()))),
    "two versions": model(extra=num(1, 9)),
    "two opsets": model(extra=put(8, num(2, 9))),
    "two names of one opset": model(extra=put(8, put(1, "ai.onnx") + num(2, 9))),
    "no opset": model(opset=b""),
    "trailing zeros": model(extra=b"\0\0"),
    "a wrong wire type": model(extra=put(5, "1")),
    "the end of a group": model(extra=b"\x0c"),
    "a length of gigabytes": num(1, 8) + varint(7 << 3 | 2) + varint(1 << 40),
    "a length of 64 bits": num(1, 8) + varint(7 << 3 | 2) + varint(-1),
    "the same initializer twice": model(graph(extra=put(5, weight(PLACE | {"offset": "128"})))),
    "two at one place": model(graph(extra=put(5, weight(head=num(1, 2) + num(1, 3) + num(2, 1) + put(8, "v"))))),
    "a weight that is an input": model(graph(extra=put(11, value("w")))),
    "a default of another type": model(graph(extra=inline("z", kind=6) + put(11, value("z", put(1, num(1, 3)))))),
    "a default of another size": model(graph(extra=inline("z") + put(11, value("z", put(1, num(1, 2)))))),
    "a default of another rank": model(graph(extra=inline("z") + put(11, value("z", put(1, num(1, 3)) * 2)))),
    "a default twice": model(graph(extra=inline("z") * 2 + put(11, value("z", put(1, num(1, 3)))))),
    "a weight and a default": model(graph(extra=inline("w"))),
    "an input twice": model(graph(extra=put(11, value("x")))),
    "an input without a name": model(graph(extra=put(11, value("")))),
    "an input of two types": model(graph(extra=put(11, put(1, "z") + put(2, put(1, num(1, 1)) + put(4, put(1, b"")))))),
    "a dimension of two kinds": model(graph(extra=put(11, value("z", put(1, num(1, 3) + put(2, "n")))))),
    "a negative dimension": model(graph(extra=put(11, value("z", put(1, num(1, -1)))))),
    "opaque types": model(graph(extra=put(11, put(1, "z") + put(2, put(7, put(1, "d")))))),
    "annotations": model(graph(extra=put(14, put(1, "w")))),
    "metadata of the graph": model(graph(extra=put(16, put(1, "k")))),
    "metadata of a node": model(graph(nodes=node(extra=put(9, put(1, "k"))))),
    "an overload": model(graph(nodes=node(extra=put(8, "o")))),
    "a reference to a function's attribute": model(graph(nodes=node(put(1, "a") + put(21, "b") + num(20, 1)))),
    "an attribute without a type": model(graph(nodes=node(put(1, "a") + num(3, 1)))),
    "an attribute of another type": model(graph(nodes=node(attribute(2, put(4, "text"))))),
    "an attribute of two kinds": model(graph(nodes=node(attribute(2, num(3, 1) + put(4, "text"))))),
    "an attribute twice in itself": model(graph(nodes=node(attribute(2, num(3, 1) + num(3, 2))))),
    "two formats in one": put(2, b"ab" + b"ORTM") + model(),
}


@pytest.mark.parametrize("name", MODEL_ATTACKS)
def test_a_model_that_is_ambiguous_or_holds_more_is_refused(name: str):
    with pytest.raises(FormatError):
        onnx.scan(MODEL_ATTACKS[name])


@pytest.mark.parametrize(
    "nodes",
    [
        node(op="EPContext", domain=put(7, "com.microsoft")),
        node(op="EPContext"),
        node(attribute(3, put(4, "/etc/passwd"), name="ep_cache_context")),
        node(op="PythonOp", domain=put(7, "com.microsoft")),
        node(op="ATen", domain=put(7, "org.pytorch.aten")),
        node(op="Custom", domain=put(7, "my.domain")),
        node(attribute(5, put(6, put(1, node(op="EPContext")))), op="If"),
    ],
)
def test_operators_that_load_files_or_code_are_refused(nodes: bytes):
    with pytest.raises(UnsupportedError) as caught:
        onnx.scan(model(graph(nodes=nodes)))
    assert caught.value.exit_code == 12


def test_a_domain_that_no_device_has_is_refused():
    with pytest.raises(UnsupportedError, match=r"ai\.onnx\.contrib"):
        onnx.scan(model(extra=put(8, put(1, "ai.onnx.contrib") + num(2, 1))))


def test_graphs_nested_too_deep_are_refused():
    inner = put(2, "g")
    for _ in range(8):
        inner = put(1, node(attribute(5, put(6, inner)), op="If"))
    assert onnx.scan(model(graph(extra=inner)))
    for _ in range(40):
        inner = put(1, node(attribute(5, put(6, inner)), op="If"))
    with pytest.raises(LimitError):
        onnx.scan(model(graph(extra=inner)))


def test_types_nested_too_deep_are_refused():
    inner = put(1, num(1, 1))
    for _ in range(100):
        inner = put(4, put(1, inner))
    with pytest.raises(LimitError):
        onnx.scan(model(graph(extra=put(11, put(1, "z") + put(2, inner)))))


def test_a_skeleton_over_the_limit_is_refused_unread():
    with pytest.raises(LimitError):
        onnx.scan(bytes(limits.PART_RAW_MAX + 1))


@pytest.mark.parametrize(
    "flood",
    [
        pytest.param(lambda n: graph(nodes=put(1, "") * n), id="names"),
        pytest.param(lambda n: graph(nodes=put(1, "abcdefgh") * n), id="longer names"),
        pytest.param(lambda n: graph(nodes=b"", extra=put(1, b"") * n), id="nodes"),
        pytest.param(lambda n: graph(extra=put(13, b"") * n), id="shapes"),
        pytest.param(lambda n: graph(tensors=b"", extra=put(5, num(2, 1)) * n), id="initializers"),
        pytest.param(lambda n: graph(nodes=node(attribute(7, num(8, 1) * n))), id="numbers"),
        pytest.param(lambda n: graph(extra=put(11, b"") * n), id="inputs"),
        pytest.param(lambda n: graph(extra=put(11, value("z", put(1, b"") * n))), id="dimensions"),
    ],
)
def test_a_flood_of_small_things_takes_little_memory(flood: Callable[[int], bytes]):
    data = model(flood(20_000))
    tracemalloc.start()
    try:
        with contextlib.suppress(FormatError):
            onnx.scan(data)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
