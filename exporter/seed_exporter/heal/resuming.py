"""What a checkpoint of a healing holds: states of the student, and those from which dead channels were cut.

A state after a cut has other shapes. It is restored by cutting the same again: from integers, of which few aren't 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from seed_exporter.codecs.base import Plan
from seed_exporter.heal.cuts import CutDead
from seed_exporter.heal.student_graph import StudentGraph
from seed_runtime.errors import InputError

Snapshot = Mapping[str, np.ndarray]

_MASK, _VALUES, _SHAPE = "@mask", "@values", "@shape"
_SPARSE_LEAST: Final = 4096
"""Elements from which an array is stored by a bit each and its elements that aren't 0, where these are few."""
LAST: Final = "last"
BEST: Final = "best"
CUT: Final = "cut"


def arrays_of(last: Snapshot, best: Snapshot, before_cuts: Sequence[Snapshot]) -> dict[str, np.ndarray]:
    """Return the arrays of a checkpoint.

    Args:
        last: of the state that is gone on from.
        best: of the best one, matrices rounded; empty where there is none.
        before_cuts: of those that were cut, the first one first.
    """
    states = {LAST: last, BEST: best} | {f"{CUT}{number}": each for number, each in enumerate(before_cuts)}
    found: dict[str, np.ndarray] = {}
    for name, held in states.items():
        for key, array in held.items():
            found |= {f"{name}/{part}": each for part, each in _stored(key, array)}
    return found


def before_cuts_of(arrays: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """Return the states of a checkpoint that were cut."""
    found: list[dict[str, np.ndarray]] = []
    while held := state_of(arrays, f"{CUT}{len(found)}"):
        found.append(held)
    return found


def in_order(arrays: Mapping[str, np.ndarray], best_cuts: int | None) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Yield the states of a checkpoint in the order in which a new student can take their shapes.

    Args:
        arrays: of the checkpoint.
        best_cuts: cuts that were before its best state; None for all of them.

    Yields:
        What a state is, BEST, CUT (it was cut then) or LAST; and its arrays.
    """
    before = before_cuts_of(arrays)
    states = [(CUT, held) for held in before]
    if best := state_of(arrays, BEST):
        states.insert(len(before) if best_cuts is None else best_cuts, (BEST, best))
    yield from states
    yield LAST, state_of(arrays, LAST)


def state_of(arrays: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """Return one state of a checkpoint; empty where it isn't there.

    Raises:
        InputError: it is damaged.
    """
    stored = {key.removeprefix(f"{name}/"): each for key, each in arrays.items() if key.startswith(f"{name}/")}
    found = {key: each for key, each in stored.items() if "@" not in key}
    try:
        for key in [key.removesuffix(_SHAPE) for key in stored if key.endswith(_SHAPE)]:
            array = np.zeros(tuple(stored[key + _SHAPE].tolist()), np.float32)
            mask = np.unpackbits(stored[key + _MASK], count=array.size).astype(bool)
            array.reshape(-1)[mask] = stored[key + _VALUES]
            found[key] = array
    except (KeyError, IndexError, ValueError) as error:
        raise _unusable(error) from None
    return found


def restore(student: StudentGraph, snapshot: Snapshot) -> None:
    """Bring a student to a state.

    Raises:
        InputError: it is of another graph.
    """
    try:
        student.restore(snapshot)
    except (ValueError, KeyError) as error:
        raise _unusable(error) from None


def cut_again(
    student: StudentGraph, before: Snapshot, others: Mapping[str, Plan], cut_dead: CutDead
) -> Mapping[str, Plan]:
    """Cut a student as it was cut in a state before; return the plans of the weights that aren't trained.

    Raises:
        InputError: there is nothing dead in that state: it is of another graph.
    """
    restore(student, before)
    cut = student.cut(others, cut_dead)
    if cut is None:
        raise _unusable("nothing is dead where something was")
    return cut.plans


def _stored(key: str, array: np.ndarray) -> list[tuple[str, np.ndarray]]:
    flat = array.reshape(-1)
    mask = flat != 0 if array.size >= _SPARSE_LEAST and array.dtype == np.float32 else None
    if mask is None or 2 * np.count_nonzero(mask) > array.size:
        return [(key, array)]
    parts = {_MASK: np.packbits(mask), _VALUES: flat[mask], _SHAPE: np.array(array.shape, np.int64)}
    return [(key + part, each) for part, each in parts.items()]


def _unusable(why: object) -> InputError:
    return InputError(f"the checkpoint of --resume can't be used: {why}; remove it")
