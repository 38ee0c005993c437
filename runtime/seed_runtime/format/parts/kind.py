"""Record of one kind of part."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PartKind:
    """One kind of part."""

    number: int
    """Number of the kind in a seed. A kind that is no skeleton has the bit OPTIONAL set (sections/section.py)."""
    title: str
    """Name of the kind for people."""
    file: str | None
    """Name of the file that it is assembled to, None where the part is used otherwise and not written."""
    is_skeleton: bool = False
    """True if it is the model without weights: the first part of every seed, and only that one."""
