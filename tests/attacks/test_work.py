"""The costliest seeds that the limits allow, by counts of steps and products: none costs more than SPEC.md says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from seed_runtime.codecs import lanes, lowrank, moments
from seed_runtime.codecs.encode import raw
from seed_runtime.errors import LimitError
from seed_runtime.limits import FACTORS_MAX, STEPS_MAX
from tests.support.spec_bytes import Table, deflate, f32, rans, varint
from tests.support.streams import data, head, hole, packed, pieces_of, shape

SIDE = 1024
CONSTANT = Table(0, [4095, 1])
"""A table under which 8,192 symbols take less than a byte and a half."""


def decoded_elements(codec: str, chunks: list[bytes], *dims: int) -> int:
    return sum(block.size for block in pieces_of(codec, [hole(*dims)], chunks))


def test_a_product_costs_at_most_1024_multiplications_a_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    # Everything is dead, so nothing is coded: as large a rank as there may be for a megabyte of weights.
    done = 0

    def counted(u: np.ndarray, v: np.ndarray, *scales: np.ndarray | None) -> np.ndarray:
        nonlocal done
        done += u.shape[0] * u.shape[1] * v.shape[1]
        return real(u, v, *scales)

    real = lowrank.multiply
    monkeypatch.setattr(lowrank, "multiply", counted)
    prefix = varint(SIDE) + varint(SIDE) + bytes(SIDE)
    chunk = head(prefix=prefix, shapes=shape(SIDE, flags=1) * 2, arrays=bytes(2 * SIDE))
    raw_head = chunk[1 + len(varint(len(chunk) - 3)) :]
    small = b"\1" + varint(len(raw_head)) + deflate(raw_head)
    assert len(small) < 200
    assert decoded_elements("lowrank", [small], SIDE, SIDE) == SIDE * SIDE
    assert done <= FACTORS_MAX * SIDE * SIDE


def test_components_cost_at_most_1024_multiplications_a_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counting:
        """NumPy, whose products are counted."""

        products = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(np, name)

        def multiply(self, a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
            self.products += out.size
            np.multiply(a, b, out=out)

    counting = Counting()
    monkeypatch.setattr(moments, "np", counting)
    side = 96
    record = varint(side) + varint(side) + varint(0) + f32(0, 0, 0)
    numbers = bytes(2 * (side + 2 * side * side))
    assert decoded_elements("moments", [packed(record), *raw.encode(numbers, 2)], side, side) == side * side
    assert counting.products == side**3 <= FACTORS_MAX * side * side


def test_a_chunk_takes_at_most_8192_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    done = 0

    def counted(self: lanes.LaneDecoder, classes: np.ndarray, out: np.ndarray) -> None:
        nonlocal done
        done += -(-out.size // self.lanes)
        real(self, classes, out)

    real = lanes.LaneDecoder.decode_into
    monkeypatch.setattr(lanes.LaneDecoder, "decode_into", counted)
    table = b"".join([varint(2), b"\0", varint(4095), varint(1)])

    def chunks(count: int) -> list[bytes]:
        states, words = rans([(0, 0)] * count, [CONSTANT], 1)
        return [head(lanes_log2=0, tables=table, shapes=shape(1, step=None)), data(states=states, words=words)]

    one = chunks(STEPS_MAX)
    assert sum(map(len, one)) < 40
    assert sum(block.size for block in pieces_of("split", [hole(STEPS_MAX, dtype="int8")], one)) == STEPS_MAX
    assert done == STEPS_MAX
    with pytest.raises(LimitError, match="steps of a chunk: 8,193"):
        pieces_of("split", [hole(STEPS_MAX + 1, dtype="int8")], chunks(STEPS_MAX + 1))
