"""Decoders by the number that stands in a seed. A new codec is one file here and one line below.

A codec's number never changes its meaning (SPEC.md, "Codecs").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from seed_runtime.codecs import grid, lowrank, raw, split
from seed_runtime.codecs.spread import Values
from seed_runtime.errors import UnsupportedError
from seed_runtime.format.header import Hole

Decode = Callable[[Sequence[Hole], Iterator[memoryview], str], Iterator[Values]]


@dataclass(frozen=True)
class Codec:
    """`decode(holes, chunks, where)` yields the bytes of all holes in order, as arrays of at most a few MiB."""

    number: int
    name: str
    decode: Decode


CODECS = {
    codec.number: codec
    for codec in (
        Codec(1, "raw", raw.decode),
        Codec(2, "grid", grid.decode),
        Codec(3, "split", split.decode),
        Codec(5, "lowrank", lowrank.decode),
    )
}
BY_NAME = {codec.name: codec for codec in CODECS.values()}


def by_number(number: int, where: str) -> Codec:
    """The decoder, or UnsupportedError: a seed may use a codec that came after this runtime."""
    if number not in CODECS:
        raise UnsupportedError(
            f"{where}: codec {number} is unknown to this runtime; update it: pip install -U seed-runtime"
        )
    return CODECS[number]
