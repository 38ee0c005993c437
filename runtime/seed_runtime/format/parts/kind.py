"""What a kind of part is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PartKind:
    """One kind of part."""

    number: int
    """As in the seed. A kind that is no skeleton has the bit OPTIONAL set (sections/section.py)."""
    title: str
    """For people."""
    file: str | None
    """Name of the file that it is assembled to, None where the part is used otherwise and not written."""
    is_skeleton: bool = False
    """Whether it is the model without weights: the first part of every seed, and only that one."""
