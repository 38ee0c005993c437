"""Interfaces of a backend, behind which a library runs models."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from seed_runtime.backends.tensors import Array, Feeds, TensorSpec
from seed_runtime.backends.workers import Watch
from seed_runtime.errors import UnsupportedError


class Runner(Protocol):
    """An open model. It holds the backend's memory until `close`, which ends runs and may be called twice."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs that every run must give, in the model's order."""
        ...

    @property
    def optional_inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs that have a default, which a run may give."""
        ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Outputs of the model, in its own order."""
        ...

    @property
    def metadata(self) -> dict[str, str]:
        """Texts that the model's maker gave programs, by key."""
        ...

    def check(self, feeds: Feeds, made: Collection[str] = ()) -> None:
        """Raise InputError for feeds that can't be used, as `run` does before it runs the model.

        Args:
            feeds: arrays by the name of the input.
            made: names of those that the model makes itself, whose numbers aren't looked at.
        """
        ...

    def run(
        self, feeds: Feeds, outputs: Sequence[str] | None = None, *, watch: Watch | None = None
    ) -> dict[str, Array]:
        """Check the feeds, run the model once, and return outputs by name.

        An exception of a signal, or of `watch`, ends the run.

        Args:
            feeds: arrays by the name of the input.
            outputs: names of the outputs that are wanted, None for all.
            watch: called about once a second meanwhile.

        Raises:
            InputError: the feeds can't be used.
            UnsupportedError: the backend can't run the model.
        """
        ...

    def close(self) -> None:
        """End what runs, and free the backend's memory."""
        ...


@runtime_checkable
class WritingRunner(Protocol):
    """A runner that can write outputs into arrays of its caller, so that none is made and copied."""

    def run_into(self, feeds: Feeds, into: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Run the model once as `Runner.run` does, and write some of its outputs into arrays.

        Args:
            feeds: arrays by the name of the input; none shares memory with those of `into`, except that a model which
                writes an output where it reads an input may get one array for both.
            into: an array in C order by the name of the output, of its type and exactly of its shape.
            outputs: names of those that are returned beside them.

        Raises:
            InputError: the feeds can't be used, or an output has another shape than its array.
            UnsupportedError: the backend can't run the model.
        """
        ...


class Backend(Protocol):
    """A library that can run assembled models."""

    @property
    def name(self) -> str:
        """Name of the backend in the registry."""
        ...

    @property
    def modes(self) -> tuple[str, ...]:
        """Named settings, the fastest first and the one with the least memory last."""
        ...

    @property
    def quick_modes(self) -> tuple[str, ...]:
        """The same settings, the one first that opens a model and answers once in the least time."""
        ...

    def available(self) -> bool:
        """Return whether the library is installed; nothing is imported to find out."""
        ...

    def import_bytes(self) -> int:
        """Return what importing the library will still add to the process [B]; 0 once it was imported."""
        ...

    def load(self) -> None:
        """Import the library, which `open` does by itself.

        Raises:
            UnsupportedError: it is missing.
        """
        ...

    def version(self) -> str:
        """Import the library, and return its version.

        Raises:
            UnsupportedError: it is missing.
        """
        ...

    def open(self, folder: Path, mode: str, threads: int | None = None, *, watch: Watch | None = None) -> Runner:
        """Open the model assembled in `folder`.

        An exception of a signal, or of `watch`, ends it.

        Args:
            folder: an assembled model.
            mode: one of `modes`.
            threads: None for one per usable core.
            watch: called about once a second meanwhile.

        Raises:
            UnsupportedError: the library is missing or can't take the model.
        """
        ...

    def open_joined(
        self,
        model: bytes,
        folder: Path,
        threads: int | None = None,
        *,
        reuse_memory: bool = False,
        watch: Watch | None = None,
    ) -> Runner:
        """Open a model from memory whose weights are those of the one assembled in `folder`.

        Args:
            model: a skeleton, with more of its graph behind it.
            folder: an assembled model.
            threads: None for one per usable core.
            reuse_memory: keep the memory of a run for the next one, which is faster; else runs take the least memory.
            watch: called about once a second meanwhile.

        Raises:
            UnsupportedError: the library is missing or can't take the model.
        """
        ...


def model_path(folder: Path, file: str, mode: str, modes: Collection[str]) -> Path:
    """Return the path of the model assembled in a folder.

    Raises:
        ValueError: the backend doesn't have this mode.
        UnsupportedError: there is no such model.
    """
    if mode not in modes:
        raise ValueError(f"mode is {mode!r}; use one of {', '.join(modes)}")
    model = Path(folder) / file
    if not model.is_file():
        raise UnsupportedError(f"{model} does not exist; make it with: seed-run model.seed --assemble {folder}")
    return model


def usable_cores() -> int:
    """Return how many cores this process may use: fewer than the machine has in a container or under taskset."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
