"""Inputs and outputs of a model as arrays: their description, and the check of feeds."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seed_runtime.backends.dimension_names import is_unknown
from seed_runtime.errors import InputError

Array = NDArray[Any]
Feeds = Mapping[str, Array]
"""Arrays by the name of the input."""
Shape = tuple[int | str | None, ...]


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a model."""

    name: str
    dtype: str
    """A name of format/dtypes.py; arrays of "string" have NumPy's type `str_`, or hold objects of Python's `str`."""
    shape: Shape | None
    """An int for a fixed dimension, a name for one that is free (the same name means the same size), None for one
    that is free and unnamed. None in place of all where not even the number of axes is stated: any will do."""

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.name}: {self.dtype}[any shape]"
        return f"{self.name}: {self.dtype}[{', '.join('?' if d is None else str(d) for d in self.shape)}]"


def shape_of(dims: Sequence[int | str | None] | None) -> Shape | None:
    """Return dimensions as `TensorSpec.shape` has them."""
    if dims is None:
        return None
    return tuple(None if isinstance(dim, str) and is_unknown(dim) else dim for dim in dims)


def check_feeds(
    inputs: Sequence[TensorSpec],
    feeds: Feeds,
    optional: Sequence[TensorSpec] = (),
    takes_missing: Callable[[], bool] = lambda: False,
    made: Collection[str] = (),
) -> None:
    """Check names, dtypes, ranks, fixed sizes, free sizes that share a name, and that no float is NaN.

    Nothing is converted: a silent cast would hide that the data was prepared for another model. A free size may be 0.

    Args:
        inputs: inputs that must be given.
        feeds: what is given.
        optional: inputs that may be given.
        takes_missing: says whether the model takes NaN for a missing value; called where one is found.
        made: names of feeds that the model makes itself: their numbers aren't looked at.

    Raises:
        InputError: the feeds don't fit the inputs; it says what was expected and what was given.
    """
    known = {spec.name for spec in (*inputs, *optional)}
    for name in feeds:
        if name not in known:
            raise InputError(f"the model has no input {name!r}; it expects {expectation(inputs, optional)}")
    sizes: dict[str, tuple[int, str]] = {}
    for spec in inputs:
        if spec.name not in feeds:
            raise InputError(f"input {spec.name!r} is missing; the model expects {expectation(inputs, optional)}")
    for spec in (*inputs, *optional):
        if spec.name in feeds:
            _check_array(spec, feeds[spec.name], sizes)
    for name, array in feeds.items():
        # min() carries a NaN through and needs no array of flags, which isnan() would allocate.
        is_checked = array.dtype.kind == "f" and array.size and name not in made
        if is_checked and np.isnan(_without_repeats(array).min()) and not takes_missing():
            raise InputError(
                f"input {name!r} holds NaN, and no operator of the model takes NaN for a missing value; clean the "
                f"data, or export the model with an Imputer in front"
            )


def made_in_place(feeds: Feeds, into: Mapping[str, Array]) -> frozenset[str]:
    """Return the names of feeds that an output is written into."""
    written = {id(array) for array in into.values()}
    return frozenset(name for name, array in feeds.items() if id(array) in written)


def expectation(inputs: Sequence[TensorSpec], optional: Sequence[TensorSpec] = ()) -> str:
    """Write what a model takes, for messages."""
    return ", ".join([*map(str, inputs), *(f"optionally {spec}" for spec in optional)]) or "no input"


def _check_array(spec: TensorSpec, array: Array, sizes: dict[str, tuple[int, str]]) -> None:
    if not isinstance(array, np.ndarray):
        raise InputError(f"input {spec.name!r}: {spec} is expected, not a {type(array).__name__}")
    if spec.dtype == "string":
        _check_text(spec, array)
    elif _name_of(array.dtype) != spec.dtype:
        raise InputError(
            f"input {spec.name!r}: {spec} is expected, {_written(array)} was given; "
            f"convert it with .astype('{spec.dtype}')"
        )
    shape = array.shape if spec.shape is None else spec.shape
    if array.ndim != len(shape):
        raise InputError(f"input {spec.name!r}: {spec} is expected, {_written(array)} was given")
    for axis, (want, size) in enumerate(zip(shape, array.shape, strict=True)):
        if isinstance(want, int) and size != want:
            raise InputError(
                f"input {spec.name!r}: {spec} is expected, {_written(array)} was given: axis {axis} must be {want}"
            )
        if isinstance(want, str):
            first, where = sizes.setdefault(want, (size, spec.name))
            if size != first:
                raise InputError(
                    f"input {spec.name!r}: {want!r} is {size} here and {first} in {where!r}; "
                    f"{spec} is expected, {_written(array)} was given"
                )


def _without_repeats(array: Array) -> Array:
    # Plans of texts have arrays of one number, which for thousands of tokens took .25 s to look at as float16.
    return array if any(array.strides) else array[(slice(1),) * array.ndim]


@functools.lru_cache(64)
def _name_of(dtype: np.dtype[Any]) -> str:
    # NumPy makes the text anew each time, which took .5 ms of each of SmolLM2's tokens.
    return dtype.newbyteorder("=").name


def _written(array: Array) -> str:
    return f"{array.dtype}{list(array.shape)}"


def _check_text(spec: TensorSpec, array: Array) -> None:
    if array.dtype.kind == "U" or (array.dtype.kind == "O" and all(isinstance(item, str) for item in array.flat)):
        return
    raise InputError(
        f"input {spec.name!r}: {spec} is expected, {array.dtype}{list(array.shape)} was given; "
        f"convert it with .astype(str), or decode it with numpy.char.decode"
    )
