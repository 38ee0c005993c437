"""The encode side of the codecs, by the plans that they carry out. A new codec is one file here and one line below."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from seed_exporter.codecs import grid, lowrank, moments, raw, split
from seed_exporter.codecs.base import Codec, Plan

CODECS: Final[Mapping[type[Plan], Codec[Any, Any]]] = {
    codec.plan: codec
    for codec in (
        raw.CODEC,
        split.CODEC,
        lowrank.CODEC,
        moments.CODEC,
        grid.CODEC,
    )
}
"""Codecs by the type of their plans, in the order in which their weights stand in the weights file."""


def codec_of(plan: Plan) -> Codec[Any, Any]:
    """Return the codec that carries out a plan."""
    return CODECS[type(plan)]
