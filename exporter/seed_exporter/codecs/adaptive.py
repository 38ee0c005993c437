"""`adaptive`: what `grid` holds, in fewer bytes where a stream has some tens of kilobytes, for more time to decode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from seed_exporter.codecs.base import Progress, measured
from seed_exporter.codecs.grid import GridCodec
from seed_runtime.codecs.encode import adaptive
from seed_runtime.codecs.encode.matrix import CodedMatrix
from seed_runtime.codecs.encode.symbols import StreamEstimate, SymbolStream
from seed_runtime.limits import CHUNK_DECODED_MAX

BYTES_MAX: Final = 100_000
"""Size of `grid`'s stream up to which this codec is tried [B].

Of a stream of 154 KB, tables and classes are only 2 %; to save them, decoding would take about a second, not 30 ms.
"""
BYTES_LEAST: Final = 16_384
"""Size of `grid`'s stream from which on this codec is tried by a search [B].

Coding some kilobytes takes .1 to .8 s, and a search asks for some thirty sizes: of basic pitch at 12 and 16 KB it took
twice as long, and found no better plans.
"""
BYTES_LEAST_TRAINED: Final = 2048
"""The same for plans that were trained, which are coded a few times [B]: .5 to 19 % of 2 to 16 KB were saved."""
_BITS_MAX: Final = 4.0
"""Bits for each element up to which this codec is tried: a magnitude of 15 takes as many decisions."""
_GAIN_LEAST: Final = 0.01
"""Share of `grid`'s bytes that must be saved: decoding takes some ten times as long, about a second."""


def may_code(prepared: Sequence[CodedMatrix]) -> bool:
    """Return whether so many elements can be coded, which takes no time to find out."""
    return sum(matrix.symbols.size for matrix in prepared) <= CHUNK_DECODED_MAX


class AdaptiveCodec(GridCodec):
    """Codes what `GridCodec` prepares. No plan asks for it: streams of `grid` become its own where that pays."""

    name = "adaptive"

    def encode(self, prepared: Sequence[CodedMatrix], progress: Progress | None = None) -> SymbolStream:
        """Code the integers of all weights.

        Raises:
            ValueError: they are more, or larger, than this codec takes.
        """
        stream = adaptive.encode(prepared)
        if stream is None:
            raise ValueError("these weights are more or larger than the codec adaptive takes")
        return stream

    def instead_of(
        self, grid: StreamEstimate, prepared: Sequence[CodedMatrix], trained: bool = False
    ) -> StreamEstimate | None:
        """Return the sizes of this codec's stream, with the stream itself, if it should take the place of `grid`'s."""
        elements = sum(matrix.symbols.size for matrix in prepared)
        least = BYTES_LEAST_TRAINED if trained else BYTES_LEAST
        if not least <= grid.size <= BYTES_MAX or 8 * grid.size > _BITS_MAX * elements:
            return None
        stream = adaptive.encode(prepared)
        if stream is None or sum(map(len, stream.chunks)) > (1 - _GAIN_LEAST) * grid.size:
            return None
        return measured(stream, grid.tensors)


CODEC = AdaptiveCodec()
