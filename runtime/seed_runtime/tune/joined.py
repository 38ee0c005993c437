"""The model of a seed joined to its training graph: sessions for what each tier needs, and the weights as they are."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from seed_runtime import backends
from seed_runtime.backends import Array, Feeds, Runner
from seed_runtime.backends.workers import time_limit
from seed_runtime.codecs import BaseWeights
from seed_runtime.errors import SeedError, UnsupportedError
from seed_runtime.format.dtypes import BY_NAME
from seed_runtime.golden import RUN_S, Golden, with_outputs
from seed_runtime.seed import Seed
from seed_runtime.skeletons.onnx_selection import select
from seed_runtime.skeletons.training import TARGET, Statistic, TrainedTensor
from seed_runtime.tune.outputs import Outputs
from seed_runtime.tune.records import FULL, HEAD, SMALL
from seed_runtime.tune.samples import Rows, Samples

Watch = Callable[[], None]
_LEVEL_OF = {HEAD: 0, SMALL: 1, FULL: 2}
"""Index in `LEVELS` of the largest set that a tier trains."""


class JoinedModel:
    """A model and its training graph. What tiers have learned so far is in `values`, and fed to every run.

    Args:
        seed: with a training graph.
        folder: of the assembled model.
        weights: of the seed.
        samples: what is run.
        threads: of the backend; None for one per core.
        reuse_memory: whether memory of one run may be kept for the next one, as there is no limit.
        watch: called about once a second while the backend works; what it raises ends that.

    Raises:
        FormatError: the training graph is none that belongs to the model.
        UnsupportedError: the seed has none.
    """

    def __init__(
        self,
        seed: Seed,
        folder: Path,
        weights: BaseWeights,
        samples: Samples,
        threads: int | None,
        reuse_memory: bool,
        watch: Watch,
    ) -> None:
        self._skeleton, self._part = bytes(seed.skeleton_bytes()), seed.training_graph()
        self.info = seed.training_info()
        self.samples, self._folder, self._weights = samples, folder, weights
        self._holes, self._threads, self._watch = seed.header.holes, threads, watch
        self._reuse_memory, self._inputs = reuse_memory, seed.inputs()
        self.values: dict[str, Array] = {}
        """New values of tensors by their names."""
        code = BY_NAME["float32"].code
        outputs = [
            each for each in seed.skeleton().outputs if each.elem_type == code and each.dims and each.form == "tensor"
        ]
        if not outputs:
            raise UnsupportedError(f"{seed.name} has no output of float32 that its training graph could compare")
        self.output = outputs[0].name
        """The output that is compared."""
        self.outputs = Outputs(self.info, seed.header.holes, self.output)
        self._backend = backends.get(seed.kind.backend)
        self.backend_version = self._backend.version()

    @property
    def hole_of(self) -> dict[str, int]:
        """Holes of all tensors that can change, by their names."""
        trained = {each.name: each.hole for each in self.info.tensors}
        return trained | {each.name: each.hole for each in self.statistics}

    @property
    def statistics(self) -> list[Statistic]:
        """Mean and variance of each batch norm in turn."""
        return [each for pair in self.info.norms for each in pair]

    def dims_of(self, hole: int) -> tuple[int, ...]:
        """Return the dimensions of a tensor."""
        return self._holes[hole].dims

    def tensors_of(self, tier: str) -> list[TrainedTensor]:
        """Return the tensors that a tier trains by gradients."""
        return [each for each in self.info.tensors if each.level <= _LEVEL_OF[tier]]

    def stored(self, name: str) -> Array:
        """Return a copy of a tensor as it is now: learned, or as the seed has it."""
        return self.values[name].copy() if name in self.values else self.untrained(name)

    def untrained(self, name: str) -> Array:
        """Return a copy of a tensor as the seed has it."""
        number = self.hole_of[name]
        hole = self._holes[number]
        return self._weights.read(number, 0, hole.count).reshape(hole.dims).astype(np.float32, copy=False)

    def run_golden(self, golden: Golden, notice: Callable[[str], None]) -> bytes | None:
        """Return section GOLDEN of what tiers have learned so far, from the seed's own; None where it can't be made."""
        part, watch = select(self._part, (), self.values), time_limit(RUN_S, "its golden sample runs", None)
        try:
            runner = self._backend.open_joined(self._skeleton + part, self._folder, self._threads, watch=watch)
            try:
                outputs = runner.run({**golden.feeds(self._inputs), **self.values}, watch=watch)
            finally:
                runner.close()
        except SeedError as error:
            notice(f"the golden sample of what was learned is left out: {error}")
            return None
        found = with_outputs(golden, list(outputs.values()))
        return None if found is None else found.pack()

    @contextlib.contextmanager
    def opened(self, outputs: Collection[str], inputs: Collection[str] = ()) -> Iterator[Run]:
        """Open the model with some outputs of its training graph.

        Args:
            outputs: of the training graph.
            inputs: tensors that will be fed; those that have values already are added.
        """
        part = select(self._part, outputs, {*inputs, *self.values})
        runner = self._backend.open_joined(
            self._skeleton + part, self._folder, self._threads, reuse_memory=self._reuse_memory, watch=self._watch
        )
        try:
            self.outputs.check_types(runner.outputs, outputs)
            yield Run(runner, self, self._watch)
        finally:
            runner.close()


class RunsModel(Protocol):
    """What runs samples: an open session, or a part of the model on what others gave."""

    def __call__(
        self, rows: Rows, outputs: Sequence[str], targets: Feeds, values: Mapping[str, Array] | None = None
    ) -> list[Array]:
        """Run some samples.

        Args:
            rows: the samples.
            outputs: what is returned, of the model and of its training graph.
            targets: inputs of the training graph (`Task.feeds`).
            values: of tensors, in place of the learned ones.
        """
        ...


class Run:
    """An open session of a joined model, a `RunsModel`."""

    def __init__(self, runner: Runner, model: JoinedModel, watch: Watch) -> None:
        self._runner, self._model, self._watch = runner, model, watch
        self._known = {spec.name for spec in (*runner.inputs, *runner.optional_inputs)}

    def __call__(
        self, rows: Rows, outputs: Sequence[str], targets: Feeds, values: Mapping[str, Array] | None = None
    ) -> list[Array]:
        """Run some samples; inputs that this session lacks are left out (see `RunsModel`)."""
        self._watch()  # also where no run takes so long that the backend calls it
        fed = {**self._model.samples.feeds(rows), **self._model.values, **(values or {}), **targets}
        found = self._runner.run(
            {name: array for name, array in fed.items() if name in self._known}, outputs, watch=self._watch
        )
        self._model.outputs.check(found, outputs, targets.get(TARGET))
        return [found[name] for name in outputs]
