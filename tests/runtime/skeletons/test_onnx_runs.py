"""Long lists of a node's attribute: read in runs, as strictly as one by one, and with a limit of their own."""

from __future__ import annotations

import struct
from collections.abc import Callable
from unittest import mock

import numpy as np
import pytest

from seed_runtime.errors import FormatError, LimitError
from seed_runtime.skeletons import onnx, onnx_runs
from seed_runtime.skeletons import onnx_schema as schema
from tests.support.onnx_bytes import attribute, graph, model, node, num, put

FLOATS = b"".join(b"\x3d" + struct.pack("<f", value) for value in range(200))
NUMBERS = b"".join(num(8, value) for value in (0, 1, 127, 128, 1 << 62, -1, -(1 << 63)) * 40)
TEXTS = b"".join(put(9, "x" * (index % 140)) for index in range(300))


def scan(kind: int, fields: bytes) -> None:
    onnx.scan(model(graph(nodes=node(attribute(kind, fields)))))


@pytest.mark.parametrize(("kind", "fields"), [(6, FLOATS), (7, NUMBERS), (8, TEXTS)])
@pytest.mark.parametrize("block", [64, 1 << 16])
def test_long_lists_are_read_whatever_the_block(kind: int, fields: bytes, block: int) -> None:
    with mock.patch.object(onnx_runs, "_BLOCK", block):
        scan(kind, fields)
        for end in range(len(fields) - 12, len(fields)):
            with pytest.raises(FormatError):
                onnx.scan(model(graph(nodes=node(attribute(kind, fields))))[: -len(fields) + end])


@pytest.mark.parametrize("place", [0, 10, 20, 39])
@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (7, num(8, 300), b"\x40\x80\x00"),
        (7, num(8, 300), b"\x40" + b"\xff" * 9 + b"\x02"),
        (7, num(8, 300), b"\x40" + b"\x80" * 10 + b"\x01"),
        (7, num(8, 300), b"\xc0\x00\x01"),
        (7, num(8, 300), b"\x3d" + bytes(4)),
        (6, b"\x3d" + bytes(4), b"\x3a\x04" + bytes(4)),
        (6, b"\x3d" + bytes(4), b"\xbd\x00" + bytes(4)),
        (8, put(9, "ab"), b"\x4a\x82\x00ab"),
        (8, put(9, "ab"), b"\x48\x02"),
    ],
)
def test_what_is_refused_one_by_one_is_refused_within_a_run(kind: int, good: bytes, bad: bytes, place: int) -> None:
    scan(kind, good * 40)
    with pytest.raises(FormatError):
        scan(kind, good * place + bad + good * (40 - place))


def test_runs_count_a_sixteenth_of_other_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "FIELDS_MAX", 200)
    scan(7, num(8, 1) * 2000)
    with pytest.raises(LimitError, match="fields: 201 exceeds the limit of 200"):
        scan(7, num(8, 1) * 4000)
    with pytest.raises(LimitError):
        onnx.scan(model(graph(nodes=node(attribute(7, num(8, 1) * 4)) * 1 + put(1, "x") * 200)))


@pytest.mark.parametrize(
    ("count", "tag", "field"),
    [
        (
            onnx_runs.count_numbers,
            0x40,
            lambda rng: num(8, int(rng.integers(-(1 << 62), 1 << 62)) >> int(rng.integers(62))),
        ),
        (onnx_runs.count_floats, 0x3D, lambda rng: b"\x3d" + rng.bytes(4)),
        (onnx_runs.count_short_texts, 0x4A, lambda rng: put(9, rng.bytes(int(rng.integers(127))))),
    ],
)
def test_random_runs_are_counted_to_what_follows_them(
    count: Callable[..., tuple[int, int]], tag: int, field: Callable[[np.random.Generator], bytes]
) -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        fields = [field(rng) for _ in range(int(rng.integers(60)))]
        data = b"".join(fields)
        after = bytes([0x50]) + rng.bytes(8)
        assert count(memoryview(data + after), 0, len(data + after), tag) == (len(fields), len(data))
        assert count(memoryview(data), 0, len(data), tag) == (len(fields), len(data))
