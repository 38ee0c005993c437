"""Split sources, not samples: by a hash of a name, or of all names that share anything."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Mapping

import numpy as np


def draw(name: str, salt: str) -> int:
    """Return a 64-bit number that depends on the two words alone."""
    return int.from_bytes(hashlib.sha256(f"{salt}/{name}".encode()).digest()[:8], "big")


def held_out(name: str, salt: str, one_in: int) -> bool:
    """Return whether a source is held out: one in so many are, whatever others there are."""
    return draw(name, salt) % one_in == 0


def groups(marks: Mapping[str, Iterable[Hashable]]) -> dict[str, str]:
    """Join sources that share a mark, directly or through others.

    Args:
        marks: for each source what it must not share across a split: families of its fonts, say.

    Returns:
        The first name of its group for each source.
    """
    leader = {name: name for name in marks}

    def top(name: str) -> str:
        while leader[name] != name:
            leader[name] = leader[leader[name]]
            name = leader[name]
        return name

    owner: dict[Hashable, str] = {}
    for name in sorted(marks):
        for mark in marks[name]:
            other = top(owner.setdefault(mark, name))
            first, second = sorted((top(name), other))
            leader[second] = first
    return {name: top(name) for name in sorted(marks)}


def stratified(kinds: Mapping[str, str], salt: str, one_in: int) -> set[str]:
    """Return held-out groups: of each kind one in so many, and at least one where there are two.

    A hash alone could leave a rare script without a held-out font.

    Args:
        kinds: the kind of each group.
        salt: names the draw.
        one_in: every so many-th group of a kind is held out.
    """
    chosen: set[str] = set()
    for kind in sorted(set(kinds.values())):
        members = sorted((name for name in kinds if kinds[name] == kind), key=lambda name: draw(name, salt))
        chosen.update(members[: max(len(members) // one_in, int(len(members) > 1))])
    return chosen


def spread(ranks: np.ndarray, most: int) -> np.ndarray:
    """Choose at most so many items so that families take turns: all first styles before any second one.

    Args:
        ranks: `(n,)` the family of each item.
        most: items to keep.

    Returns:
        Indices in ascending order.
    """
    order = np.argsort(ranks, kind="stable")
    sorted_ranks = ranks[order]
    starts = np.flatnonzero(np.concatenate([[True], sorted_ranks[1:] != sorted_ranks[:-1]]))
    lengths = np.diff(np.concatenate([starts, [len(ranks)]]))
    turn = np.arange(len(ranks)) - np.repeat(starts, lengths)
    return np.sort(order[np.argsort(turn, kind="stable")[:most]])
