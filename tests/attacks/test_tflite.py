"""Hostile TFLite models: each is refused by name before LiteRT sees it, in little memory."""

from __future__ import annotations

import io
import random
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import seed_runtime
from seed_runtime.errors import FormatError, LimitError, SeedError, UnsupportedError
from seed_runtime.format.dtypes import FLOAT32
from seed_runtime.format.header import Hole
from seed_runtime.skeletons import flatbuffer, tflite
from tests.support.tflite_bytes import (
    WEIGHT,
    Numbers,
    Scalar,
    Tables,
    Writer,
    buffer,
    code,
    cut,
    model,
    model_fields,
    numbers,
    operator,
    subgraph,
    tensor,
    weight_range,
    write,
)
from tests.support.written_seeds import write_seed_bytes

PEAK_MAX = 4 << 20
"""Bytes that a check may take."""
DATA = struct.pack("<16f", *WEIGHT)
X, Y = tensor([16], 0, "x"), tensor([16], 0, "y")


def patched(place: Callable[[Writer], int], data: bytes) -> bytes:
    """Return the model with other bytes at a place."""
    writer = write(model_fields())
    at = place(writer)
    writer.data[at : at + len(data)] = data
    return bytes(writer.data)


def at(name: str, more: int = 0) -> Callable[[Writer], int]:
    """Return a function that finds a field."""
    return lambda writer: writer.at[name] + more


def u16(value: int) -> bytes:
    return struct.pack("<H", value)


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def calls(*bodies: int) -> bytes:
    """Return a model of several subgraphs, each of which calls another one."""
    graphs = [
        subgraph(
            [X, X, Y],
            [0],
            [2],
            [{**operator(0, [0], [2]), 3: Scalar("B", 93), 4: {0: Scalar("i", body), 1: Scalar("i", body)}}],
        )
        for body in bodies
    ]
    return model(subgraphs=graphs, codes=[code(119)])


LIES: list[tuple[str, bytes, type[SeedError], str]] = [
    ("no model", b"\0\0\0\0TFL4" + model()[8:], FormatError, "no TFLite model"),
    ("root beyond the end", u32(1 << 30) + model()[4:], FormatError, "past the end"),
    ("root at itself", u32(0) + model()[4:], FormatError, "the offset of Model is 0"),
    ("root that isn't aligned", u32(25) + model()[4:], FormatError, "isn't aligned"),
    ("vtable before the file", patched(at("Model"), struct.pack("<i", 1 << 20)), FormatError, "before the file"),
    ("vtable behind the file", patched(at("Model"), struct.pack("<i", -(1 << 20))), FormatError, "past the end"),
    ("vtable of an odd size", patched(at("Model vtable"), u16(13)), FormatError, "has 13 bytes"),
    ("vtable of no size", patched(at("Model vtable"), u16(0)), FormatError, "has 0 bytes"),
    ("vtable longer than the file", patched(at("Model vtable"), u16(0xFFFE)), FormatError, "past the end"),
    ("table longer than the file", patched(at("Model vtable", 2), u16(0xFFFE)), FormatError, "past the end"),
    ("field outside of its table", patched(at("Model vtable", 4), u16(400)), FormatError, "outside of its table"),
    ("field over its vtable's offset", patched(at("Model vtable", 4), u16(2)), FormatError, "outside of its table"),
    ("field that isn't aligned", patched(at("Model vtable", 4), u16(6)), FormatError, "isn't aligned"),
    ("offset beyond the end", patched(at("Model.2"), u32(1 << 28)), FormatError, "past the end"),
    ("offset of 0", patched(at("Model.2"), u32(0)), FormatError, "is 0"),
    ("longer vector than the file", patched(at("Model.4 data"), u32(1 << 28)), FormatError, "past the end"),
    ("vector that wraps around", patched(at("Model.4 data"), u32(0xFFFFFFFF)), FormatError, "past the end"),
    ("longer text than the file", patched(at("Model.3 data"), u32(1 << 28)), FormatError, "past the end"),
    ("text without an end", patched(at("Model.3 data"), u32(6)), FormatError, "has no end"),
    ("longer data than the file", patched(at("Model.4[1].0 data"), u32(1 << 20)), FormatError, "past the end"),
    ("another version", patched(at("Model.0"), u32(4)), UnsupportedError, "version 4"),
    ("a field that is not known", model(more={12: Scalar("I", 1)}), UnsupportedError, "field 12"),
    ("an operator that is not known", model(codes=[code(4000)]), UnsupportedError, "operator 4000"),
    ("an operator below 0", model(codes=[{0: Scalar("b", -3), 3: Scalar("i", -9)}]), FormatError, "operator -3"),
    ("a delegate", model(codes=[code(51)]), FormatError, "operator 51"),
    ("no operator of this number", model(operators=[operator(1, [0, 1], [2])]), FormatError, "operator 1 is out"),
    ("a tensor that isn't there", model(operators=[operator(0, [0, 3], [2])]), FormatError, "inputs of an operator"),
    ("a tensor below -1", model(operators=[operator(0, [0, -2], [2])]), FormatError, "inputs of an operator"),
    ("an output that is none", model(operators=[operator(0, [0, 1], [-1])]), FormatError, "or to no tensor"),
    ("an operator writes into a weight", model(operators=[operator(0, [0], [1])]), FormatError, "into constant data"),
    ("a tensor that nothing makes", model(operators=[operator(0, [2], [2])]), FormatError, "nothing before it makes"),
    ("no subgraph", model(more={2: Tables([])}), FormatError, "0 subgraphs"),
    (
        "an output that nothing makes",
        model(subgraphs=[subgraph([X, Y], [0], [1], [operator(0, [0], [0])])]),
        FormatError,
        "made by nothing",
    ),
    (
        "an input with data",
        model(subgraphs=[subgraph([tensor([16], 1, "x"), Y], [0], [0], [])]),
        FormatError,
        "an input of a subgraph",
    ),
    ("a subgraph that calls itself", calls(0), FormatError, "call themselves"),
    ("subgraphs that call each other", calls(1, 0), FormatError, "call themselves"),
    ("subgraphs that call too deeply", calls(*range(1, 40), 0), FormatError, "call themselves"),
    ("a subgraph that isn't there", calls(5), FormatError, "subgraphs that are called"),
    ("a buffer that isn't there", model(tensors=[X, tensor([16], 9, "w"), Y]), FormatError, "has buffer 9"),
    ("data in buffer 0", model(buffers=[buffer(DATA), buffer(DATA)]), FormatError, "stands for none"),
    ("a shape of another size", model(tensors=[X, tensor([15], 1, "w"), Y]), FormatError, "64 bytes of data for 15"),
    ("a type of another size", model(tensors=[X, tensor([16], 1, "w", 1), Y]), FormatError, "float16, which take 32"),
    ("a dimension below 0", model(tensors=[X, tensor([-4, -4], 1, "w"), Y]), FormatError, "has the shape"),
    ("a huge shape", model(tensors=[X, tensor([1 << 30] * 5, 1, "w"), Y]), FormatError, "has the shape"),
    ("too many axes", model(tensors=[X, tensor([1] * 65, 1, "w"), Y]), LimitError, "axes of tensor 1"),
    ("a type that is not known", model(tensors=[X, tensor([16], 1, "w", 90), Y]), UnsupportedError, "type 90"),
    ("a handle with data", model(tensors=[X, tensor([16], 1, "w", 13), Y]), FormatError, "resource with constant data"),
    (
        "a variable with data",
        model(tensors=[X, tensor([16], 1, "w", more={5: Scalar("?", True)}), Y]),
        FormatError,
        "is a variable",
    ),
    (
        "texts that lie outside",
        model(tensors=[X, tensor([1], 1, "w", 5), Y], buffers=[buffer(), buffer(struct.pack("<3i", 1, 12, 99) + b"a")]),
        FormatError,
        "texts that lie outside",
    ),
    ("another number of texts", model(tensors=[X, tensor([7], 1, "w", 5), Y]), FormatError, "aren't 7 texts"),
    (
        "scales of another axis",
        model(tensors=[X, tensor([16], 1, "w", more={4: {2: Numbers("f", [1, 1])}}), Y]),
        FormatError,
        "2 scales for axis 0",
    ),
    (
        "zero points of other scales",
        model(tensors=[X, tensor([16], 1, "w", more={4: {3: Numbers("q", [0, 0], 8)}}), Y]),
        FormatError,
        "2 zero points",
    ),
    (
        "two shapes that don't fit",
        model(tensors=[tensor([16], 0, "x", more={7: numbers([-1, 16])}), tensor([16], 1, "w"), Y]),
        FormatError,
        "two shapes",
    ),
    (
        "options without a type",
        model(operators=[{**operator(0, [0, 1], [2]), 4: {0: Scalar("b", 0)}}]),
        FormatError,
        "has no type",
    ),
    (
        "options of an unknown type",
        model(operators=[{**operator(0, [0, 1], [2]), 3: Scalar("B", 200), 4: {}}]),
        UnsupportedError,
        "type 200",
    ),
    (
        "options behind the file",
        model(operators=[{**operator(0, [0, 1], [2]), 9: Scalar("Q", 400), 10: Scalar("Q", 64)}]),
        UnsupportedError,
        "outside of its flatbuffer",
    ),
    (
        "a signature of no subgraph",
        model(more={7: Tables([{4: Scalar("I", 3)}])}),
        FormatError,
        "subgraph of a signature 3",
    ),
    (
        "a signature of no tensor",
        model(more={7: Tables([{0: Tables([{0: "x", 1: Scalar("I", 70)}])}])}),
        FormatError,
        "tensor of a signature 70",
    ),
    (
        "metadata without a buffer",
        model(more={6: Tables([{0: "m", 1: Scalar("I", 8)}])}),
        FormatError,
        "buffer of metadata 8",
    ),
]


@pytest.mark.parametrize(("data", "error", "text"), [case[1:] for case in LIES], ids=[case[0] for case in LIES])
def test_a_model_that_lies_is_refused(data: bytes, error: type[SeedError], text: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(error, match=text):
            tflite.scan_file(data)
        assert tracemalloc.get_traced_memory()[1] < PEAK_MAX
    finally:
        tracemalloc.stop()


def test_a_model_cut_at_any_byte_is_refused() -> None:
    data = model()
    for size in range(len(data) - 4):
        with pytest.raises(FormatError):
            tflite.scan_file(data[:size])


def test_any_changed_byte_is_refused_or_checked_to_the_end() -> None:
    data, rng = model(), random.Random(0)
    refused = 0
    for place in range(len(data)):
        for value in {data[place] ^ 1, data[place] ^ 0x80, 0xFF, rng.randrange(256)} - {data[place]}:
            try:
                tflite.scan_file(data[:place] + bytes([value]) + data[place + 1 :])
            except SeedError:
                refused += 1
    assert refused > len(data)


def test_shared_tables_count_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = write(model_fields(more={6: Tables([{0: "m", 1: Scalar("I", 0)}] * 100)}))
    first, last = writer.at["Model.6 data"] + 4, writer.at["Model.6[99]"]
    for place in range(first, first + 400, 4):
        writer.data[place : place + 4] = u32(last - place)
    tflite.scan_file(bytes(writer.data))
    monkeypatch.setattr(flatbuffer, "FIELDS_MAX", 200)
    with pytest.raises(LimitError, match="fields"):
        tflite.scan_file(bytes(writer.data))


def test_many_fields_are_more_than_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flatbuffer, "FIELDS_MAX", 50)
    with pytest.raises(LimitError, match="fields"):
        tflite.scan_file(model())


# Skeletons


def seed_of(skeleton: bytes, dims: tuple[int, ...] = (16,), dtype: Any = FLOAT32) -> seed_runtime.Seed:
    data = write_seed_bytes([(2, skeleton)], [Hole(dtype, dims, 0)], 1, [b"\0\1" + DATA], DATA)
    return seed_runtime.open(io.BytesIO(data))


def skeleton(**changed: Any) -> tuple[bytes, tuple[int, int]]:
    writer = write(model_fields(**changed))
    return bytes(writer.data), weight_range(writer)


def test_a_seed_of_a_model_is_assembled_byte_for_byte(tmp_path: Path) -> None:
    whole, place = skeleton()
    folder = seed_of(cut(whole, [place])).assemble(tmp_path / "model")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"model.tflite": whole}


@pytest.mark.parametrize(
    ("ranges", "problem"),
    [
        (lambda place: [(place[0] + 4, place[1] - 4)], r"past the end|into a weight|isn't the data"),
        (lambda place: [(24, 16)], r"into a weight|no size in front|past its end|hole"),
        (lambda place: [(place[0] - 4, place[1] + 4)], "is empty"),
    ],
)
def test_a_range_that_is_no_buffer_is_refused(ranges: Any, problem: str, tmp_path: Path) -> None:
    whole, place = skeleton()
    with pytest.raises(FormatError, match=problem):
        seed_of(cut(whole, ranges(place))).assemble(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_range_that_no_buffer_is_in_is_refused() -> None:
    whole, place = skeleton()
    # Behind the model stands a vector that nothing refers to.
    more = whole + u32(64) + DATA
    with pytest.raises(FormatError, match="isn't the data of a buffer"):
        tflite.scan(cut(more, [place, (len(whole) + 4, 64)]))


def test_two_buffers_of_one_range_are_refused() -> None:
    writer = write(model_fields(buffers=[buffer(), buffer(DATA), buffer(DATA)]))
    first, second = writer.at["Model.4[1].0"], writer.at["Model.4[2].0 data"]
    writer.data[first : first + 4] = u32(second - first)
    with pytest.raises(FormatError, match="share a range"):
        tflite.scan(cut(bytes(writer.data), [weight_range(writer, 2)]))


@pytest.mark.parametrize("dims", [(4, 4), (15,), (16, 1)])
def test_a_hole_that_differs_from_its_range_is_refused(dims: tuple[int, ...], tmp_path: Path) -> None:
    whole, place = skeleton()
    with pytest.raises(FormatError, match=r"differs in|weights file"):
        seed_of(cut(whole, [place]), dims).assemble(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_other_numbers_of_ranges_and_holes_are_refused(tmp_path: Path) -> None:
    whole, _ = skeleton()
    with pytest.raises(FormatError, match="0 ranges for weights and the table of holes has 1"):
        seed_of(cut(whole, [])).assemble(tmp_path / "model")
