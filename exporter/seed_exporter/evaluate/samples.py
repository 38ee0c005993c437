"""Inputs of calls, divided: statistics are measured on most of them, outputs are judged on the others.

The judged ones are held in memory. The others are copied to the disk as they are read, so that any number of passes
over them takes the memory of one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Final, overload

import numpy as np
import numpy.typing as npt

from seed_runtime.backends import Array, Feeds, TensorSpec
from seed_runtime.data import stored
from seed_runtime.data.calls import LABELS, UNNAMED, Calls, bind
from seed_runtime.data.stored import ArrayReader, StoredArray
from seed_runtime.errors import InputError, SeedError

Run = Callable[[Feeds], Mapping[str, Array]]
"""Function that runs a model."""

CALLS_MAX: Final = 64
"""Most calls that outputs are judged on: their outputs are held at once."""
JUDGED_SHARE: Final = 0.25
"""Share of the calls that outputs are judged on and no statistic is measured on."""
JUDGED_LEAST: Final = 8
"""Number of calls that outputs are judged on where there are as many: a quarter of few calls misses whole kinds of
inputs. Of seven files one was judged, which Magika still named rightly at 28x, and archives no more."""
CALIBRATION_MAX: Final = 512
"""Most calls that statistics are measured on."""
CALIBRATION_BYTES_MAX: Final = 1 << 30
"""Most space on the disk for the calls that statistics are measured on, unless one alone needs more [B]."""
CALLS_ENOUGH: Final = 8
"""Number of calls below which a batch is divided into its samples, where the model takes them one by one."""
LABELS_MAX: Final = 64 << 20
"""Most bytes of labels, which are held at once [B]."""

_RNG_SEED: Final = 2
"""Random state of the division."""
_NO_BATCH: Final = ("seq", "len", "time", "step", "token", "frame")
"""Parts of names of first axes that don't count samples."""


class StoredFeeds(Sequence[Feeds]):
    """Feeds in a file, of which one is in memory at a time.

    Args:
        path: a new file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offsets: list[int] = []
        self._names: tuple[str, ...] = ()
        path.write_bytes(b"")

    def append(self, feeds: Feeds) -> None:
        """Write the feeds of one call, whose names are those of the others."""
        self._names = tuple(feeds)
        with self._path.open("ab") as file:
            self._offsets.append(file.tell())
            for array in feeds.values():
                np.lib.format.write_array(file, np.ascontiguousarray(array).reshape(array.shape), allow_pickle=False)

    def __len__(self) -> int:
        """Return the number of calls."""
        return len(self._offsets)

    @overload
    def __getitem__(self, index: int) -> Feeds: ...

    @overload
    def __getitem__(self, index: slice) -> list[Feeds]: ...

    def __getitem__(self, index: int | slice) -> Feeds | list[Feeds]:
        """Read the feeds of one call, or of several."""
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        with self._path.open("rb") as file:
            file.seek(self._offsets[index])
            return {name: np.lib.format.read_array(file, allow_pickle=False) for name in self._names}


@dataclass(frozen=True)
class Samples:
    """The calls of a data file, or generated ones.

    Attributes:
        judged: those that outputs are judged on; with less than 32 calls, some of the others are among them.
        calibration: those that statistics are measured on; the same where there is only one.
        call: feeds of the sizes that the file gives the model, where a batch was divided with repeated values; None
            for generated ones.
        note: sentence for the user on how many are used for what.
        labels: labels of the judged calls where the file has some; all where they can't be divided among the calls.
        calibration_labels: the same of `calibration`.
    """

    judged: Sequence[Feeds]
    calibration: Sequence[Feeds]
    call: Feeds | None
    note: str
    labels: Array | None = None
    calibration_labels: Array | None = None


def read_samples(
    path: Path,
    specs: Sequence[TensorSpec],
    optional: Sequence[TensorSpec],
    run: Run,
    check: Callable[[Feeds], None],
    folder: Path,
    most: int = CALIBRATION_MAX,
) -> Samples:
    """Read the calls that a data file makes of a model, as `seed-run --input` reads it, and divide them.

    Args:
        path: a data file.
        specs: the model's inputs.
        optional: its inputs that have a default.
        run: runs the model.
        check: raises InputError for feeds that don't fit.
        folder: where calls are stored.
        most: most calls that statistics are measured on.

    Raises:
        InputError: there is no such file, an input is missing or doesn't fit, or values are no numbers or infinite.
    """
    if path.is_dir():
        raise InputError(
            f"{path} is a folder; prepare its files as the model takes them and save them as one file: "
            f"numpy.savez('calib.npz', {specs[0].name if specs else 'x'}=array)"
        )
    with stored.open_arrays(str(path)) as arrays:
        calls = bind(arrays, specs, optional)
        whole = calls.shapes()
        if len(calls) < CALLS_ENOUGH and (rows := _one_by_one(arrays, calls, specs, optional, run)) is not None:
            calls = rows
        judged, measured = _divide(len(calls), _bytes_of(calls.shapes()), most)
        judged_calls: list[Feeds] = []
        calibration = StoredFeeds(folder / "calibration.npy")
        last = max(*judged, *measured)
        for number, call in enumerate(calls):
            if number in judged or number in measured:
                _check_values(f"{path}, call {number + 1}", call, check)
            if number in judged:
                judged_calls.append({name: array.copy() for name, array in call.items()})
            if number in measured:
                calibration.append(call)
            if number == last:
                break
        call = {name: np.broadcast_to(array, whole[name].shape) for name, array in judged_calls[0].items()}
        note = _note(len(calls), len(judged_calls), len(calibration))
        judged_labels, labels = (
            _labels(arrays, (*specs, *optional), len(calls), chosen) for chosen in (judged, measured)
        )
        return Samples(judged_calls, calibration, call, note, judged_labels, labels)


def spread(count: int, most: int, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """Choose at most `most` of `count` positions in order, one at random from each of as many equal ranges.

    At equal distances they would follow patterns such as the width of an image.
    """
    if count <= most:
        return np.arange(count)
    bounds = np.arange(most + 1) * count // most
    return bounds[:-1] + rng.integers(0, np.diff(bounds))


def _divide(count: int, size: int, most: int) -> tuple[set[int], set[int]]:
    """Choose the calls that outputs are judged on and those that statistics are measured on, of `size` bytes each."""
    if count == 1:
        return {0}, {0}
    rng = np.random.default_rng(_RNG_SEED)
    judged = spread(count, min(CALLS_MAX, max(1, int(count * JUDGED_SHARE))), rng)
    others = np.setdiff1d(np.arange(count), judged)
    most = min(most, max(1, CALIBRATION_BYTES_MAX // max(1, size)))
    measured = others[spread(len(others), most, rng)]
    if (missing := JUDGED_LEAST - len(judged)) > 0:
        judged = np.concatenate([judged, others[spread(len(others), missing, rng)]])
    return set(judged.tolist()), set(measured.tolist())


def _one_by_one(
    arrays: Sequence[StoredArray],
    calls: Calls,
    specs: Sequence[TensorSpec],
    optional: Sequence[TensorSpec],
    run: Run,
) -> Calls | None:
    """Return calls with one sample each in place of batches; None where the inputs have no batch in common."""
    known = {spec.name: spec for spec in (*specs, *optional)}
    single = specs[0] if len(specs) == 1 and len(arrays) == 1 and arrays[0].name in UNNAMED else None
    found = []
    for array in arrays:
        spec = single or known.get(array.name or "")
        if spec is None:
            continue
        if spec.shape is None or len(spec.shape) < 2 or not _counts_samples(spec.shape[0]):
            return None
        extra = len(array.shape) - len(spec.shape)
        shape = (prod(array.shape[: extra + 1]), 1, *array.shape[extra + 1 :])
        found.append(replace(array, name=spec.name, shape=shape))
    if not found or len({array.shape[0] for array in found}) > 1 or found[0].shape[0] <= len(calls):
        return None
    try:
        run(next(iter(bind(found, specs, optional))))
    except SeedError:
        return None
    return bind(found, specs, optional)


def _counts_samples(axis: int | str | None) -> bool:
    return not isinstance(axis, int) and not any(part in (axis or "").lower() for part in _NO_BATCH)


def _labels(arrays: Sequence[StoredArray], specs: Sequence[TensorSpec], count: int, chosen: set[int]) -> Array | None:
    """Read the labels of some calls, of `count` calls; None where the file has none."""
    found = next((array for array in arrays if array.name == LABELS), None)
    if found is None or any(spec.name == LABELS for spec in specs):
        return None
    if found.nbytes > LABELS_MAX:
        raise InputError(
            f"{found.where} takes {found.nbytes:,} bytes; save one integer for each decision, or leave it out"
        )
    labels = np.empty(found.shape[::-1] if found.is_fortran else found.shape, found.dtype)
    reader = ArrayReader(found)
    try:
        reader.read_into(labels)
    finally:
        reader.close()
    labels = labels.T if found.is_fortran else labels
    return labels if labels.size % count else labels.reshape(count, -1)[sorted(chosen)]


def _check_values(where: str, call: Feeds, check: Callable[[Feeds], None]) -> None:
    try:
        check(call)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    for name, array in call.items():
        if array.dtype.kind == "f" and array.size and np.isinf([array.min(), array.max()]).any():
            raise InputError(f"{where}: input {name!r} holds infinities; clean the data, or leave this call out")


def _bytes_of(feeds: Feeds) -> int:
    return sum(array.size * array.dtype.itemsize for array in feeds.values())


def _note(count: int, judged: int, measured: int) -> str:
    if count == 1:
        return (
            "one given input serves for the statistics and for the comparison, which flatters the seed; "
            "give more with --calib"
        )
    given = f"{count:,} given inputs"
    if judged + measured > count:
        judged_too = f"outputs were compared on {judged:,}, some of them the same"
        return f"of {given}, statistics are from {measured:,}, and {judged_too}"
    if judged + measured < count:
        return f"of {given}, statistics are from {measured:,}, and outputs were compared on {judged:,} others"
    return f"of {given}, statistics are from {measured:,}, and outputs were compared on the other {judged:,}"
