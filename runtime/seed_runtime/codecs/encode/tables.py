"""The probability tables of a stream: which classes share one, what they cost, and how a head says them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from seed_runtime.codecs.encode.lanes import normalized
from seed_runtime.codecs.encode.matrix import CLASSES_ALL, I64, U8, CodedMatrix, histogram
from seed_runtime.codecs.lanes import SLOTS
from seed_runtime.codecs.planes import ESCAPE
from seed_runtime.format import primitives
from seed_runtime.limits import TABLES_MAX

_TABLE_ENTRY_BITS = 9.0
"""Average size of a frequency in a packed head, for deciding whether two classes share a table [bit]."""
_TABLE_BITS = 24
"""Size of a table in a packed head without its frequencies [bit]."""
_ESCAPED_BITS = 32
"""Size of an escaped value behind the words of its chunk [bit]."""


@dataclass(frozen=True, eq=False)
class Tables:
    """The probability tables of a stream: neighbouring classes share one where their own cost more than they save."""

    groups: list[slice]
    """The classes of each table."""
    of_class: U8
    """Number of the table of each class, `(CLASSES_ALL,)`."""
    rare: npt.NDArray[np.bool_]
    """The symbols that a table leaves to the escape, `(tables, 256)`."""
    counts: I64
    """Number of symbols under each table, rare ones as escapes, `(tables, 256)`."""
    frequencies: I64
    """Number of the SLOTS that a table gives each symbol, `(tables, 256)`; 0 for symbols that don't occur."""

    @classmethod
    def of(cls, matrices: Sequence[CodedMatrix]) -> Tables:
        """Make the tables with which `encode` codes these matrices."""
        return cls.of_counts(histogram(matrices), with_escape=matrices[0].step is not None)

    @classmethod
    def of_counts(cls, counts: I64, *, with_escape: bool) -> Tables:
        """Make the tables for these numbers of symbols, `(CLASSES_ALL, 256)`.

        Args:
            counts: number of symbols under each class.
            with_escape: whether the symbols are quantized integers, one of which is the escape.
        """
        groups = _groups_of_classes(counts)
        of_class = np.full(CLASSES_ALL, len(groups) - 1, np.uint8)
        for number, group in enumerate(groups):
            of_class[group] = number
        merged = np.stack([counts[group].sum(axis=0) for group in groups])
        rare = np.stack([_rare(row) if with_escape else np.zeros(256, np.bool_) for row in merged])
        merged[:, ESCAPE] += (merged * rare).sum(axis=1)
        merged[rare] = 0
        return cls(groups, of_class, rare, merged, np.stack([normalized(row) for row in merged]))

    def escape_rare(self, matrix: CodedMatrix) -> CodedMatrix:
        """Replace the symbols of a matrix that its tables leave to the escape."""
        places = self._places_of_rare(matrix)
        if not places.size:
            return matrix
        known = np.flatnonzero(matrix.symbols == ESCAPE) if matrix.escaped.size else places[:0]
        values = np.concatenate([matrix.escaped, matrix.integers[places]])
        symbols = matrix.symbols.copy()
        symbols[places] = ESCAPE
        return replace(matrix, symbols=symbols, escaped=values[np.argsort(np.concatenate([known, places]))])

    def _places_of_rare(self, matrix: CodedMatrix) -> npt.NDArray[np.intp]:
        """Find the symbols that the tables leave to the escape, in no particular order.

        Row class by row class, a magnitude below which nothing is rare leaves few to look up: .05 s for 22 M symbols,
        where looking all up takes .5 s.
        """
        if matrix.classes.offsets is not None:
            classes = matrix.classes.of_symbols().reshape(-1)
            return np.flatnonzero(self.rare[self.of_class[classes], matrix.symbols])
        rows, cols = matrix.classes.live_offsets()
        magnitude = np.abs(np.arange(256, dtype=np.uint8).view(np.int8).astype(np.int16))
        least = np.where(self.rare, magnitude, 255).min(axis=1, initial=255).astype(np.uint8)[self.of_class]
        symbols, found = matrix.symbols.reshape(rows.size, cols.size), [np.empty(0, np.intp)]
        for row_class in np.unique(rows):
            classes = row_class + cols
            if (least[classes] == 255).all():
                continue
            members = np.flatnonzero(rows == row_class)
            block = symbols[members]
            row, col = np.nonzero(np.abs(block.view(np.int8)).view(np.uint8) >= least[classes])
            rare = self.rare[self.of_class[classes[col]], block[row, col]]
            found.append(members[row[rare]] * cols.size + col[rare])
        return np.concatenate(found)

    def bytes_of(self, matrix: CodedMatrix) -> float:
        """Compute the size of a matrix under these tables: symbols, low bits, escapes, classes and steps [B].

        The matrix may be another one than those that the tables were made for: a symbol that a table lacks counts as
        its rarest one, which is what it would cost to let it in.
        """
        classes, counts = matrix.class_counts
        used = counts > 0
        bits = float((counts[used] * self._costs[self.of_class[classes]][used]).sum())
        return (bits + matrix.side_bits) / 8 + matrix.low_bytes + 4 * matrix.escaped.size

    @cached_property
    def _costs(self) -> npt.NDArray[np.float64]:
        """Bits of each symbol under each table, `(tables, 256)`."""
        costs = np.log2(SLOTS / np.maximum(self.frequencies, 1))
        return np.where(self.rare, costs[:, [ESCAPE]] + _ESCAPED_BITS, costs)

    def pack(self, *, with_escape: bool, classes: int = 0) -> bytes:
        """Write the tables as a head holds them.

        Args:
            with_escape: whether the symbols are quantized integers, one of which is the escape.
            classes: fewest classes that there are to be; those beyond the last one used share its table.
        """
        more = max(0, classes - self.groups[-1].stop)
        out = [primitives.varint(self.groups[-1].stop + more)]
        for group, row in zip(self.groups, self.frequencies, strict=True):
            out.append(_packed_table(row, with_escape))
            out += [primitives.varint(0)] * (group.stop - group.start - 1)
        return b"".join([*out, *[primitives.varint(0)] * more])


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
        if gains[best] < 0 and len(groups) <= TABLES_MAX:
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


def _rare(counts: I64) -> npt.NDArray[np.bool_]:
    """Return which symbols to leave to the escape, `(256,)`: those that cost less there than a slot in the table does.

    Without it, the slots of rare symbols cost .3 to .7 % of the bytes of MiniLM-L6.

    Args:
        counts: number of symbols under a table, `(256,)`.
    """
    rare = np.zeros(256, np.bool_)
    order = np.argsort(counts, kind="stable")
    order = order[(counts[order] > 0) & (order != ESCAPE)]
    if order.size < 3:
        return rare
    # Candidates are the k rarest symbols, for each k. One with less than a slot gets a whole one, which all that have
    # more pay for in proportion.
    number, total = counts[order].astype(np.float64), float(counts.sum())
    small = number * SLOTS < total
    k = np.arange(order.size - 1)
    escaped = np.concatenate([[0.0], np.cumsum(number)])[k] + counts[ESCAPE]
    slots = np.where(escaped > 0, np.maximum(np.rint(escaped * (SLOTS / total)), 1), 0)
    listed = np.cumsum(small[::-1])[::-1][k]
    common = float(number[~small].sum())
    bits = escaped * (_ESCAPED_BITS + np.log2(SLOTS / np.maximum(slots, 1)))
    bits += np.log2(SLOTS) * np.cumsum((number * small)[::-1])[::-1][k]
    bits += np.log2(SLOTS / np.maximum(SLOTS - slots - listed, 1)) * common
    # What those that are large enough have among themselves is the same for each k up to the first of them.
    bits -= _TABLE_ENTRY_BITS * k
    k = k[: int(small.sum()) + 1]
    rare[order[: int(np.argmin(bits[k]))]] = True
    return rare


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
