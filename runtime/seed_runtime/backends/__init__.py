"""What runs an assembled model, behind one small interface.

A backend is one file here and one line in `_MODULES`. Its module makes one `BACKEND`, and imports the
library that does the work only when a runner is opened: the plan, the checks and the assembly need none.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from seed_runtime.backends.workers import Watch
from seed_runtime.errors import InputError, UnsupportedError

Array = NDArray[Any]
Feeds = Mapping[str, Array]
Dims = dict[str, int]

_MODULES = {
    "onnxruntime": "seed_runtime.backends.onnxruntime",
}


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a model.

    `shape` has an int for a fixed dimension, a name for one that is free (the same name means the same
    size), and None for one that is free and unnamed. `dtype` is a name of format/dtypes.py.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join('?' if d is None else str(d) for d in self.shape)}]"


class Runner(Protocol):
    """An open model. It holds the backend's memory until `close`, which ends runs and may be called twice."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...

    def run(
        self, feeds: Feeds, outputs: Sequence[str] | None = None, *, watch: Watch | None = None
    ) -> dict[str, Array]:
        """Check the feeds, run the model once, and return the outputs asked for (None: all), by name.

        An exception of a signal, or of `watch`, ends the run.
        Raises InputError where the feeds can't be used, UnsupportedError where the backend gives up.
        """
        ...

    def close(self) -> None: ...


class Backend(Protocol):
    """A library that can run assembled models."""

    @property
    def name(self) -> str: ...

    @property
    def modes(self) -> tuple[str, ...]:
        """Named settings, the fastest first and the one with the least memory last."""
        ...

    def available(self) -> bool:
        """Whether the library is installed; nothing is imported to find out."""
        ...

    def import_bytes(self) -> int:
        """What importing the library will still add to the process, 0 once it was imported [B]."""
        ...

    def load(self) -> None:
        """Import the library; UnsupportedError where it is missing. `open` does it by itself."""
        ...

    def open(self, folder: Path, mode: str, threads: int | None = None, *, watch: Watch | None = None) -> Runner:
        """Open the model assembled in `folder`. `threads` None: one per usable core.

        An exception of a signal, or of `watch`, ends it.
        Raises UnsupportedError where the library is missing or can't take the model.
        """
        ...


def get(name: str = "onnxruntime") -> Backend:
    """The backend of that name. UnsupportedError where this runtime knows none."""
    if name not in _MODULES:
        raise UnsupportedError(f"no backend is called {name!r}; use one of {', '.join(_MODULES)}")
    backend: Backend = importlib.import_module(_MODULES[name]).BACKEND
    return backend


def usable_cores() -> int:
    """Cores that this process may use: fewer than the machine has inside a container or under taskset."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_axes(inputs: Sequence[TensorSpec]) -> tuple[tuple[str, int], ...]:
    """Input and axis where each free dimension is seen first, in the model's order."""
    seen: set[str] = set()
    axes = []
    for spec in inputs:
        for axis, size in enumerate(spec.shape):
            if isinstance(size, int) or size in seen:
                continue
            if size is not None:
                seen.add(size)
            axes.append((spec.name, axis))
    return tuple(axes)


def dims_of(axes: Sequence[tuple[str, int]], feeds: Feeds) -> Dims:
    """The sizes that these feeds give to free dimensions, for the plan, under keys like "input_ids:1".

    Needs no open model. InputError where an input or its axis is missing.
    """
    dims: Dims = {}
    for name, axis in axes:
        if name not in feeds:
            raise InputError(f"input {name!r} is missing; the model needs it")
        shape = np.shape(feeds[name])
        if axis >= len(shape):
            raise InputError(f"input {name!r} needs more than {axis} axes, its shape is {list(shape)}")
        dims[f"{name}:{axis}"] = shape[axis]
    return dims


def check_feeds(inputs: Sequence[TensorSpec], feeds: Feeds) -> None:
    """InputError that says what was expected and what was given, unless the feeds fit the inputs.

    Names, dtypes, ranks, fixed sizes, free sizes that share a name, and no NaN in floats. Nothing is
    converted: a silent cast would hide that the data was prepared for another model.
    """
    expected = ", ".join(map(str, inputs))
    for name in feeds:
        if all(name != spec.name for spec in inputs):
            raise InputError(f"the model has no input {name!r}; it expects {expected}")
    sizes: dict[str, tuple[int, str]] = {}
    for spec in inputs:
        if spec.name not in feeds:
            raise InputError(f"input {spec.name!r} is missing; the model expects {expected}")
        _check_array(spec, feeds[spec.name], sizes)


def _check_array(spec: TensorSpec, array: Array, sizes: dict[str, tuple[int, str]]) -> None:
    if not isinstance(array, np.ndarray):
        raise InputError(f"input {spec.name!r}: {spec} is expected, not a {type(array).__name__}")
    given = f"{array.dtype}{list(array.shape)}"
    if array.dtype.newbyteorder("=").name != spec.dtype:
        raise InputError(
            f"input {spec.name!r}: {spec} is expected, {given} was given; convert it with .astype('{spec.dtype}')"
        )
    if array.ndim != len(spec.shape):
        raise InputError(f"input {spec.name!r}: {spec} is expected, {given} was given")
    for axis, (want, size) in enumerate(zip(spec.shape, array.shape, strict=True)):
        if isinstance(want, int) and size != want:
            raise InputError(f"input {spec.name!r}: {spec} is expected, {given} was given: axis {axis} must be {want}")
        if size < 1:
            raise InputError(f"input {spec.name!r}: {spec} is expected, {given} was given, which is empty")
        if isinstance(want, str):
            first, where = sizes.setdefault(want, (size, spec.name))
            if size != first:
                raise InputError(
                    f"input {spec.name!r}: {want!r} is {size} here and {first} in {where!r}; "
                    f"{spec} is expected, {given} was given"
                )
    # min() carries a NaN through and needs no array of flags, which isnan() would allocate.
    if array.dtype.kind == "f" and np.isnan(array.min()):
        raise InputError(f"input {spec.name!r} holds NaN; clean the data first")
