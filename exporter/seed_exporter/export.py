"""From a model to a seed: load, choose, encode, assemble again, compare, write."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import seed_runtime
from seed_exporter import allocate, container, fidelity, footprint, inputs, loaders
from seed_exporter.allocate import Coding
from seed_exporter.encode import CodedStream, encode
from seed_exporter.fidelity import OutputError
from seed_exporter.floats import with_mantissa
from seed_exporter.graph import Graph, Weight
from seed_exporter.loaders.runnable import check_runnable, to_model_file
from seed_exporter.search import RateModel, fit
from seed_runtime import backends
from seed_runtime.errors import UsageError
from seed_runtime.format.header import Model

METHODS: Final = ("grid", "lossless", "moments")
DEFAULT_RATIO: Final = 4.6
"""Against fp32: what no public model's task score notices (docs/benchmarks.md)."""
VECTOR_BITS: Final = (7, 10, 13, 16, 23)
VECTOR_SHARE: Final = 0.1
"""Of the outputs' error may come from rounding biases and norms: they carry few bytes."""

Progress = Callable[[str, int, int], None]
"""Called with the step, what is done of it, and all of it."""


@dataclass(frozen=True)
class Options:
    """What the command line can say. At most one of `target` (ratio) and `size` (bytes)."""

    method: str = "grid"
    target: float | None = None
    size: int | None = None
    calib: Path | None = None
    model_id: str | None = None
    model_version: int = 1
    jobs: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))


@dataclass(frozen=True)
class Result:
    """What was written, and how good it is."""

    path: Path
    bytes: int
    ratio: float
    """Bytes of the source's distinct weights, at fp32 where the source is fp32, over bytes of the whole file."""
    parameters: int
    bits_per_weight: float
    outputs: dict[str, OutputError]
    goal_met: bool
    seconds: dict[str, float]
    inputs: str
    """`real` or `generated`: what the outputs were compared on."""
    graph: Graph
    codings: dict[str, Coding]
    seed: container.Seed

    def as_json(self) -> dict[str, Any]:
        """The keys that programs rely on, and a few more."""
        return {
            "seed": str(self.path),
            "bytes": self.bytes,
            "ratio": round(self.ratio, 3),
            "parameters": self.parameters,
            "bits_per_weight": round(self.bits_per_weight, 4),
            "seconds": {step: round(seconds, 3) for step, seconds in self.seconds.items()},
            "outputs": {name: error.as_json() for name, error in self.outputs.items()},
            "inputs": self.inputs,
            "goal_met": self.goal_met,
            "digest": seed_runtime.open(self.path).digest.hex(),
        }


def export(
    source: Any,
    example_inputs: Sequence[Any] | None = None,
    *,
    output: str | os.PathLike[str],
    options: Options | None = None,
    progress: Progress | None = None,
    **loader_options: Any,
) -> Result:
    """Make a seed of a model: a path (`.onnx`, `.pt2`), an ONNX model, an exported program, or a torch module.

    Args:
        example_inputs: the positional arguments of a torch module, with which it is traced.
        output: the seed's path; an older file there is replaced once the new one is whole.
        loader_options: go to the format's loader, such as `dynamic_shapes` and `input_names` of a module.

    Raises UsageError, UnsupportedError (the model can't be read or run), InputError (calibration data).
    """
    options = options or Options()
    if options.method not in METHODS:
        raise UsageError(f"no method is called {options.method!r}; use one of {', '.join(METHODS)}")
    if example_inputs is not None:
        loader_options["example_inputs"] = example_inputs
    return _Export(source, Path(output), options, progress, loader_options).run()


class _Export:
    def __init__(
        self, source: Any, output: Path, options: Options, progress: Progress | None, loader_options: dict[str, Any]
    ) -> None:
        self.source, self.output, self.options, self.loader_options = source, output, options, loader_options
        self.progress = progress or (lambda step, done, total: None)
        self.seconds: dict[str, float] = {}

    def run(self) -> Result:
        with self._timed("load"):
            self.graph = loaders.load(self.source, **self.loader_options)
            check_runnable(self.graph)
        with tempfile.TemporaryDirectory(prefix="seed-export-") as folder:
            self.work = Path(folder)
            with self._timed("reference"):
                self._reference()
            codings, streams, met = self._encoded()
            seed = container.build(self.graph, streams, self._model())
            with self._timed("check"):
                assembled = self._folder("assembled")
                seed = seed.assemble(assembled)
                errors = fidelity.compare(self.expected, fidelity.run_all(assembled, self.feeds))
                golden = self._golden(assembled)
            with self._timed("footprint"):
                self.progress("footprint", 0, 1)
                measured = footprint.measure(assembled)
                self.progress("footprint", 1, 1)
            header = replace(
                seed.header,
                golden=golden.pack() if golden else None,
                footprint=measured.pack() if measured else None,
            )
            seed = replace(seed, header=header)
            with self._timed("write"):
                size = seed.write(self.output)
                seed_runtime.open(self.output).check()
        return Result(
            path=self.output,
            bytes=size,
            ratio=self._source_bytes() / size,
            parameters=self.graph.parameters,
            bits_per_weight=8 * size / max(1, self.graph.parameters),
            outputs=errors,
            goal_met=met and (self._goal() is None or size <= (self._goal() or size)),
            seconds=self.seconds,
            inputs="real" if self.options.calib else "generated",
            graph=self.graph,
            codings=codings,
            seed=seed,
        )

    def _reference(self) -> None:
        """Run the original: what the seed will be compared with."""
        self.original = self._folder("original")
        to_model_file(self.graph, self.original)
        runner = backends.get().open(self.original, "fast")
        try:
            self.recipes = inputs.recipes(self.graph, runner.inputs, runner.run)
            if self.options.calib is not None:
                self.feeds = inputs.from_file(self.options.calib, [spec.name for spec in runner.inputs])
            else:
                self.feeds = [inputs.arrays(runner.inputs, self.recipes, seed) for seed in (101, 202, 303, 404)]
            self.specs = runner.inputs
            self.expected = [runner.run(feed) for feed in self.feeds]
        finally:
            runner.close()

    def _encoded(self) -> tuple[dict[str, Coding], list[CodedStream], bool]:
        if self.options.method == "lossless":
            return *self._streams(allocate.lossless(self.graph)), True
        with self._timed("search"):
            model = RateModel(self.graph)
            goal = self._goal()
            bits = VECTOR_BITS[1]
            size_at = lambda coarseness: self._size(allocate.uniform(self.graph, coarseness, bits))  # noqa: E731
            wanted = goal if goal is not None else self._default_goal(model)
            found = fit(model, wanted, size_at)
            bits = self._vector_bits(allocate.uniform(self.graph, found.coarseness, VECTOR_BITS[-1]))
            if bits > VECTOR_BITS[1] and goal is not None:
                found = fit(model, goal, size_at)
            codings = allocate.uniform(self.graph, found.coarseness, bits)
            codings = allocate.with_lowrank(self.graph, codings, self.options.jobs)
        return *self._streams(codings), found.met

    def _streams(self, codings: dict[str, Coding]) -> tuple[dict[str, Coding], list[CodedStream]]:
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            self.progress("encode", done, self.graph.parameters)

        with self._timed("encode"):
            return codings, encode(self.graph, codings, jobs=self.options.jobs, progress=advance)

    def _size(self, codings: dict[str, Coding]) -> int:
        self.progress("search", 0, 0)
        return container.build(self.graph, encode(self.graph, codings, jobs=self.options.jobs), self._model()).size + 600

    def _goal(self) -> int | None:
        """Bytes asked for."""
        if self.options.size is not None:
            return self.options.size
        return int(self._source_bytes() / self.options.target) if self.options.target else None

    def _default_goal(self, model: RateModel) -> int:
        """What is not quantized as small as it gets without loss, and the rest at DEFAULT_RATIO against fp32."""
        codings = allocate.uniform(self.graph, 1.0, VECTOR_BITS[1])
        rest = {name: weight for name, weight in self.graph.weights.items() if codings[name].codec != "grid"}
        streams = encode(Graph(self.graph.model, rest), codings, jobs=self.options.jobs)
        fixed = sum(stream.size for stream in streams)
        if fixed * 8 < model.elements * 4 / DEFAULT_RATIO:
            return int(model.elements * 4 / DEFAULT_RATIO)
        return int(fixed + model.elements * 4 / DEFAULT_RATIO * 0.95)

    def _vector_bits(self, codings: dict[str, Coding]) -> int:
        """Mantissa bits of vectors: the fewest that add little to the error that the matrices make."""
        folder = self._folder("trial")
        candidate = container.build(self.graph, encode(self.graph, codings, jobs=self.options.jobs), self._model())
        candidate.assemble(folder)
        allowed = VECTOR_SHARE * self._error_of(folder)
        for bits in VECTOR_BITS[:-1]:
            to_model_file(self.graph, folder, lambda weight: self._rounded(weight, bits))  # noqa: B023
            if self._error_of(folder) <= allowed:
                return bits
        return VECTOR_BITS[-1]

    def _rounded(self, weight: Weight, bits: int) -> Any:
        if allocate.kind(weight) != "vector":
            return weight.data
        return with_mantissa(weight.data, allocate.MANTISSA_BITS[weight.dtype.name], bits)

    def _error_of(self, folder: Path) -> float:
        return fidelity.worst_relative(fidelity.compare(self.expected, fidelity.run_all(folder, self.feeds)))

    def _golden(self, folder: Path) -> Any:
        seed = 2026
        return fidelity.golden_of(folder, self.recipes, inputs.arrays(self.specs, self.recipes, seed), seed)

    def _source_bytes(self) -> int:
        return self.graph.distinct_bytes

    def _model(self) -> Model:
        return Model(
            model_id=self.options.model_id or _name(self.source),
            version=self.options.model_version,
            min_runtime=container.MIN_RUNTIME,
            parameters=self.graph.parameters,
            source_bytes=self._source_bytes(),
        )

    def _folder(self, name: str) -> Path:
        folder = self.work / name
        folder.mkdir(exist_ok=True)
        return folder

    @contextmanager
    def _timed(self, step: str) -> Any:
        start = time.perf_counter()
        yield
        self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - start


def _name(source: Any) -> str:
    """A model id from a file's name or a module's class."""
    text = Path(source).stem if isinstance(source, str | os.PathLike) else type(source).__name__
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-")[:100] or "model"
