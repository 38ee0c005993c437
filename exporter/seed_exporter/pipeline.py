"""From a model to a seed: load, choose, encode, assemble again, compare, write."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import onnx
from google.protobuf.message import DecodeError
from threadpoolctl import threadpool_limits

import seed_runtime
from seed_exporter import loaders, sign
from seed_exporter.build import draft
from seed_exporter.build.streams import CodedStream, Encoder
from seed_exporter.evaluate import compare, footprint, inputs, run
from seed_exporter.evaluate import golden as golden_sample
from seed_exporter.evaluate.compare import OutputError
from seed_exporter.evaluate.model_files import write_model_files
from seed_exporter.evaluate.runnable import check_runnable
from seed_exporter.graph.index import all_graphs
from seed_exporter.graph.model import Graph
from seed_exporter.quantize.allocate import Coding
from seed_exporter.quantize.methods import METHODS, Choice, Trial
from seed_exporter.skeletons import builder_for
from seed_runtime import backends
from seed_runtime.errors import UnsupportedError, UsageError
from seed_runtime.format import primitives
from seed_runtime.format.header import ModelInfo
from seed_runtime.format.preamble import MAGIC
from seed_runtime.format.writer import to_sign
from seed_runtime.limits import STRING_MAX
from seed_runtime.system import files
from seed_runtime.trust.sshsig import describe_key

FEED_SEEDS: Final = (101, 202, 303, 404)
GOLDEN_SEED: Final = 1
_SECTION_BYTES: Final = 6
"""Id and size of a section of the header."""

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
    sign: Path | None = None
    """The SSH key to sign with, see `sign`."""
    jobs: int = field(default_factory=backends.usable_cores)


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
    seed: draft.Seed
    digest: str
    """Of the seed, in hexadecimal."""
    signed_with: str | None
    """Type and fingerprint of the key."""
    default: bool
    """Whether no goal was given, so that the default's own is what users expect."""

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
            "digest": self.digest,
            "signed_with": self.signed_with,
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
    if options.target is not None and options.size is not None:
        raise UsageError("a target and a size say the same thing twice; give one of them")
    files.check_writable(output)
    check_apart(output, "-o", source, options.calib, options.sign)
    if example_inputs is not None:
        loader_options["example_inputs"] = example_inputs
    # Weights are coded in parallel already; with the BLAS's own threads besides, the search takes three times as long.
    with threadpool_limits(1, "blas"):
        return _Export(source, Path(output), options, progress, loader_options).run()


def check_apart(
    output: str | os.PathLike[str], flag: str, source: Any, calib: Path | None, key: Path | None = None
) -> None:
    """UsageError where writing to `output` would lose what is read: the model, its data, the inputs, the key."""
    kept: list[tuple[str, Path]] = []
    if calib is not None:
        kept.append(("the data of --calib", calib))
    if key is not None:
        kept.append(("the key of --sign", key))
    if isinstance(source, str | os.PathLike):
        kept.append(("the model", Path(source)))
        if os.path.isfile(output):
            kept += [("the model's data", path) for path in _external_data(Path(source), output)]
    for what, path in kept:
        if files.is_same_file(output, path):
            raise UsageError(f"{output} is {what} itself, which would be lost; name another file with {flag}")


def _external_data(model_file: Path, output: str | os.PathLike[str]) -> set[Path]:
    """The files beside an ONNX model that hold its weights; none where `output` can't be one of them."""
    with open(output, "rb") as file:
        if model_file.suffix.lower() != ".onnx" or file.read(len(MAGIC)) == MAGIC:
            # The usual case, an older seed: the model needn't be read twice.
            return set()
    try:
        model = onnx.ModelProto.FromString(model_file.read_bytes())
    except (OSError, DecodeError):
        return set()  # the loader says what is wrong with it
    nodes = [node for function in model.functions for node in function.node]
    tensors: list[onnx.TensorProto] = []
    for graph in all_graphs(model.graph):
        nodes += graph.node
        tensors += graph.initializer
        for sparse in graph.sparse_initializer:
            tensors += [sparse.values, sparse.indices]
    for node in nodes:
        for attribute in node.attribute:
            tensors += [attribute.t, *attribute.tensors, attribute.sparse_tensor.values]
    return {
        model_file.parent / entry.value
        for tensor in tensors
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }


class _Export:
    def __init__(
        self, source: Any, output: Path, options: Options, progress: Progress | None, loader_options: dict[str, Any]
    ) -> None:
        self.source, self.output, self.options, self.loader_options = source, output, options, loader_options
        self.progress = progress or (lambda step, done, total: None)
        self.seconds: dict[str, float] = {}
        self.signature_bytes = 0

    def run(self) -> Result:
        if self.options.sign is not None:
            # What is wrong with a key is told now, not after minutes.
            signature = sign.make_signature(sign.TEST_MESSAGE, self.options.sign)
            self.signature_bytes = _SECTION_BYTES + len(signature) + sign.SIZE_SLACK
        with self._timed("load"):
            self.graph = loaders.load(self.source, **self.loader_options)
            self.skeletons = builder_for(self.graph)
            check_runnable(self.graph, self.skeletons)
            model = self._model()
        with tempfile.TemporaryDirectory(prefix="seed-export-") as folder:
            self.work = Path(folder)
            with self._timed("reference"):
                self._reference()
            chosen, streams = self._choose(model)
            seed = draft.build(self.graph, streams, model, self.skeletons)
            with self._timed("check"):
                assembled = self._folder("assembled")
                seed = seed.assemble(assembled)
                threads = backends.usable_cores()
                *outputs, sampled = run.run_all(assembled, [*self.feeds, self.sample], "fast", threads)
                errors = compare.compare(self.expected, outputs)
                relative = golden_sample.least_relative_tolerance(self.graph)
                known = {("fast", threads): sampled}
                golden = golden_sample.make_golden(assembled, self.recipes, self.sample, GOLDEN_SEED, relative, known)
            with self._timed("footprint"):
                self.progress("footprint", 0, 1)
                # Generated inputs are as small as the model takes them; only real ones say what sizes are used.
                measured = footprint.measure(assembled, sample=self.dims if self.options.calib else None)
                self.progress("footprint", 1, 1)
            header = replace(
                seed.header,
                golden=golden.pack() if golden else None,
                footprint=measured.pack() if measured else None,
            )
            if self.options.sign is not None:
                header = replace(header, signature=sign.make_signature(to_sign(header), self.options.sign))
            seed = replace(seed, header=header)
            with self._timed("write"):
                size = self._write(seed)
        return Result(
            path=self.output,
            bytes=size,
            ratio=self._source_bytes() / size,
            parameters=self.graph.parameters,
            bits_per_weight=8 * size / max(1, self.graph.parameters),
            outputs=errors,
            goal_met=chosen.met and size <= (self._goal() or size),
            seconds=self.seconds,
            inputs="real" if self.options.calib else "generated",
            graph=self.graph,
            codings=chosen.codings,
            default=self.options.method == "grid" and self._goal() is None,
            seed=seed,
            digest=self.digest,
            signed_with=None if header.signature is None else describe_key(header.signature),
        )

    def _reference(self) -> None:
        """Run the original: what the seed will be compared with."""
        self.original = self._folder("original")
        write_model_files(self.graph, self.original, builder=self.skeletons)
        runner = backends.get().open(self.original, "fast")
        try:
            specs = runner.inputs
            if self.options.calib is not None:
                self.feeds = inputs.load_feeds(self.options.calib, specs)
                self.expected = [runner.run(feed) for feed in self.feeds]
            try:
                self.recipes = inputs.find_recipes(self.graph, specs, runner.run)
            except UnsupportedError:
                if self.options.calib is None:
                    raise
                self.recipes = golden_sample.recipes_from_feeds(self.feeds[0], specs)
            if self.options.calib is None:
                self.feeds = [inputs.make_feeds(specs, self.recipes, seed) for seed in FEED_SEEDS]
                self.expected = [runner.run(feed) for feed in self.feeds]
            self.sample = inputs.make_feeds(specs, self.recipes, GOLDEN_SEED)
            self.dims = backends.dims_of(backends.free_axes(specs), self.feeds[0])
            outputs = runner.run(self.sample)
        finally:
            runner.close()
        golden = golden_sample.golden_from_runs([outputs] * 2, self.recipes, GOLDEN_SEED)
        golden_bytes = len(golden.pack()) if golden else 0
        measured_bytes = footprint.packed_size_max(specs)
        self.front_bytes = 2 * _SECTION_BYTES + golden_bytes + measured_bytes + self.signature_bytes

    def _choose(self, model: ModelInfo) -> tuple[Choice, list[CodedStream]]:
        """Codings that keep the goal, and what they make of the weights."""
        encoder = Encoder(self.graph, self.options.jobs)
        with self._timed("search"):
            trial = Trial(
                encoder=encoder,
                skeletons=self.skeletons,
                model=model,
                front_bytes=self.front_bytes,
                goal=self._goal(),
                feeds=self.feeds,
                expected=self.expected,
                folder=self._folder("trial"),
            )
            chosen = METHODS[self.options.method](trial, lambda: self.progress("search", 0, 0))
        done, total = 0, self.graph.parameters

        def advance(count: int) -> None:
            nonlocal done
            done += count
            self.progress("encode", done, total)

        with self._timed("encode"):
            return chosen, encoder.streams(chosen.codings, progress=advance)

    def _goal(self) -> int | None:
        """Bytes asked for."""
        if self.options.size is not None:
            return self.options.size
        return int(self._source_bytes() / self.options.target) if self.options.target else None

    def _write(self, seed: draft.Seed) -> int:
        """Put the file in place once its bytes have been read back and checked; its size [B]."""
        # Not beside the output, which may be a pipe; and not to stay, so that only the copy needs to reach the disk.
        whole = self._folder("written") / "seed"
        with open(whole, "wb") as file:
            size = seed.write_into(file)
        # Whatever this machine's allowed signers are: the seed isn't for it alone.
        written = seed_runtime.open(whole, enforce=False)
        written.check()
        self.digest = written.digest.hex()
        with open(whole, "rb") as source, files.atomic_write(self.output) as target:
            shutil.copyfileobj(source, target)
        return size

    def _source_bytes(self) -> int:
        return self.graph.distinct_bytes

    def _model(self) -> ModelInfo:
        model_id = self.options.model_id or _name(self.source)
        if len(model_id.encode()) > STRING_MAX or not primitives.printable(model_id):
            raise UsageError(f"a model id has at most {STRING_MAX} bytes, all printable; {model_id!r} can't be one")
        return ModelInfo(
            model_id=model_id,
            version=self.options.model_version,
            min_runtime=draft.MIN_RUNTIME,
            parameters=self.graph.parameters,
            source_bytes=self._source_bytes(),
        )

    def _folder(self, name: str) -> Path:
        folder = self.work / name
        folder.mkdir(exist_ok=True)
        return folder

    @contextlib.contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - start


def _name(source: Any) -> str:
    """A model id from a file's name or a module's class."""
    text = Path(source).stem if isinstance(source, str | os.PathLike) else type(source).__name__
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-")[:100] or "model"
