"""Decoders by the number that stands in a seed. A new codec is one file here and one line below.

A codec's number never changes its meaning (SPEC.md, "Streams and chunks"). What a decoder must do, and the base's
weights that it may be given, are described in codec.py and base.py.
"""

from __future__ import annotations

import importlib
from typing import Any, Final

from seed_runtime.codecs import grid, lowrank, raw, split, trellis
from seed_runtime.codecs.base import BaseWeights
from seed_runtime.codecs.codec import Codec, Decode
from seed_runtime.errors import too_new

__all__ = ["BY_NAME", "CODECS", "BaseWeights", "Codec", "Decode", "by_number"]


class _Late:
    """A function of a codec that few seeds use: its module is imported by the first call, not by every start."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    def __call__(self, *given: Any) -> Any:
        return getattr(importlib.import_module(f"{__name__}.{self._module}"), self._name)(*given)


CODECS: Final = {
    codec.number: codec
    for codec in (
        Codec(1, "raw", raw.decode),
        Codec(2, "grid", grid.decode, trellis.held_bytes, grid.trellises),
        Codec(3, "split", split.decode),
        Codec(4, "moments", _Late("moments", "decode")),
        Codec(5, "lowrank", lowrank.decode),
        Codec(7, "delta", *(_Late("delta", name) for name in ("decode", "held_bytes", "trellises"))),
        Codec(8, "adaptive", *(_Late("adaptive", name) for name in ("decode", "held_bytes", "trellises"))),
        Codec(9, "integers", _Late("integers", "decode"), trellis.held_bytes, _Late("integers", "trellises")),
    )
}
"""Codecs by number."""
BY_NAME: Final = {codec.name: codec for codec in CODECS.values()}


def by_number(number: int, where: str) -> Codec:
    """Return the codec of this number.

    Raises:
        UnsupportedError: this runtime has none; the seed may use a codec that came later.
    """
    if number not in CODECS:
        raise too_new(where, f"codec {number}")
    return CODECS[number]
