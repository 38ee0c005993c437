"""Samples to train on: inputs and labels, checked, and what of them is held out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from seed_runtime.backends import Array, TensorSpec, array_type, expectation
from seed_runtime.data.calls import LABELS
from seed_runtime.errors import InputError, UnsupportedError

HELD_OUT: Final = 0.15
"""Share of the samples that is held out, of each class where labels are classes, and as much of the others chooses."""
Rows = npt.NDArray[np.int64]
"""Numbers of samples."""


@dataclass(frozen=True)
class Samples:
    """Samples along the first axis of each array.

    Attributes:
        inputs: by the model's names.
        labels: None where there are none.
        count: number of samples.
        batch_max: samples that the model takes at once; None for any number.
    """

    inputs: Mapping[str, Array]
    labels: Array | None
    count: int
    batch_max: int | None

    def digest(self) -> str:
        """Return the SHA-256 of all arrays with their names, types and shapes, in hexadecimal."""
        digest = hashlib.sha256()
        for name, array in sorted([*self.inputs.items(), *([] if self.labels is None else [(LABELS, self.labels)])]):
            digest.update(f"{name}:{array.dtype.str}{list(array.shape)}\n".encode())
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        return digest.hexdigest()

    def feeds(self, rows: Rows) -> dict[str, Array]:
        """Return inputs of some samples."""
        return {name: array[rows] for name, array in self.inputs.items()}


def check_samples(arrays: Mapping[str, Array], specs: Sequence[TensorSpec]) -> Samples:
    """Check arrays against the inputs of a model; integers are converted to its floats.

    Raises:
        InputError: they don't fit, or hold NaN or infinities.
        UnsupportedError: the model takes no batches.
    """
    given = dict(arrays)
    labels = given.pop(LABELS, None)
    unknown = sorted(given.keys() - {spec.name for spec in specs})
    if unknown or len(given) < len(specs):
        what = f"the model has no input {unknown[0]!r}" if unknown else "an input is missing"
        raise InputError(f"{what}; give {expectation(specs)}, samples first, and {LABELS!r}")
    if not specs:
        raise UnsupportedError("this model has no inputs, so there is nothing to train it on")
    if labels is not None and not labels.ndim:
        raise InputError(f"{LABELS!r} is a single {labels.dtype}; give one for each sample")
    inputs = {spec.name: _fitted(given[spec.name], spec) for spec in specs}
    counts = {name: len(array) for name, array in inputs.items()} | ({} if labels is None else {LABELS: len(labels)})
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise InputError(f"the arrays hold different numbers of samples: {listed}; give one row of each for a sample")
    if labels is not None and labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise InputError(f"{LABELS!r} holds NaN or infinities; clean the data")
    fixed = {spec.shape[0] for spec in specs if spec.shape and isinstance(spec.shape[0], int)}
    if fixed - {1}:
        raise UnsupportedError(
            f"this model takes batches of {max(fixed)} samples and no others; export it with a free first axis"
        )
    return Samples(inputs, labels, next(iter(counts.values())), 1 if fixed else None)


def _fitted(array: Array, spec: TensorSpec) -> Array:
    """Return an array in the input's type, with as many axes as it has."""
    if spec.shape is not None and array.ndim == len(spec.shape) + 1 and array.shape[1] == 1:
        array = array[:, 0]  # calls of one sample each
    shape = array.shape if spec.shape is None else spec.shape
    wanted = array_type(spec.dtype)
    fits = array.ndim == len(shape) and array.ndim > 0
    fits &= all(
        not isinstance(want, int) or want == size for want, size in zip(shape[1:], array.shape[1:], strict=False)
    )
    is_safe = array.dtype.kind in "biu" and wanted.kind == "f"
    if array.dtype.kind in "iu" and wanted.kind in "iu" and array.size:
        limits = np.iinfo(np.dtype(f"{wanted.kind}{wanted.itemsize}"))
        is_safe = limits.min <= int(array.min()) and int(array.max()) <= limits.max
    if not fits or not (is_safe or np.can_cast(array.dtype, wanted, "safe")):
        raise InputError(
            f"input {spec.name!r}: {spec} is expected, samples first, {array.dtype}{list(array.shape)} was given"
        )
    converted = np.ascontiguousarray(array.astype(wanted, copy=False))
    if converted.dtype.kind == "f" and not np.isfinite([converted.min(initial=0), converted.max(initial=0)]).all():
        raise InputError(f"input {spec.name!r} holds NaN or infinities; clean the data")
    return converted


@dataclass(frozen=True)
class Split:
    """What samples are for: rows of each kind, none in two.

    Attributes:
        train: to train on.
        validation: to choose the best values by: of eight strengths and dozens of looks, the best is lucky on these.
        held_out: to say what the best values are worth, and whether they are kept.
    """

    train: Rows
    validation: Rows
    held_out: Rows


def split(samples: Samples, classes: npt.NDArray[np.int64] | None, rng: np.random.Generator) -> Split:
    """Divide samples into those to train on, to choose by, and to be held out.

    Args:
        samples: all of them.
        classes: the class of each sample, of each of which some are held out; None to draw from all.
        rng: draws them.

    Raises:
        InputError: a class has one sample, which can't be trained on and held out, or none has three.
    """
    groups = [np.arange(samples.count)]
    if classes is not None:
        names, counts = np.unique(classes, return_counts=True)
        if (single := names[counts == 1]).size:
            listed = ", ".join(map(str, single[:5])) + (" and more" if single.size > 5 else "")
            raise InputError(
                f"of class {listed} there is one sample, and to train on one and to hold one out takes two; give more, "
                f"or leave the class out"
            )
        groups = [np.flatnonzero(classes == name) for name in names]
    parts: list[tuple[Rows, Rows, Rows]] = []
    for group in groups:
        order = rng.permutation(group)
        held = min(len(order) - 1, max(1, round(HELD_OUT * len(order))))
        chosen = held + min(len(order) - 1 - held, held)
        parts.append((order[chosen:], order[held:chosen], order[:held]))
    train, choose, held_out = (np.sort(np.concatenate(each)) for each in zip(*parts, strict=True))
    if not choose.size:
        raise InputError(
            "no class has three samples: one to train on, one to choose by and one to hold out; give more of each"
        )
    return Split(train, choose, held_out)
