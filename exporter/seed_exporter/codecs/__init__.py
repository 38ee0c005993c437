"""The encode side of the codecs, by the plans that they carry out. A new codec is one file here and one line below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from seed_exporter.codecs import adaptive, delta, grid, integers, lowrank, moments, raw, split
from seed_exporter.codecs.base import Codec, Plan
from seed_runtime.codecs.encode.symbols import StreamEstimate

CODECS: Final[Mapping[type[Plan], Codec[Any, Any]]] = {
    codec.plan: codec
    for codec in (
        raw.CODEC,
        split.CODEC,
        lowrank.CODEC,
        moments.CODEC,
        grid.CODEC,
        integers.CODEC,
        delta.CODEC,
    )
}
"""Codecs by the type of their plans, in the order in which their weights stand in the weights file."""


def smaller(
    codec: Codec[Any, Any], prepared: Sequence[Any], sizes: StreamEstimate | None = None, trained: bool = False
) -> tuple[Codec[Any, Any], StreamEstimate] | None:
    """Return a codec that writes a stream of prepared weights in clearly fewer bytes, and its sizes; None for none.

    Args:
        codec: that of the weights' plans.
        prepared: what it made of them.
        sizes: those that it gives, where they are known.
        trained: whether the plans were trained, and sizes are asked for a few times, not by a search.
    """
    if codec is not grid.CODEC or not adaptive.may_code(prepared):
        return None
    found = adaptive.CODEC.instead_of(sizes or codec.estimate(prepared), prepared, trained)
    return None if found is None else (adaptive.CODEC, found)


def codec_of(plan: Plan) -> Codec[Any, Any]:
    """Return the codec that carries out a plan."""
    return CODECS[type(plan)]
