"""Seeds of TFLite models, and of models that lie."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tests.conformance.support.hostile import DAMAGED, NEWER
from tests.conformance.support.seeds import Stream, Tensor, build_tflite, seed_of_tflite
from tests.conformance.support.valid_exact import raw
from tests.conformance.support.valid_quantized import grid
from tests.conformance.support.vector import Vector
from tests.support import tflite_bytes
from tests.support.spec_bytes import Matrix
from tests.support.tflite_bytes import Scalar, buffer, code, cut, operator, subgraph, tensor, weight_range

DATA = struct.pack("<16f", *tflite_bytes.WEIGHT)
_WEIGHT = raw([Tensor(1, (16,))], DATA)


def vectors() -> Iterator[Vector]:
    """Yield all vectors of this module."""
    whole, place = _model()
    yield build_tflite("tflite-one", "a TFLite model with one weight", [_WEIGHT], cut(whole, [place]))
    yield build_tflite("tflite-none", "a TFLite model of which nothing was left out", [], cut(whole, []))
    writer = tflite_bytes.write(
        tflite_bytes.model_fields(
            subgraphs=[
                subgraph(
                    [tensor([16], 0, "x"), tensor([16], 1, "a"), tensor([4, 4], 2, "b"), tensor([16], 0, "y")],
                    [0],
                    [3],
                    [operator(0, [0, 1], [3])],
                )
            ],
            buffers=[buffer(), buffer(DATA), buffer(bytes(64))],
        )
    )
    ranges = [weight_range(writer, number) for number in (1, 2)]
    streams: list[Stream] = [grid([Matrix([[1, 2, 0, 4], [0, 0, 1, 1], [-1, 2, 0, 0], [3, 0, 0, 1]], 0, 0.5)]), _WEIGHT]
    yield build_tflite(
        "tflite-order", "holes in another order than their ranges", streams, cut(bytes(writer.data), ranges, [1, 0])
    )
    lies = {
        "root": (_model(b"\0\0\0\x40TFL3", 0), DAMAGED, "a root beyond the end"),
        "version": (_model(more={0: Scalar("I", 4)}), NEWER, "another version of the schema"),
        "operator": (_model(codes=[code(4000)]), NEWER, "an operator that is not known"),
        "index": (_model(operators=[operator(0, [0, 3], [2])]), DAMAGED, "a tensor that isn't there"),
        "order": (_model(operators=[operator(0, [2], [2])]), DAMAGED, "an operator that reads its own output"),
        "constant": (_model(operators=[operator(0, [0], [1])]), DAMAGED, "an operator that writes into a weight"),
        "buffer": (_model(buffers=[buffer(DATA), buffer(DATA)]), DAMAGED, "data in buffer 0"),
    }
    for name, ((data, at), exit_code, tests) in lies.items():
        yield Vector(f"bad-tflite-{name}", tests, seed_of_tflite([_WEIGHT], cut(data, [at])), exit_code)
    for name, skeleton, tests in (
        ("numbers", cut(whole, [place], [1]), "a range of a hole that isn't there"),
        ("ranges", cut(whole, []), "a hole without a range"),
        ("size", cut(whole, [(place[0] + 4, 60)]), "a range without its size in front of it"),
    ):
        yield Vector(f"bad-tflite-{name}", tests, seed_of_tflite([_WEIGHT], skeleton), DAMAGED)


def _model(head: bytes = b"", at: int = 0, **changed: object) -> tuple[bytes, tuple[int, int]]:
    writer = tflite_bytes.write(tflite_bytes.model_fields(**changed))
    writer.data[at : at + len(head)] = head
    return bytes(writer.data), weight_range(writer)
