"""Record of one kind of part, and of what it may know of tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from seed_runtime.format.dtypes import DType


class HoleLike(Protocol):
    """A row of the seed's table of holes, or one that an exporter plans."""

    @property
    def dtype(self) -> DType:
        """Element type."""
        ...

    @property
    def dims(self) -> tuple[int, ...]:
        """Dimensions, outermost first."""
        ...

    @property
    def offset(self) -> int:
        """Offset of the first element in the weights file [B]."""
        ...

    @property
    def size(self) -> int:
        """Size of the tensor [B]."""
        ...


@dataclass(frozen=True)
class PartKind:
    """One kind of part."""

    number: int
    """Number of the kind in a seed. A kind that is no skeleton has the bit OPTIONAL set (sections/section.py)."""
    title: str
    """Name of the kind for people."""
    file: str | None
    """Name of the file that it is assembled to, None where the part is used otherwise and not written."""
    is_early: bool = False
    """True if commands read it before the weights; of a pipe it is held until then."""
    is_skeleton: bool = False
    """True if it is the model without weights: the first part of every seed, and only that one."""
    tail: Callable[[str, Sequence[HoleLike]], Iterator[bytes]] | None = None
    """Gives, by what names begin with and the holes, the end of the part that a seed may leave out; None for none."""
