"""Decoders by the number that stands in a seed. A new codec is one file here and one line below.

A codec's number never changes its meaning (SPEC.md, "Codecs").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from seed_runtime.codecs import grid, lowrank, moments, raw, split
from seed_runtime.codecs.scatter import Values
from seed_runtime.errors import too_new
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
        Codec(4, "moments", moments.decode),
        Codec(5, "lowrank", lowrank.decode),
    )
}
BY_NAME = {codec.name: codec for codec in CODECS.values()}


def by_number(number: int, where: str) -> Codec:
    """The decoder, or UnsupportedError: a seed may use a codec that came after this runtime."""
    if number not in CODECS:
        raise too_new(where, f"codec {number}")
    return CODECS[number]
