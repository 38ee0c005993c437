"""Seeds just past a limit of SPEC.md, and seeds with parts behind the skeleton that are wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from unittest.mock import patch

import numpy as np

from seed_runtime.codecs.encode import adaptive as encoder
from seed_runtime.codecs.encode.grid import QuantizedMatrix, matrix_of
from seed_runtime.codecs.wavefront import ESCAPE
from tests.conformance.support import packings
from tests.conformance.support.hostile import DAMAGED, NEWER
from tests.conformance.support.seeds import ADAPTIVE, OPSET, Options, Part, Stream, Tensor, build, identity
from tests.conformance.support.valid_adaptive import adaptive
from tests.conformance.support.valid_exact import noise, raw
from tests.conformance.support.valid_files import four, nested
from tests.conformance.support.valid_quantized import grid, lowrank
from tests.conformance.support.vector import Vector
from tests.support.adaptive_bytes import AdaptiveMatrix
from tests.support.spec_bytes import Matrix, Table, block, u8, u32, varint


def vectors() -> Iterator[Vector]:
    """Yield all vectors of this module."""
    yield from _parts()
    yield from _limits()


def _parts() -> Iterator[Vector]:
    known, ignored = Part(0x8100, 0, 5, b"known"), Part(0x8123, 9, 5, b"other")
    for name, tests, parts in (
        ("digest", "an ignored part with a wrong digest", [ignored]),
        ("raw-size", "an ignored part of more than PART_RAW_MAX", [replace(ignored, raw_size=(32 << 20) + 1)]),
        ("order", "parts in descending order", [ignored, known]),
        ("twice", "two parts of one kind", [known, known]),
        ("needed", "a part behind the skeleton that isn't optional", [replace(known, kind=1)]),
        ("tflite", "a TFLite skeleton behind the ONNX one", [replace(known, kind=2)]),
    ):
        seed = build("", "", [four()], Options(parts=parts)).seed
        if name == "digest":
            seed = seed.replace(b"other", b"ether")
        yield Vector(f"bad-part-{name}", tests, seed, DAMAGED)
    seed = build("", "", [four()], Options(parts=[replace(known, kind=3)])).seed
    yield Vector("bad-part-unknown", "a part of an unknown kind that isn't optional", seed, NEWER)


def _limits() -> Iterator[Vector]:
    streams = [raw([Tensor(2, (5,))], noise(5, index)) for index in range(65)]
    yield _bad("streams-65", "a stream more than a seed of little weights may have", streams)
    matrix = Matrix([[0]] * 8193, 0, 1.0)
    tests = "8,193 steps in one lane"
    yield _bad("steps-8193", tests, [grid([matrix], tables=[Table(0, [4095], 1)])])
    flat = Table(254, [800, 800, 896, 800, 800], 0)
    tests = "a table more than there may be"
    yield _bad("tables-65", tests, [grid([Matrix([[1, -1, 2]], 0, 1.0)], tables=[flat] * 65)])
    v, u = Matrix([[1 << 12, 0]], 8, 1.0), Matrix([[1 << 12], [1]], 8, 1.0)
    yield _bad("lowrank-sum", "a sum of 2^24", [lowrank([(v, u, b"\0")], [Tensor(1, (2, 2))])])
    v, u = Matrix([[1, 0]], 0, 2.0**-64), Matrix([[1], [1]], 0, 2.0**-63)
    yield _bad("lowrank-scale", "a scale of 2^-127", [lowrank([(v, u, b"\0")], [Tensor(1, (2, 2))])])
    u = replace(u, row_classes=bytes(2))
    tests = "a scale of 2^-127 for rows that are all dead, where rows have no steps of their own"
    yield _bad("lowrank-scale-dead", tests, [lowrank([(v, u, b"\0")], [Tensor(1, (2, 2))])])
    yield _bad(
        "adaptive-streams-3", "a stream of codec 8 more than there may be", [adaptive([AdaptiveMatrix([[1]])])] * 3
    )
    tests = "codec 8: a matrix of one wave more than there may be"
    yield _bad("waves-4097", tests, [adaptive([AdaptiveMatrix([[0] * 4097])], data=bytes(4 * 4097))])
    tests = "codec 8: a wave of one element more than there may be"
    # 128 matrices of 64 x 64 and one of a single element: nothing of them is decoded.
    shapes = [(64, 64)] * 128 + [(1, 1)]
    raw_head = u8(0) + b"".join(AdaptiveMatrix([[0] * cols]).record() for _, cols in shapes)
    coded = [u8(0) + varint(len(raw_head)) + raw_head, u32(1 << 16) + varint(0)]
    tensors = [Tensor(1, shape) for shape in shapes]
    yield _bad("wave-8193", tests, [Stream(ADAPTIVE, tensors, coded, bytes(4 * (128 * 4096 + 1)))])
    yield _bad("escapes-16385", "codec 8: a magnitude of 15 more than there may be", [_escapes(5 * 29, 113)])
    stream = raw([Tensor(2, (4,))], b"\1\2\3\4")
    yield _bad(
        "chunk-more",
        "a chunk more than the tensors need",
        [replace(stream, chunks=[*stream.chunks, b"\0\1"], data=b"\1\2\3\4")],
    )
    options = Options(graph=identity() + nested(21, block(1, b"")))
    yield _bad("skeleton-depth-65", "messages in messages, a level too deep", [four()], options)
    pairs = b"".join(block(14, block(1, key) + block(2, b"b" * (1 << 19))) for key in ("k", "l"))
    options = Options(last=OPSET + pairs, pack=lambda data: (packings.DEFLATE, packings.deflate_fixed(data)))
    yield _bad("skeleton-metadata-size", "keys and values of METADATA_MAX + 2 bytes", [four()], options)


def _escapes(rows: int, cols: int) -> Stream:
    """Return a stream of a matrix of magnitudes of 15, by the encoder without its limit: the walk would take long."""
    integers = np.full((rows, cols), ESCAPE, np.int32)
    with patch.object(encoder, "ADAPTIVE_ESCAPES_MAX", integers.size):
        stream = encoder.encode([matrix_of(QuantizedMatrix(integers, 1.0))])
    assert stream is not None
    return Stream(ADAPTIVE, [Tensor(1, (rows, cols))], stream.chunks, integers.astype("<f4").tobytes())


def _bad(name: str, tests: str, streams: Sequence[Stream], options: Options | None = None) -> Vector:
    return Vector(f"bad-{name}", tests, build("", "", streams, options).seed, DAMAGED)
