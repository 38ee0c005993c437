"""A seed as an object: look into it, check it, assemble it, run it."""

from __future__ import annotations

import builtins
import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final

from seed_runtime import backends, golden, skeletons, trust
from seed_runtime.assembly.assemble import (
    Progress,
    assemble_into,
    beside_bytes,
    check_only,
    is_assembled,
    working_bytes,
)
from seed_runtime.assembly.cache import ModelCache, default_cache
from seed_runtime.assembly.folder import model_folder
from seed_runtime.backends import Dims, Feeds, TensorSpec, input_spec
from seed_runtime.backends.workers import Watch
from seed_runtime.codecs import CODECS
from seed_runtime.codecs.windows import can_decode_beside
from seed_runtime.errors import InputError, MemoryBudgetError
from seed_runtime.format.header import Header
from seed_runtime.format.parts import file_of
from seed_runtime.format.pipe import PipeReader
from seed_runtime.format.primitives import Cursor
from seed_runtime.format.reader import SeedReader
from seed_runtime.memory.cgroup import CgroupLimit, cgroup_limit
from seed_runtime.memory.footprint import Footprint
from seed_runtime.memory.plan import AssemblyPlan, SessionPlan, plan_assembly, plan_session
from seed_runtime.session import Session
from seed_runtime.system.scratch import scratch_folder

HELD_AFTER_ASSEMBLY: Final = 6 << 20
"""Memory that stays with the process once its weights are written [B]: NumPy's and Python's heaps don't shrink at
once."""
Notice = Callable[[str], None]
"""Callback for notices: gets a line for the user where work goes on otherwise than planned."""
_UNWRITABLE: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST})
"""Errors of a cache that can't be written to."""


def open(path: str | os.PathLike[str] | BinaryIO, *, enforce: bool = True) -> Seed:  # noqa: A001  users expect it
    """Open a seed: read and check its header.

    Args:
        path: of the seed, or a stream, which is read once, front to back.
        enforce: whether the seed must be accepted by this machine, if it has allowed signers. False is for callers
            that only inspect it (`Seed.signature`) or made the file themselves.

    Raises:
        FormatError: the seed is damaged.
        UnsupportedError: it is made for a newer runtime.
        TrustError: this machine doesn't accept it.
        OSError: there is no such file.
    """
    return Seed(path, enforce=enforce)


class Seed:
    """A seed whose header has been checked; chunks are checked when they are read.

    Any method that reads on can raise FormatError (damaged), UnsupportedError (made for a newer runtime), TrustError
    (not accepted here) and OSError.
    """

    def __init__(self, source: str | os.PathLike[str] | BinaryIO, *, enforce: bool = True) -> None:
        """Open a seed: read and check its header (see `open`)."""
        self._enforce = enforce
        if isinstance(source, str | os.PathLike):
            self.path: Path | None = Path(source)
            with builtins.open(self.path, "rb", buffering=0) as file:
                self._take(SeedReader(file, self.path.name))
        else:
            self.path = None
            # A pipe's name may be the number of its descriptor.
            name = getattr(source, "name", None)
            self._pipe: PipeReader | None = PipeReader(source, name if name and isinstance(name, str) else "seed")
            self._take(self._pipe)

    def _take(self, reader: SeedReader) -> None:
        self.name = reader.name
        self.header: Header = reader.header
        self.digest = reader.digest
        self.file_size, self.header_size = reader.file_size, reader.header_size
        self._signed = reader.signed
        self._skeleton: skeletons.SkeletonInfo | None = None
        # Whatever it is opened for: what one command refuses, all do.
        self.golden = None if self.header.golden is None else golden.Golden.unpack(self.header.golden)
        """The golden sample; None where the seed holds none."""
        self._footprint = None
        if self.header.footprint is not None:
            self._footprint = Footprint.unpack(Cursor(self.header.footprint, "header, FOOTPRINT"))
        if self._enforce:
            trust.check(self.header, self.digest.hex(), self._signed, self.name)

    def _accept(self) -> None:
        if self._enforce:
            trust.accept(self.header, self.digest.hex())

    def signature(self) -> trust.Verdict:
        """Return who signed it, and whether this machine accepts it."""
        return trust.assess(self.header, self.digest.hex(), self._signed, self.name)

    @property
    def kind(self) -> skeletons.Kind:
        """Kind of its skeleton: the files that its model is assembled to, and the backend that runs it."""
        return skeletons.of(self.header)

    @contextlib.contextmanager
    def _reader(self) -> Iterator[SeedReader]:
        if self.path is None:
            pipe, self._pipe = self._pipe, None
            if pipe is None:
                raise InputError("a seed from a pipe can be read only once; save it to a file first")
            yield pipe
            return
        with builtins.open(self.path, "rb", buffering=0) as file:
            reader = SeedReader(file, self.path.name)
            # If it was replaced since it was opened, its weights must not be stored under the other one's digest.
            if reader.digest != self.digest:
                raise InputError(f"{self.name} was replaced by another seed meanwhile; run the command again")
            yield reader

    def skeleton_bytes(self) -> bytes | memoryview:
        """Return the model without its weights; of a pipe, read ahead of its turn and held until then."""
        return self._part_bytes(0)

    def _part_bytes(self, index: int) -> bytes | memoryview:
        if self.path is None and self._pipe is not None:
            return self._pipe.read_ahead(index)
        with self._reader() as reader:
            for part in reader.header.parts[:index]:
                reader.skip_part(part)
            return reader.part_bytes(reader.header.parts[index])

    def skeleton(self) -> skeletons.SkeletonInfo:
        """Return what the skeleton says of inputs, outputs and weights, checked; nothing is decoded."""
        if self._skeleton is None:
            info = self.kind.scan(self.skeleton_bytes())
            self.kind.layout.check(info, self.header.holes)
            self._check_inputs(info)
            # Of a forest of trees a scan takes seconds on a small device; the digest says that it stays the same.
            self._skeleton = info
        return self._skeleton

    def trellises(self) -> list[bool]:
        """Return whether each hole's weights are on a trellis; of a stream its first chunk is read, at most."""
        found: list[bool] = []
        with self._reader() as reader:
            for part in self.header.parts:
                reader.skip_part(part)
            for index, stream in enumerate(self.header.streams):
                head, codec = reader.head(index, stream), CODECS.get(stream.codec)
                holes = self.header.holes[stream.first : stream.first + stream.holes]
                if codec is None or codec.trellises is None or head is None:
                    found += [False] * len(holes)
                else:
                    found += codec.trellises(holes, head, f"stream {index}")
        return found

    def _check_inputs(self, info: skeletons.SkeletonInfo) -> None:
        """Raise FormatError if golden sample or footprint are of other inputs than the skeleton has."""
        if self.golden is not None:
            self.golden.check(info.inputs)
        if self._footprint is not None:
            self._footprint.check(info.inputs)

    def inputs(self) -> tuple[TensorSpec, ...]:
        """Return what every run must give the model; nothing is assembled."""
        return tuple(input_spec(value) for value in self.skeleton().inputs)

    def optional_inputs(self) -> tuple[TensorSpec, ...]:
        """Return the inputs that have a default, which a run may give; nothing is assembled."""
        return tuple(input_spec(value) for value in self.skeleton().optional_inputs)

    def metadata(self) -> dict[str, str]:
        """Return the texts that the model's maker gave programs, such as class names; nothing is assembled."""
        return dict(self.skeleton().metadata)

    def golden_shapes(self) -> Feeds | None:
        """Return arrays like the golden sample's inputs, for plans, without memory; None where the seed holds none."""
        return None if self.golden is None else self.golden.shapes(self.inputs())

    def footprint(self) -> Footprint | None:
        """Return what sessions of this model need, as measured when it was exported; None where the seed holds none."""
        return self._footprint

    def plan_assembly(
        self, limit: int | None = None, cgroup: CgroupLimit | None = None, *, cores: int | None = None
    ) -> AssemblyPlan:
        """Plan the peak memory of assembling in this process, and in one beside it where both fit.

        Args:
            limit: limit of the whole process, None for none [B].
            cgroup: limit of this process's control groups, `cgroup_limit()`; None to plan without it.
            cores: None for all that may be used; 1 plans for the least memory.

        Raises:
            MemoryBudgetError: it doesn't fit.
        """
        working = max(working_bytes(self.header), self.header.weights.working_bytes)
        if cores is None:
            cores = backends.usable_cores() if can_decode_beside() else 1
        return plan_assembly(working, beside_bytes(self.header), limit, cgroup, cores)

    def check(self, progress: Progress | None = None, *, cores: int = 1) -> None:
        """Decode everything and compare all digests; nothing is written.

        Args:
            progress: called with the bytes of the weights done so far, and all of them.
            cores: of a plan for assembly.
        """
        with self._reader() as reader:
            check_only(reader, progress, check=self._check_inputs, cores=cores)
        self._accept()

    def assemble(
        self, folder: str | os.PathLike[str], *, max_memory: int | None = None, progress: Progress | None = None
    ) -> Path:
        """Write the model as a folder; of an ONNX model `model.onnx` and `model.weights`, for any ONNX Runtime program.

        Args:
            folder: a new folder, an empty one, or an assembled model, which is replaced in one step.
            max_memory: limit of the whole process [B]; MemoryBudgetError comes before anything is allocated.
            progress: called with the bytes of the weights done so far, and all of them.

        Returns:
            The folder.

        Raises:
            InputError: the folder holds anything else.
            DiskSpaceError: the model doesn't fit on the disk.
        """
        plan, target = self.plan_assembly(max_memory, cgroup_limit()), Path(folder)
        with self._reader() as reader, model_folder(target) as part:
            assemble_into(reader, part, progress, check=self._check_inputs, cores=plan.cores)
            self._accept()
        return target

    def session(
        self,
        *,
        max_memory: int | None = None,
        feeds: Feeds | None = None,
        threads: int | None = None,
        backend: str | None = None,
        cache: ModelCache | None = None,
        progress: Progress | None = None,
        notice: Notice | None = None,
        beside: int = 0,
        verify: bool = False,
        watch: Watch | None = None,
    ) -> Session:
        """Plan, assemble into the cache unless it is there, and open.

        A cache that can't be written to serves what it holds; otherwise a temporary folder takes its place.

        Args:
            max_memory: limit of the whole process [B]; MemoryBudgetError comes before anything is allocated.
            feeds: the largest input that will be run, for the plan; None plans for the smallest that was measured.
            threads: of the backend; None for one per core.
            backend: what runs it, instead of the one for its kind of skeleton.
            cache: None for the user's.
            progress: called with the bytes of the weights done so far, and all of them.
            notice: gets what the user should know; None prints it to stderr.
            beside: what the caller will hold beyond the feeds and outputs of one run [B].
            verify: check all of the seed and its copy in the cache, which is assembled again if it was altered.
            watch: called about once a second while the backend opens the model, and while `Session.verify` runs;
                what it raises ends them.
        """
        dims, cgroup = self._planned_dims(feeds), cgroup_limit()
        try:
            assembly = self.plan_assembly(max_memory, cgroup)
        except MemoryBudgetError as error:
            # The session may need more still, and one answer must do.
            try:
                self.plan_session(dims, max_memory, threads=threads, backend=backend, beside=beside, cgroup=cgroup)
            except MemoryBudgetError as other:
                if other.needed > error.needed:
                    raise other from None
            raise
        plan = self.plan_session(dims, max_memory, threads=threads, backend=backend, beside=beside, cgroup=cgroup)
        chosen, say = cache or default_cache(), notice or _print_notice
        assembled = _assembled(self, chosen, progress, say, verify, assembly.cores)
        session = Session(self._backend(backend), plan, assembly, assembled, self.header.golden, watch)
        try:
            self._accept()
        except BaseException:
            session.close()
            raise
        return session

    def plan_session(
        self,
        dims: Mapping[str, int],
        limit: int | None = None,
        *,
        threads: int | None = None,
        backend: str | None = None,
        beside: int = 0,
        cgroup: CgroupLimit | None = None,
    ) -> SessionPlan:
        """Plan how a session would be opened for inputs of these sizes; for the arguments see `session`.

        The limit of this process's control groups counts where it is given, as `cgroup_limit()`.
        """
        return plan_session(
            self.footprint(),
            dims,
            limit,
            backend=self._backend(backend),
            weights_size=self.header.weights.size,
            threads=threads,
            held=HELD_AFTER_ASSEMBLY + beside,
            cgroup=cgroup,
        )

    def _planned_dims(self, feeds: Feeds | None) -> Dims:
        footprint = self.footprint()
        if footprint is None:
            return {}
        return footprint.smallest() if feeds is None else footprint.dims(feeds)

    def _backend(self, name: str | None) -> backends.Backend:
        return backends.get(name or self.kind.backend)


@contextlib.contextmanager
def _assembled(
    seed: Seed, cache: ModelCache, progress: Progress | None, notice: Notice, verify: bool, cores: int
) -> Iterator[Path]:
    made = altered = False

    def make(folder: Path) -> None:
        nonlocal made
        if altered:
            notice("the assembled copy in the cache was altered; assembling it again")
        with seed._reader() as reader:
            assemble_into(reader, folder, progress, check=seed._check_inputs, cores=cores)
        made = True

    def on_wait() -> None:
        notice("another process is using this seed's folder in the cache; waiting for it")

    def is_intact(folder: Path) -> bool:
        nonlocal altered
        altered = not _is_intact(seed, folder)
        return not altered

    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(
                cache.hold(seed.digest, seed.header, make, on_wait, is_intact if verify else None)
            )
        except OSError as error:
            if error.errno not in _UNWRITABLE or made:
                raise
            # Nobody removes models from a folder that can't be written to: no lock is needed.
            folder = cache.root / seed.digest.hex()
            if not is_assembled(folder, seed.header) or (verify and not _is_intact(seed, folder)):
                notice(f"{cache.root} can't be written to; assembling in a temporary folder")
                folder = stack.enter_context(scratch_folder())
                make(folder)
        if not made and (verify or seed.path is None):
            # What comes through a pipe is checked to its end, even where the cache has the model already.
            seed.check(progress, cores=cores)
        yield folder


def _is_intact(seed: Seed, copy: Path) -> bool:
    """Return whether an assembled copy is, bit for bit, what the seed gives."""
    if not seed.kind.layout.is_intact(copy, seed.skeleton_bytes(), seed.skeleton(), seed.header):
        return False
    files = [(index, file_of(part.kind)) for index, part in enumerate(seed.header.parts)]
    return all((copy / name).read_bytes() == seed._part_bytes(index) for index, name in files[1:] if name is not None)


def _print_notice(line: str) -> None:
    print(line, file=sys.stderr)
