"""Samples to train on: inputs and labels, checked, and what of them is held out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from seed_runtime.backends import Array, TensorSpec, array_type, expectation
from seed_runtime.data.calls import LABELS
from seed_runtime.data.rows import ArrayRows, RowSource, as_rows
from seed_runtime.errors import InputError, UnsupportedError

HELD_OUT: Final = 0.15
"""Share of the samples that is held out, of each class where labels are classes, and as much of the others chooses."""
Rows = npt.NDArray[np.int64]
"""Numbers of samples."""


class Digest(Protocol):
    """A hash that grows."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Add bytes."""
        ...


class InputRows:
    """One input of a model for all samples, read when it is needed.

    Args:
        source: as it is stored.
        dtype: of the input.
        is_nested: whether each row is a batch of one sample.
    """

    def __init__(self, source: RowSource, dtype: np.dtype[Any], *, is_nested: bool = False) -> None:
        self._source, self.dtype, self._is_nested = source, dtype, is_nested

    def __len__(self) -> int:
        return self._source.shape[0]

    def read(self, rows: Rows) -> Array:
        """Return some samples in the input's type."""
        found = self._source.read(rows)
        return np.ascontiguousarray(found[:, 0] if self._is_nested else found, self.dtype)


@dataclass(frozen=True)
class Samples:
    """Samples along the first axis of each array.

    Attributes:
        inputs: by the model's names.
        labels: None where there are none.
        count: number of samples.
        batch_max: samples that the model takes at once; None for any number.
        digest: SHA-256 of all arrays with their names, types and shapes, in hexadecimal.
    """

    inputs: Mapping[str, InputRows]
    labels: Array | None
    count: int
    batch_max: int | None
    digest: str

    def feeds(self, rows: Rows) -> dict[str, Array]:
        """Return inputs of some samples."""
        return {name: each.read(rows) for name, each in self.inputs.items()}


def check_samples(arrays: Mapping[str, Array | RowSource], specs: Sequence[TensorSpec]) -> Samples:
    """Check arrays against the inputs of a model: each is read once, in blocks.

    Raises:
        InputError: they don't fit, or hold NaN or infinities.
        UnsupportedError: the model takes no batches.
    """
    given = dict(arrays)
    labels = given.pop(LABELS, None)
    if labels is not None and not isinstance(labels, np.ndarray):
        labels = labels.read(np.arange(labels.shape[0]))
    unknown = sorted(given.keys() - {spec.name for spec in specs})
    if unknown or len(given) < len(specs):
        what = f"the model has no input {unknown[0]!r}" if unknown else "an input is missing"
        raise InputError(f"{what}; give {expectation(specs)}, samples first, and {LABELS!r}")
    if not specs:
        raise UnsupportedError("this model has no inputs, so there is nothing to train it on")
    if labels is not None and not labels.ndim:
        raise InputError(f"{LABELS!r} is a single {labels.dtype}; give one for each sample")
    digest, sources = hashlib.sha256(), as_rows(given)
    inputs = {spec.name: _fitted(sources[spec.name], spec) for spec in specs}
    counts = {name: len(each) for name, each in inputs.items()} | ({} if labels is None else {LABELS: len(labels)})
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
    for spec in specs:
        _scan(spec.name, sources[spec.name], inputs[spec.name].dtype, digest)
    if labels is not None:
        _scan(LABELS, ArrayRows(labels), labels.dtype, digest)
    return Samples(inputs, labels, next(iter(counts.values())), 1 if fixed else None, digest.hexdigest())


def _fitted(source: RowSource, spec: TensorSpec) -> InputRows:
    """Return an input with as many axes as the model's, whose type every value of the source fits as far as it says."""
    given = source.shape
    is_nested = spec.shape is not None and len(given) == len(spec.shape) + 1 and given[1] == 1
    sample = given[2:] if is_nested else given[1:]  # calls of one sample each
    shape = (None, *sample) if spec.shape is None else spec.shape
    fits = len(given) > 0 and len(shape) == len(sample) + 1
    fits &= all(not isinstance(want, int) or want == size for want, size in zip(shape[1:], sample, strict=False))
    wanted = array_type(spec.dtype)
    is_number = source.dtype.kind in "biu"
    # Integers whose range is wider are compared value by value.
    is_safe = is_number and wanted.kind in ("f" if source.dtype.kind == "b" else "fiu")
    if fits and source.dtype.kind == wanted.kind == "f" and source.dtype.itemsize > wanted.itemsize:
        raise InputError(
            f"input {spec.name!r} is {source.dtype}, and the model takes {spec.dtype}; convert it with "
            f".astype(np.{wanted.name})"
        )
    if not fits or not (is_safe or np.can_cast(source.dtype, wanted, "safe")):
        raise _unfit(source, spec)
    return InputRows(source, wanted, is_nested=is_nested)


def _scan(name: str, source: RowSource, wanted: np.dtype[Any], digest: Digest) -> None:
    """Read all elements once: add them to a digest, and raise InputError for those that the input can't be."""
    digest.update(f"{name}:{source.dtype.str}{list(source.shape)}\n".encode())
    limits = np.iinfo(np.dtype(f"{wanted.kind}{wanted.itemsize}")) if wanted.kind in "iu" else None
    for block in source.blocks():
        digest.update(np.ascontiguousarray(block).view(np.uint8).data)
        if limits is not None and not limits.min <= int(block.min()) <= int(block.max()) <= limits.max:
            raise InputError(f"input {name!r} holds {int(block.min())} to {int(block.max())}, which {wanted} can't be")
        if wanted.kind == "f" and not np.isfinite(block.astype(wanted, copy=False)).all():
            raise InputError(f"input {name!r} holds NaN or infinities; clean the data")


def _unfit(source: RowSource, spec: TensorSpec) -> InputError:
    given = f"{source.dtype}{list(source.shape)}"
    return InputError(f"input {spec.name!r}: {spec} is expected, samples first, {given} was given")


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
