"""A seed as an object: look into it, check it, assemble it, run it."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from seed_runtime import backends, budget, golden, place
from seed_runtime.assemble import Progress, assemble_into, check_only, working_bytes
from seed_runtime.backends import Array, Feeds, TensorSpec
from seed_runtime.budget import SLACK, Plan, SessionPlan, plan_session
from seed_runtime.cache import DEFAULT_LIMIT, ModelCache, default_root
from seed_runtime.errors import InputError, MemoryBudgetError, UnsupportedError
from seed_runtime.footprint import Footprint
from seed_runtime.format.header import Header
from seed_runtime.format.reader import SeedReader
from seed_runtime.format.wire import Cursor
from seed_runtime.version import __version__

HELD_AFTER_ASSEMBLY = 6 << 20
"""What stays with the process once its weights are written: NumPy's and Python's heaps don't shrink at once [B]."""


def open(path: str | os.PathLike[str] | BinaryIO) -> Seed:  # noqa: A001  the name that users expect
    """The seed at `path`, its header read and checked. A stream is read once, front to back."""
    return Seed(path)


class Seed:
    """A seed whose header has been checked; chunks are checked when they are read.

    Errors: FormatError (damaged), UnsupportedError (made for a newer runtime), OSError (no such file).
    """

    def __init__(self, source: str | os.PathLike[str] | BinaryIO) -> None:
        self._stream: BinaryIO | None = None
        if isinstance(source, str | os.PathLike):
            self.path: Path | None = Path(source)
            with self._reader() as reader:
                self._note(reader)
        else:
            self.path = None
            self._stream = source
            self._open_reader = SeedReader(source, getattr(source, "name", None) or "seed")
            self._note(self._open_reader)

    def _note(self, reader: SeedReader) -> None:
        self.name = reader.name
        self.header: Header = reader.header
        self.digest = reader.digest
        self.file_size, self.header_size = reader.file_size, reader.header_size
        if self.header.model.min_runtime > _version():
            wanted = ".".join(map(str, self.header.model.min_runtime))
            raise UnsupportedError(
                f"{self.name} needs seed-runtime {wanted} and this is {__version__}; "
                f"update it: pip install -U 'seed-runtime>={wanted}'"
            )

    @contextlib.contextmanager
    def _reader(self) -> Iterator[SeedReader]:
        if self.path is None:
            reader, self._open_reader = self._open_reader, None
            if reader is None:
                raise InputError("a seed from a pipe can be read only once; save it to a file first")
            yield reader
            return
        with io.open(self.path, "rb", buffering=0) as file:
            yield SeedReader(file, self.path.name)

    def footprint(self) -> Footprint | None:
        """What sessions of this model need, as measured when it was exported."""
        if self.header.footprint is None:
            return None
        return Footprint.unpack(Cursor(self.header.footprint, "header, FOOTPRINT"))

    def plan_assembly(self, limit: int | None = None) -> Plan:
        """Peak memory of assembling in this process; MemoryBudgetError unless it fits `limit` [B]."""
        usage = budget.baseline()
        needed = max(usage.peak, usage.resident + max(working_bytes(self.header), self.header.working_bytes)) + SLACK
        if limit is not None and needed - SLACK > limit:
            raise MemoryBudgetError("assembling this seed", needed, limit)
        return Plan(needed, limit)

    def check(self, progress: Progress | None = None) -> None:
        """Decode everything and compare all digests; nothing is written."""
        with self._reader() as reader:
            check_only(reader, progress)

    def assemble(self, folder: str | os.PathLike[str], *, max_memory: int | None = None, progress: Progress | None = None) -> Path:
        """Write `model.onnx` and `model.weights`, which any ONNX Runtime program can open, as the folder `folder`.

        An earlier assembled model there is replaced in one step; a folder that holds anything else is refused.
        """
        self.plan_assembly(max_memory)
        target = Path(folder)
        with self._reader() as reader, place.folder(target) as part:
            assemble_into(reader, part, progress)
        return target

    def session(
        self,
        *,
        max_memory: int | None = None,
        feeds: Feeds | None = None,
        threads: int | None = None,
        backend: str = "onnxruntime",
        cache: ModelCache | None = None,
        progress: Progress | None = None,
    ) -> Session:
        """Plan, assemble into the cache unless it is there, and open.

        Args:
            max_memory: limit of the whole process [B]; MemoryBudgetError comes before anything is allocated.
            feeds: the largest input that will be run, for the plan; None plans for the smallest that was measured.
        """
        engine = backends.get(backend)
        footprint = self.footprint()
        dims = _dims(footprint, feeds)
        held = HELD_AFTER_ASSEMBLY
        assembly = self.plan_assembly(max_memory)
        plan = plan_session(
            footprint,
            dims,
            max_memory,
            backend=engine,
            weights_size=self.header.weights_size,
            threads=threads,
            held=held,
        )
        return Session(self, engine, plan, assembly, cache or default_cache(), progress)


class Session:
    """An open model. Close it, or use it as a context manager: until then its cached files can't be removed."""

    def __init__(
        self,
        seed: Seed,
        engine: backends.Backend,
        plan: SessionPlan,
        assembly: Plan,
        cache: ModelCache,
        progress: Progress | None,
    ) -> None:
        self.plan, self._seed = plan, seed
        needs = (plan.needed_bytes, assembly.needed_bytes)
        self.needed_bytes = max(need for need in needs if need) if all(needs) else None
        self._stack = contextlib.ExitStack()
        try:
            self.folder = self._stack.enter_context(_assembled(seed, cache, progress))
            self._runner = engine.open(self.folder, plan.mode, plan.threads)
            self._stack.callback(self._runner.close)
        except BaseException:
            self._stack.close()
            raise

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self._runner.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self._runner.outputs

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """All outputs by name. InputError for feeds that don't fit, MemoryBudgetError where they are too large."""
        backends.check_feeds(self.inputs, feeds)
        self.plan.admit(_dims(self.plan.footprint, feeds))
        return self._runner.run(feeds)

    def verify(self) -> golden.Verdict:
        """Run the golden sample and compare; `Verdict.present` is False where the seed holds none."""
        return golden.verify(self._seed.header.golden, self._runner)

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def default_cache() -> ModelCache:
    """The user's cache; SEED_CACHE_LIMIT sets its size, such as 500MB."""
    limit = os.environ.get("SEED_CACHE_LIMIT")
    return ModelCache(default_root(), budget.parse_size(limit) if limit else DEFAULT_LIMIT)


@contextlib.contextmanager
def _assembled(seed: Seed, cache: ModelCache, progress: Progress | None) -> Iterator[Path]:
    made = False

    def make(folder: Path) -> None:
        nonlocal made
        with seed._reader() as reader:
            assemble_into(reader, folder, progress)
        made = True

    def on_wait() -> None:
        print("another process is assembling this seed; waiting for it", file=sys.stderr)

    with cache.hold(seed.digest, seed.header, make, on_wait) as folder:
        if not made and seed.path is None:
            # What comes through a pipe is checked to its end, even where the cache has the model already.
            with seed._reader() as reader:
                check_only(reader, progress)
        yield folder


def _dims(footprint: Footprint | None, feeds: Feeds | None) -> Mapping[str, int]:
    if footprint is None:
        return {}
    if feeds is not None:
        return footprint.dims(feeds)
    smallest = min(footprint.points)
    return {f"{name}:{axis}": size for (name, axis), size in zip(footprint.axes, smallest, strict=True)}


def _version() -> tuple[int, int, int]:
    major, minor, patch = (int(number) for number in __version__.split(".")[:3])
    return major, minor, patch
