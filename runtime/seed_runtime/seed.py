"""A seed as an object: look into it, check it, assemble it, run it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final

from seed_runtime import backends, stored_bases
from seed_runtime.assembly.assemble import (
    Progress,
    assemble_into,
    beside_bytes,
    check_only,
    sync_assembled,
    working_bytes,
)
from seed_runtime.assembly.base_file import BaseFile, MappedWeights, holes_of_base
from seed_runtime.assembly.cache import ModelCache, default_cache, model_size
from seed_runtime.assembly.folder import model_folder
from seed_runtime.assembly.held import Notice, held_model
from seed_runtime.backends import Dims, Feeds
from seed_runtime.backends.workers import Watch
from seed_runtime.codecs import BaseWeights
from seed_runtime.codecs.windows import can_decode_beside
from seed_runtime.errors import InputError, MemoryBudgetError, MissingLinkError
from seed_runtime.memory.cgroup import CgroupLimit, cgroup_limit
from seed_runtime.memory.plan import AssemblyPlan, SessionPlan, plan_assembly, plan_session
from seed_runtime.seed_file import SeedFile
from seed_runtime.session import Session

HELD_AFTER_ASSEMBLY: Final = 6 << 20
"""Memory that stays with the process once its weights are written [B]: NumPy's and Python's heaps don't shrink at
once."""


def open(  # noqa: A001  users expect it
    path: str | os.PathLike[str] | BinaryIO, *, enforce: bool = True, base: Seed | None = None
) -> Seed:
    """Open a seed: read and check its header.

    Args:
        path: of the seed, or a stream, which is read once, front to back.
        enforce: whether the seed must be accepted by this machine, if it has allowed signers. False is for callers
            that only inspect it (`Seed.signature`) or made the file themselves, and for bases: a signature covers the
            digest of a seed's base.
        base: the seed that it is assembled on top of, if it has one, from a file and not from a pipe. Without it, one
            in a store, where each seed is `<digest>/model.seed`, stands on those beside it, and of any other one only
            the header can be read.

    Raises:
        FormatError: the seed is damaged.
        UnsupportedError: it is made for a newer runtime.
        WrongBaseError: it is made for another base.
        MissingLinkError: it is in a store that doesn't hold its base, and `enforce` is true.
        InputError: it has no base, and one was given.
        TrustError: this machine doesn't accept it.
        OSError: there is no such file.
    """
    if base is None and isinstance(path, str | os.PathLike):
        path = stored_bases.resolved(Path(path))
    seed = Seed(path, enforce=False, base=base)
    if base is None and seed.path is not None and seed.header.base is not None:
        store = stored_bases.store_of(seed.path, seed.digest)
        try:
            seed = seed if store is None else Seed(path, enforce=False, base=open_bases(store, seed))
        except MissingLinkError:
            if enforce:
                raise
            # Its header can be read all the same.
    if enforce:
        # With its base, which answers for what was made here.
        seed.enforce_trust()
    return seed


def open_bases(store: Path, seed: Seed) -> Seed:
    """Open the base of a seed in a store, on top of all that it stands on itself.

    Args:
        store: the folder, in which each seed is `<digest>/model.seed`.
        seed: one that has a base, be it in the store or not.

    Raises:
        MissingLinkError: one of them isn't there.
        FormatError: one of them is damaged.
    """
    assert seed.header.base is not None
    base: Seed | None = None
    for path in stored_bases.find_bases(store, seed.digest.hex(), seed.header.base):
        base = Seed(path, enforce=False, base=base)
    assert base is not None
    return base


class Seed(SeedFile):
    """A seed that can be checked, assembled and run; for what may be raised see `SeedFile`."""

    def __init__(
        self,
        source: str | os.PathLike[str] | BinaryIO,
        *,
        enforce: bool = True,
        base: Seed | None = None,
    ) -> None:
        """Open a seed: read and check its header (see `open`)."""
        if base is not None and base.path is None:
            raise InputError("a base is read more than once, and a pipe can be read only once; save it to a file first")
        super().__init__(source, enforce=enforce, base=base)
        self.base = base
        """The seed that this one is assembled on top of; None where it is whole, or where its base wasn't given."""

    def apply(self, source: str | os.PathLike[str] | BinaryIO, *, enforce: bool = True) -> Seed:
        """Open a seed that holds what differs from this one, see `open`."""
        return Seed(source, enforce=enforce, base=self)

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
        self._need_base()
        headers = [seed.header for seed in self._chain()]
        # One is assembled after the other.
        working = max(max(working_bytes(header), header.weights.working_bytes) for header in headers)
        if cores is None:
            cores = backends.usable_cores() if can_decode_beside() else 1
        return plan_assembly(working, max(map(beside_bytes, headers)), limit, cgroup, cores)

    def _chain(self) -> Iterator[Seed]:
        """Yield this seed, its base, and the base's own ones."""
        seed: Seed | None = self
        while seed is not None:
            yield seed
            seed = seed.base

    @contextlib.contextmanager
    def assembled(
        self,
        *,
        max_memory: int | None = None,
        cache: ModelCache | None = None,
        progress: Progress | None = None,
        notice: Notice | None = None,
    ) -> Iterator[Path]:
        """Give the folder of the assembled model, held until the block ends; for the arguments see `session`."""
        cores = self.plan_assembly(max_memory, cgroup_limit()).cores
        say = notice or _print_notice
        with self._assembled(cache or default_cache(), progress, say, cores, intact=False) as folder:
            self._accept()
            yield folder

    @contextlib.contextmanager
    def assembled_weights(
        self, cache: ModelCache | None = None, progress: Progress | None = None, *, cores: int = 1
    ) -> Iterator[BaseWeights]:
        """Give the weights, tensor by tensor in windows; they are assembled into the cache unless they are there.

        Args:
            cache: None for the user's.
            progress: called with the bytes of the weights done so far, and all of them.
            cores: of a plan for assembly.
        """
        layout, chosen = self.kind.layout, cache or default_cache()
        with self._assembled(chosen, progress, _print_notice, cores, intact=True) as folder:
            places = layout.places(self.skeleton(), self.header.holes)
            with BaseFile(folder / layout.weights_file, places, self.header.holes) as weights:
                yield weights

    @contextlib.contextmanager
    def _assembled(
        self,
        cache: ModelCache,
        progress: Progress | None,
        notice: Notice,
        cores: int,
        *,
        intact: bool,
        verify: bool = False,
        sync_beside: bool = False,
    ) -> Iterator[Path]:
        """Give the folder of the assembled seed in the cache, or a temporary one.

        Args:
            cache: where.
            progress: called while it is decoded.
            notice: gets what the user should know.
            cores: of a plan for assembly.
            intact: compare a copy that was there before with the seed's digests, and assemble it again if it was
                altered.
            verify: decode all of the seed as well, where there was a copy.
            sync_beside: as for `ModelCache.hold`.
        """
        made = False

        def assemble(folder: Path) -> None:
            nonlocal made
            with self._base_weights(cache, progress, cores) as base, self._reader() as reader:
                if base is not None and folder.parent == cache.root:
                    # Again, since the base may have been made meanwhile: of a chain, no more than two have to be there.
                    cache.evict(model_size(self.header))
                assemble_into(
                    reader, folder, progress, base, check=self._check_inputs, info=self._skeleton, cores=cores
                )
            made = True

        is_intact = self.is_intact if intact else None
        held = held_model(self.digest, self.header, cache, assemble, notice, is_intact, sync_beside=sync_beside)
        with held as folder:
            if not made and (verify or self.path is None):
                # What comes through a pipe is checked to its end, even where the cache has the model already.
                self.check(progress, cores=cores, cache=cache)
            yield folder

    @contextlib.contextmanager
    def _base_weights(
        self, cache: ModelCache | None, progress: Progress | None, cores: int
    ) -> Iterator[BaseWeights | None]:
        """Give the weights of the base for each of this seed's holes; None for a whole seed."""
        self._need_base()
        if self.base is None:
            yield None
            return
        with self.base.assembled_weights(cache, progress, cores=cores) as weights:
            if self.shares_parts:
                yield weights
            else:
                yield MappedWeights(weights, holes_of_base(self.header.holes, self.base.header.holes))

    def check(self, progress: Progress | None = None, *, cores: int = 1, cache: ModelCache | None = None) -> None:
        """Decode everything and compare all digests; nothing is written, but a base is assembled into the cache.

        Args:
            progress: called with the bytes of the weights done so far, and all of them.
            cores: of a plan for assembly.
            cache: for the base; None for the user's.
        """
        with self._base_weights(cache, progress, cores) as base, self._reader() as reader:
            check_only(reader, progress, base, check=self._check_inputs, cores=cores)
        self._accept()

    def assemble(
        self,
        folder: str | os.PathLike[str],
        *,
        max_memory: int | None = None,
        progress: Progress | None = None,
        cache: ModelCache | None = None,
    ) -> Path:
        """Write the model as a folder: `model.onnx` and `model.weights`, or `model.tflite`, for any program.

        Args:
            folder: a new folder, an empty one, or an assembled ONNX model, which is replaced in one step. A TFLite
                model isn't, because nothing tells it from a file of your own.
            max_memory: limit of the whole process [B]; MemoryBudgetError comes before anything is allocated.
            progress: called with the bytes of the weights done so far, and all of them.
            cache: where the base is assembled, if it has one; None for the user's.

        Returns:
            The folder.

        Raises:
            InputError: the folder holds anything else.
            DiskSpaceError: the model doesn't fit on the disk.
        """
        plan, target = self.plan_assembly(max_memory, cgroup_limit()), Path(folder)
        with (
            self._base_weights(cache, progress, plan.cores) as base,
            self._reader() as reader,
            model_folder(target) as part,
        ):
            assemble_into(reader, part, progress, base, check=self._check_inputs, info=self._skeleton, cores=plan.cores)
            sync_assembled(part, reader.header)
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
        runs: int | None = None,
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
            runs: how many there will be, as far as that is known. One or two are answered soonest by a session that
                opens faster and runs slower.
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
        plan = self.plan_session(
            dims, max_memory, threads=threads, backend=backend, beside=beside, cgroup=cgroup, runs=runs
        )
        chosen, say = cache or default_cache(), notice or _print_notice
        assembled = self._assembled(
            chosen, progress, say, assembly.cores, intact=verify, verify=verify, sync_beside=True
        )
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
        runs: int | None = None,
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
            runs=runs,
        )

    def _planned_dims(self, feeds: Feeds | None) -> Dims:
        footprint = self.footprint()
        if footprint is None:
            return {}
        return footprint.smallest() if feeds is None else footprint.dims(feeds)

    def _backend(self, name: str | None) -> backends.Backend:
        return backends.get(name or self.kind.backend)


def _print_notice(line: str) -> None:
    print(line, file=sys.stderr)
