"""An open model: run it, and compare it with its golden sample."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

from seed_runtime import backends, golden
from seed_runtime.backends import Array, Feeds, TensorSpec
from seed_runtime.backends.tensors import made_in_place
from seed_runtime.backends.workers import Watch, time_limit
from seed_runtime.errors import InputError
from seed_runtime.memory.plan import Plan, SessionPlan
from seed_runtime.memory.process import peak_rss

OPENING_S: Final = 3600.0
"""Longest time that the backend may take to open a model [s]: it folds constants, and may read gigabytes from a slow
card."""


class Session:
    """An open model. Close it, or use it as a context manager: until then its cached files can't be removed."""

    def __init__(
        self,
        engine: backends.Backend,
        plan: SessionPlan,
        assembly: Plan,
        assembled: contextlib.AbstractContextManager[Path],
        golden_sample: bytes | None = None,
        watch: Watch | None = None,
    ) -> None:
        """Assemble the model and open it.

        Args:
            engine: what runs it.
            plan: mode, threads and the footprint that later inputs are checked against.
            assembly: plan of the assembly.
            assembled: gives the folder of the assembled model, and holds it until the session is closed.
            golden_sample: section GOLDEN of the seed, None where it holds none.
            watch: called about once a second while the backend opens the model, and during `verify`; what it raises
                ends them.
        """
        self.plan, self._golden, self._watch = plan, golden_sample, watch
        needs = (plan.needed_bytes, assembly.needed_bytes)
        self.needed_bytes = max(need for need in needs if need) if all(needs) else None
        """Peak memory that the process will stay below; None where it is not known [B]."""
        self._stack = contextlib.ExitStack()
        try:
            start = time.perf_counter()
            self.folder = self._stack.enter_context(assembled)
            self.assembly_seconds = time.perf_counter() - start
            """Time that the assembly took; near zero if the cache had the model [s]."""
            self.assembly_peak = peak_rss()
            """Peak memory of the process before the backend was loaded [B]."""
            start = time.perf_counter()
            self._runner = engine.open(
                self.folder, plan.mode, plan.threads, watch=time_limit(OPENING_S, "the backend opens it", watch)
            )
            self.opening_seconds = time.perf_counter() - start
            self._stack.callback(self._runner.close)
        except BaseException:
            self._stack.close()
            raise

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs that every run must give, in the model's order."""
        return self._runner.inputs

    @property
    def optional_inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs that have a default, which a run may give."""
        return self._runner.optional_inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Outputs of the model, in its own order."""
        return self._runner.outputs

    @property
    def metadata(self) -> dict[str, str]:
        """Texts that the model's maker gave programs, such as class names."""
        return self._runner.metadata

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """Run the model once and return all outputs by name.

        Raises:
            InputError: the feeds don't fit the model's inputs.
            MemoryBudgetError: they are larger than the session's limit of memory allows.
        """
        self.admit(feeds)
        return self._runner.run(feeds)

    def run_into(self, feeds: Feeds, into: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Run the model once, write some outputs into arrays, and return others by name.

        Args:
            feeds: arrays by the name of the input; none shares memory with those of `into`, except that a model which
                writes an output where it reads an input may get one array for both.
            into: an array in C order by the name of the output, of its type and exactly of its shape.
            outputs: names of those that are returned.

        Raises:
            InputError: the feeds don't fit the model's inputs, or an output has another shape than its array.
            MemoryBudgetError: they are larger than the session's limit of memory allows.
        """
        if isinstance(self._runner, backends.WritingRunner):
            self.admit(feeds, made=made_in_place(feeds, into))
            return self._runner.run_into(feeds, into, outputs)
        found = self.run(feeds)
        for name, array in into.items():
            if found[name].shape != array.shape:
                raise InputError(f"output {name!r} has the shape {list(found[name].shape)}, not {list(array.shape)}")
            array[...] = found[name]
        return {name: found[name] for name in outputs}

    def verify(self) -> golden.Verdict:
        """Run the golden sample and compare; `Verdict.present` is False where the seed holds none."""
        return golden.verify(self._golden, self._runner, self._watch)

    def close(self) -> None:
        """Free the backend's memory and the assembled folder. May be called twice."""
        self._stack.close()

    def admit(self, feeds: Feeds, beside: int = 0, made: Collection[str] = ()) -> None:
        """Check that feeds can be run: arrays that take no memory will do.

        Args:
            feeds: arrays by the name of the input.
            beside: memory that is held beside them and wasn't planned [B].
            made: names of those that the model makes itself, whose numbers aren't looked at.

        Raises:
            InputError: they don't fit the model's inputs.
            MemoryBudgetError: they are larger than the session's limit of memory allows.
        """
        if self.plan.footprint is not None:
            # Sizes are read of feeds that fit only; without a plan for them, the runner's own check is enough.
            self._runner.check(feeds, made)
            self.plan.admit(self.plan.footprint.dims(feeds), beside)

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # An error of the block counts, not one of flushing what it used.
        self._stack.__exit__(kind, error, trace)
