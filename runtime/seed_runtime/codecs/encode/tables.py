"""The probability tables of a stream: which classes share one, what they cost, and how a head says them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from seed_runtime.codecs.encode.contexts import CLASSES
from seed_runtime.codecs.encode.lanes import normalized
from seed_runtime.codecs.encode.matrix import I64, U8, CodedMatrix, histogram
from seed_runtime.codecs.lanes import SLOTS
from seed_runtime.codecs.planes import ESCAPE
from seed_runtime.format import primitives

_TABLE_ENTRY_BITS = 9.0
"""Average size of a frequency in a packed head, for deciding whether two classes share a table [bit]."""
_TABLE_BITS = 24
"""Size of a table in a packed head without its frequencies [bit]."""


@dataclass(frozen=True, eq=False)
class Tables:
    """The probability tables of a stream: neighbouring classes share one where their own cost more than they save."""

    groups: list[slice]
    """The classes of each table."""
    of_class: U8
    """Number of the table of each class, `(CLASSES,)`."""
    counts: I64
    """Number of symbols under each table, `(tables, 256)`."""
    frequencies: I64
    """Number of the SLOTS that a table gives each symbol, `(tables, 256)`; 0 for symbols that don't occur."""

    @classmethod
    def of(cls, matrices: Sequence[CodedMatrix]) -> Tables:
        """Make the tables with which `encode` codes these matrices."""
        return cls.of_counts(histogram(matrices))

    @classmethod
    def of_counts(cls, counts: I64) -> Tables:
        """Make the tables for these numbers of symbols, `(CLASSES, 256)`."""
        groups = _groups_of_classes(counts)
        of_class = np.full(CLASSES, len(groups) - 1, np.uint8)
        for number, group in enumerate(groups):
            of_class[group] = number
        merged = np.stack([counts[group].sum(axis=0) for group in groups])
        return cls(groups, of_class, merged, np.stack([normalized(row) for row in merged]))

    def bytes_of(self, matrix: CodedMatrix) -> float:
        """Compute the size of a matrix under these tables: symbols, low bits, escapes, classes and steps [B].

        The matrix may be another one than those that the tables were made for: a symbol that a table lacks counts as
        its rarest one, which is what it would cost to let it in.
        """
        counts = matrix.counts
        used = counts > 0
        frequencies = np.maximum(self.frequencies[self.of_class][used], 1)
        bits = float((counts[used] * np.log2(SLOTS / frequencies)).sum())
        return (bits + matrix.side_bits) / 8 + matrix.low_bytes + 4 * matrix.escaped.size

    def pack(self, *, with_escape: bool) -> bytes:
        """Write the tables as a head holds them.

        Args:
            with_escape: whether the symbols are quantized integers, one of which is the escape.
        """
        out = [primitives.varint(self.groups[-1].stop)]
        for group, row in zip(self.groups, self.frequencies, strict=True):
            out.append(_packed_table(row, with_escape))
            out += [primitives.varint(0)] * (group.stop - group.start - 1)
        return b"".join(out)


def _groups_of_classes(counts: I64) -> list[slice]:
    """Merge neighbouring classes while a table costs more than it saves; list the classes of each table."""
    used = np.flatnonzero(counts.sum(axis=1))
    last = int(used[-1]) + 1 if used.size else 1
    groups = [slice(number, number + 1) for number in range(last)]
    costs = [_cost(counts[group].sum(axis=0)) for group in groups]
    merged = [_cost(counts[a.start : b.stop].sum(axis=0)) for a, b in pairwise(groups)]
    while len(groups) > 1:
        gains = [costs[i] + costs[i + 1] - merged[i] for i in range(len(merged))]
        best = int(np.argmax(gains))
        if gains[best] < 0:
            break
        groups[best : best + 2] = [slice(groups[best].start, groups[best + 1].stop)]
        costs[best : best + 2] = [merged[best]]
        # Only the pairs with the new group have another cost.
        first = max(best - 1, 0)
        pairs = pairwise(groups[first : best + 2])
        merged[first : best + 2] = [_cost(counts[a.start : b.stop].sum(axis=0)) for a, b in pairs]
    return groups


def _cost(counts: I64) -> float:
    """Compute the bits of symbols and of their table."""
    present = counts[counts > 0]
    if not present.size:
        return 0.0
    return float(-(present * np.log2(present / present.sum())).sum()) + _TABLE_ENTRY_BITS * present.size + _TABLE_BITS


def _packed_table(frequencies: I64, with_escape: bool) -> bytes:
    """Write a table as the shortest run of symbols, modulo 256, that holds all but the escape."""
    counts = frequencies.copy()
    escape = 0
    if with_escape:
        escape, counts[ESCAPE] = int(counts[ESCAPE]), 0
    present = np.flatnonzero(counts)
    gaps = np.diff(np.concatenate([present, present[:1] + 256]))
    widest = int(np.argmax(gaps))
    first = int(present[(widest + 1) % present.size])
    count = 256 - int(gaps[widest]) + 1
    out = [primitives.varint(count)]
    if with_escape:
        out.append(primitives.varint(escape))
    out.append(primitives.uint(first, 1))
    out += [primitives.varint(int(counts[(first + place) % 256])) for place in range(count)]
    return b"".join(out)
