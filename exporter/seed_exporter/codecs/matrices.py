"""Common base of the codecs whose prepared weights are one matrix of symbols each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from seed_exporter.codecs.base import Codec, P, Progress
from seed_runtime.codecs.encode import symbols
from seed_runtime.codecs.encode.matrix import CodedMatrix
from seed_runtime.codecs.encode.symbols import StreamEstimate, SymbolStream
from seed_runtime.codecs.encode.tables import Tables


class MatrixCodec(Codec[P, CodedMatrix]):
    """Codes the matrices of all weights of a stream under common tables."""

    def encode(self, prepared: Sequence[CodedMatrix], progress: Progress | None = None) -> SymbolStream:
        """Code the symbols of all weights."""
        return symbols.encode(prepared, progress)

    def estimate(self, prepared: Sequence[CodedMatrix]) -> StreamEstimate:
        """Compute the sizes from the tables."""
        return symbols.estimate(prepared)

    def size_among(self, prepared: Sequence[CodedMatrix]) -> Callable[[CodedMatrix], float]:
        """Return a function that computes sizes from the stream's tables."""
        return Tables.of(prepared).bytes_of
