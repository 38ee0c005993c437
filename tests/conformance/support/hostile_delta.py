"""Seeds with a base that a decoder refuses, beside those with one wrong field: bases, holes, types, and two faults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from tests.conformance.support.hostile import DAMAGED, NEWER
from tests.conformance.support.seeds import Stream, Tensor, build, build_on
from tests.conformance.support.valid_delta import ANEW, BITWISE, BY_OCTAVE, DIFFERENCE, all_codecs, delta, floats
from tests.conformance.support.valid_exact import noise, raw
from tests.conformance.support.vector import Vector
from tests.support.delta_builder import build_delta
from tests.support.seed_builder import Replacement
from tests.support.spec_bytes import Matrix, f32, u8, u16, varint

LONG = b"\xff" * 9 + b"\x01"
_ONE = Matrix([[1, 2], [-1, 0]], 0, 0.5)


def vectors() -> Iterator[Vector]:
    """Yield all vectors of this module."""
    seed = build_delta()
    yield Vector("bad-no-base", "a seed whose base isn't given", seed, NEWER)
    yield Vector("bad-other-base", "another base than the seed's own", seed, NEWER, bases=(floats(),))
    yield from _codec_7()
    for name, tests, replaced, code in _ORDER:
        yield Vector(f"order-base-{name}", tests, build_delta(replaced), code, bases=(all_codecs(),))


def _codec_7() -> Iterator[Vector]:
    tensors = [Tensor(1, (2, 2)), Tensor(1, (2, 2)), Tensor(7, (3,)), Tensor(6, (3,))]
    base = build("base-wide", "a base with wide integers", [raw(tensors, noise(68))])
    yield base
    name, tests = "bad-delta-without-base", "codec 7 in a seed without BASE"
    seed = build("", "", [Stream(7, [Tensor(1, (2, 2))], delta([], [DIFFERENCE], [_ONE]).chunks, bytes(16))]).seed
    yield Vector(name, tests, seed, DAMAGED)
    for name, tests, tensor, mode in (
        ("integers", "differences of floats for int32", 3, DIFFERENCE),
        ("anew-integers", "int32 as codec 2 does not decode it", 3, ANEW),
        ("wide", "integers added to the bits of int64", 2, BITWISE),
    ):
        whole = [Tensor(hole.dtype, hole.dims) for hole in base.holes]
        modes = [mode if place == tensor else 0 for place in range(4)]
        stream = delta(whole, modes, [Matrix([[1, 0, 1]], 0, 1.0)])
        yield _bad(f"bad-delta-{name}", tests, base, stream, None)
    for name, tests, tensor in (
        ("octaves-integers", "octaves of int32", 3),
        ("octaves-wide", "octaves of int64", 2),
    ):
        whole = [Tensor(hole.dtype, hole.dims) for hole in base.holes]
        modes = [BY_OCTAVE if place == tensor else 0 for place in range(4)]
        chunks = delta(whole, [*modes, 0, 0], [Matrix([[1, 0, 1]], 0, 1.0)]).chunks
        yield _bad(f"bad-delta-{name}", tests, base, Stream(7, whole, chunks), None)
    dead = Matrix([[1, 2], [0, 0]], 0, 1.0, row_classes=bytes([1, 0]))
    whole = [Tensor(hole.dtype, hole.dims) for hole in base.holes]
    chunks = delta(whole, [BY_OCTAVE, 0, 0, 0, 0, 0], [dead]).chunks
    yield _bad("bad-delta-octaves-dead", "octaves, and a dead row", base, Stream(7, whole, chunks), None)
    for mode, text in ((0, "unchanged"), (DIFFERENCE, "a difference"), (BITWISE, "added to bits")):
        matrices = [replace(_ONE, step=1.0)] if mode else []
        stream = delta([Tensor(1, (2, 2))], [mode], matrices)
        yield _bad(f"bad-delta-missing-{mode}", f"a hole that the base has not: {text}", base, stream, ["other"])
        stream = delta([Tensor(1, (4,))], [mode], matrices)
        yield _bad(
            f"bad-delta-dims-{mode}", f"a hole with other dimensions than the base's: {text}", base, stream, ["t0"]
        )


def _bad(name: str, tests: str, base: Vector, stream: Stream, names: list[str] | None) -> Vector:
    """Return a seed whose stream can't be decoded; its weights are zeros."""
    size = {1: 4, 6: 4, 7: 8}
    data = bytes(sum(size[tensor.dtype] * _count(tensor) for tensor in stream.tensors))
    made = build_on(name, tests, base, [replace(stream, data=data)], names=names)
    return replace(made, exit_code=DAMAGED)


def _count(tensor: Tensor) -> int:
    count = 1
    for dim in tensor.dims:
        count *= dim
    return count


_ORDER: list[tuple[str, str, Mapping[str, Replacement], int]] = [
    ("unknown", "an unknown critical section, and another base: newer", {"section.id#3": u16(9)}, NEWER),
    ("level", "a higher level, and a depth of 0: newer",
     {"model.feature_level": varint(2), "base.depth": varint(0)}, NEWER),
    ("streams", "more streams than there may be, and another base: damage",
     {"streams.count": varint(5000), "base.digest": bytes(32)}, DAMAGED),
    ("depth", "a depth of 33, and another base: damage", {"base.depth": varint(33), "base.digest": bytes(32)}, DAMAGED),
    ("tuned", "a record that can't be read, and another base: damage",
     {"tuned.before": f32(float("nan")), "base.digest": bytes(32)}, DAMAGED),
    ("digest", "another base, and a depth that isn't the next one: newer",
     {"base.digest": bytes(32), "base.depth": varint(2)}, NEWER),
    ("filled", "another base, and fewer holes than it has: newer",
     {"base.digest": bytes(32), "streams.holes": varint(6)}, NEWER),
    ("codec", "fewer holes than the base has, and an unknown codec: damage",
     {"streams.holes": varint(6), "streams.codec": u8(99)}, DAMAGED),
    ("long", "a depth of ten bytes, and an unknown codec: damage",
     {"base.depth": LONG, "streams.codec": u8(99)}, DAMAGED),
]  # fmt: skip
