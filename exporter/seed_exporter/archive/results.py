"""What additions to an archive and prunes did."""

from __future__ import annotations

from dataclasses import dataclass

from seed_exporter.archive.links import Link


@dataclass(frozen=True)
class Added:
    """A checkpoint that was added."""

    link: Link
    base: str | None
    """Name of the checkpoint that it is on top of; None for a key seed."""
    source_bytes: int
    """Size of its weights [B]."""
    seconds: float
    tensors: int | None = None
    """Number of its tensors, equal ones of a model with a graph once; None where it was quantized."""


@dataclass(frozen=True)
class Pruned:
    """What a prune did, or would do."""

    removed: list[str]
    """Names of checkpoints."""
    recoded: list[str]
    """Names of checkpoints that are on top of another one now, or whole."""
    held: int
    """Number of seeds that aren't checkpoints any more and that others need."""
    before: int
    """Size of all seeds [B]."""
    after: int
