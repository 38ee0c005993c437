"""What a checkpoint of a healing holds: states of the student, and those from which dead channels were cut.

A state after a cut has other shapes. It is restored by cutting the same again: from integers, of which few aren't 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from seed_exporter.codecs.base import Plan
from seed_exporter.heal.cuts import CutDead
from seed_exporter.heal.student_graph import StudentGraph
from seed_runtime.errors import InputError

Snapshot = Mapping[str, np.ndarray]

_PLACES, _VALUES, _SHAPE = "@places", "@values", "@shape"
_SPARSE_LEAST: Final = 4096
"""Elements from which an array is stored by its elements that aren't 0, where these are few."""
_CUT: Final = "cut"


def arrays_of(last: Snapshot, best: Snapshot, before_cuts: Sequence[Snapshot]) -> dict[str, np.ndarray]:
    """Return the arrays of a checkpoint.

    Args:
        last: of the state that is gone on from.
        best: of the best one; empty where there is none.
        before_cuts: of those that were cut, the first one first.
    """
    states = {"last": last, "best": best} | {f"{_CUT}{number}": each for number, each in enumerate(before_cuts)}
    found: dict[str, np.ndarray] = {}
    for name, held in states.items():
        for key, array in held.items():
            found |= {f"{name}/{part}": each for part, each in _stored(key, array)}
    return found


def before_cuts_of(arrays: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """Return the states of a checkpoint that were cut."""
    found: list[dict[str, np.ndarray]] = []
    while held := state_of(arrays, f"{_CUT}{len(found)}"):
        found.append(held)
    return found


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
            array.reshape(-1)[stored[key + _PLACES]] = stored[key + _VALUES]
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
    student: StudentGraph, before_cuts: Iterable[Snapshot], others: Mapping[str, Plan], cut_dead: CutDead
) -> Mapping[str, Plan]:
    """Cut a student as it was cut before; return the plans of the weights that aren't trained.

    Raises:
        InputError: there is nothing dead in such a state: it is of another graph.
    """
    for snapshot in before_cuts:
        restore(student, snapshot)
        cut = student.cut(others, cut_dead)
        if cut is None:
            raise _unusable("nothing is dead where something was")
        others = cut.plans
    return others


def _stored(key: str, array: np.ndarray) -> list[tuple[str, np.ndarray]]:
    places = np.flatnonzero(array) if array.size >= _SPARSE_LEAST and array.dtype == np.float32 else None
    if places is None or 4 * len(places) > array.size:
        return [(key, array)]
    parts = {
        _PLACES: places.astype(np.uint32), _VALUES: array.reshape(-1)[places], _SHAPE: np.array(array.shape, np.int64)
    }  # fmt: skip
    return [(key + part, each) for part, each in parts.items()]


def _unusable(why: object) -> InputError:
    return InputError(f"the checkpoint of --resume can't be used: {why}; remove it")
