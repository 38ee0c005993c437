"""A valid seed whose model never stops running: one output is the result of a loop without a limit."""

from __future__ import annotations

from tests.support.seed_builder import Replacement, build_seed
from tests.support.spec_bytes import block, number

_FLOAT, _INT64, _BOOL = 1, 7, 9
_GRAPH = 5
"""The value of AttributeProto.GRAPH in onnx.proto."""


def _value(name: str, kind: int, axes: int = 0) -> bytes:
    shape = b"".join(block(1, block(2, f"{name}{axis}")) for axis in range(axes))
    return block(1, name) + block(2, block(1, number(1, kind) + block(2, shape)))


def _same(given: str, made: str) -> bytes:
    return block(1, block(1, given) + block(2, made) + block(4, "Identity"))


def _loop() -> bytes:
    """Return a node that computes z = x forever: the loop has no trip count and its condition stays true."""
    body = _same("more", "more_again") + _same("v", "v_again") + block(2, "body")
    for each in (_value("trip", _INT64), _value("more", _BOOL), _value("v", _FLOAT, 3)):
        body += block(11, each)
    body += block(12, _value("more_again", _BOOL)) + block(12, _value("v_again", _FLOAT, 3))
    attribute = block(1, "body") + block(6, body) + number(20, _GRAPH)
    return block(1, "") + block(1, "") + block(1, "x") + block(2, "z") + block(4, "Loop") + block(5, attribute)


REPLACED: dict[str, Replacement] = {"skeleton.graph": block(1, _loop()) + block(12, _value("z", _FLOAT, 3))}


def unbounded_loop_seed() -> bytes:
    """Return the bytes of the seed; all of its digests are valid."""
    return build_seed(REPLACED)
