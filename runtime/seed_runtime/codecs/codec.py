"""Interface of a codec's decoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from seed_runtime.codecs.arrays import Values
from seed_runtime.codecs.base import BaseWeights
from seed_runtime.format.sections.holes import Hole


class Decode(Protocol):
    """Decodes one stream."""

    def __call__(
        self,
        holes: Sequence[Hole],
        chunks: Iterator[memoryview],
        where: str,
        base: BaseWeights | None = None,
        cores: int = 1,
        /,
    ) -> Iterator[Values]:
        """Yield the bytes of all holes in order, without the zeros that are skipped before a hole.

        A decoder takes each chunk once, in order, when it needs it, and all of them. What it yields are arrays of any
        dtype and shape, at most a few MiB each, cut without regard to where a hole ends; the next one may overwrite
        them. Its memory doesn't grow with the size of the model. Every value of `chunks` is hostile until it has been
        checked against a limit.

        Args:
            holes: those that the stream fills.
            chunks: its coded chunks, their digests checked.
            where: names the stream in error messages.
            base: for codecs that code differences: the base's weights, whose holes are counted from the stream's first
                one. None where there is no base. A codec that needs none ignores it.
            cores: how many may be used. With more than one a chunk may be taken before the one ahead of it is done, and
                a process beside this one takes memory, see `assembly.assemble.beside_bytes`.

        Raises:
            FormatError: the chunks break a rule of SPEC.md, or there is no base where the codec needs one.
        """
        ...


@dataclass(frozen=True)
class Codec:
    """A codec, as it stands in the registry.

    Attributes:
        number: stands in seeds.
        name: for people.
        decode: decodes one stream.
        held_bytes: computes the most that decoding a stream holds beyond windows and chunks [B], from the number of
            elements of each of its holes.
        trellises: says of each hole of a stream, by its first chunk, whether its weights are on a trellis; gets the
            holes, the chunk, and the stream's name. None for a codec that has no trellis.
    """

    number: int
    name: str
    decode: Decode
    held_bytes: Callable[[Sequence[int]], int] = lambda counts: 0
    trellises: Callable[[Sequence[Hole], memoryview, str], list[bool]] | None = None
