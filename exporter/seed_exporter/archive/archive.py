"""An archive: add checkpoints, restore, verify and prune them.

Every seed appears whole or not at all, and what a checkpoint is on top of is on the disk before it, so that a kill at
any point leaves every checkpoint that was there. The index is written last and is only a copy of what headers say.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

import seed_runtime
from seed_exporter.archive import checkpoints, coding, links
from seed_exporter.archive.links import CHECKPOINT, ONLY_BASE, SEEDS, Chains, Link
from seed_exporter.archive.results import Added, Pruned
from seed_exporter.archive.weights import Decoded, WeightsReader
from seed_exporter.build.base_model import BaseModel
from seed_exporter.build.draft import SeedDraft
from seed_exporter.graph.model import Graph
from seed_exporter.pipeline import export
from seed_exporter.results import Options
from seed_runtime import backends
from seed_runtime.errors import DamagedArchiveError, DiskSpaceError, MissingCheckpointError, SeedError, UsageError
from seed_runtime.limits import CHAIN_MAX, STRING_MAX
from seed_runtime.system.files import check_writable
from seed_runtime.system.locks import BusyError, FileLock
from seed_runtime.system.sync import sync_folder

CHAIN_USUAL: Final = 16
"""Most seeds between a checkpoint and its key seed: restoring one decodes as many, and keys take twice the bytes."""
_LOCK: Final = "lock"
_CANDIDATES: Final = 2
"""Number of last checkpoints among which the base of the next one is chosen."""
Progress = Callable[[int, int], None]


class Archive:
    """A folder of checkpoints."""

    def __init__(self, folder: Path, *, indexed: bool = False) -> None:
        """Open an archive.

        Args:
            folder: the archive.
            indexed: believe the index, which is enough to show what there is; else all headers are read.

        Raises:
            UsageError: the folder is none.
        """
        if not links.is_archive(folder):
            raise UsageError(f"{folder} is no archive; add a checkpoint: seed-export archive {folder} add model.onnx")
        self.folder, self._indexed = folder, indexed
        self._weights = WeightsReader(folder)
        self.chains = Chains({})
        self.refresh()

    @classmethod
    def create(cls, folder: Path) -> Archive:
        """Open an archive, in a new or an empty folder if there is none.

        Raises:
            UsageError: the folder holds something else.
        """
        if not links.is_archive(folder):
            try:
                if folder.exists() and any(path.name != _LOCK for path in folder.iterdir()):
                    raise UsageError(f"{folder} holds other files and is no archive; name a new folder")
                (folder / SEEDS).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UsageError(f"{folder}: {error.strerror}; name another folder") from None
            sync_folder(folder)
        return cls(folder)

    def base_name(self, link: Link) -> str | None:
        """Return the name of the checkpoint that one is on top of, which may be pruned; None for a key seed."""
        base = self.chains.links.get(link.base or "")
        return None if base is None else base.name

    def refresh(self) -> None:
        """Read again which seeds there are."""
        self.chains = Chains(links.scan(self.folder, links.read_index(self.folder) if self._indexed else ()))

    @property
    def checkpoints(self) -> list[Link]:
        """The checkpoints in the order in which they were added."""
        return self.chains.checkpoints

    @property
    def bytes(self) -> int:
        """Size of all seeds [B]."""
        return links.size_of(self.folder)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the archive's lock; what a killed writer left is removed first, and the index is written at the end.

        Raises:
            BusyError: another process writes.
            UsageError: a folder of the archive is a link.
        """
        self._weights.check_latest()
        with FileLock(self.folder / _LOCK) as lock:
            if not lock.try_acquire():
                raise BusyError(f"another process writes to {self.folder}; wait for it, or end it")
            # From headers: what the index says decides nothing that is removed.
            self.chains = Chains(links.scan(self.folder))
            for part in (self.folder / SEEDS).glob(".seed-*.part"):
                part.unlink(missing_ok=True)
            self._tidy()
            try:
                yield
            finally:
                # A copy of what headers say: a full disk must not turn a finished addition into a failure.
                with contextlib.suppress(OSError):
                    links.write_index(self.folder, self.chains.links.values())

    def add(self, name: str, graph: Graph, *, chain: int = CHAIN_USUAL, jobs: int | None = None) -> Added:
        """Add a checkpoint bit for bit, within `writing`.

        Args:
            name: of the checkpoint.
            graph: the checkpoint.
            chain: most seeds that it may be on top of, 0 to CHAIN_MAX.
            jobs: threads.

        Raises:
            UsageError: there is a checkpoint of this name, or the name can't be one.
        """
        start = time.perf_counter()
        self.check_name(name)
        base = self._choose_base(graph, chain)
        made, data = coding.code(graph, name, self.chains.next_number, base, jobs or backends.usable_cores())
        link = self._put(made, data, graph, None if made.base is None else base)
        self._weights.save_latest(self.decoded(link))
        return self._added(link, graph.distinct_bytes, start, checkpoints.count(graph))

    def add_quantized(self, name: str, path: Path, options: Options, *, chain: int = CHAIN_USUAL) -> Added:
        """Add a checkpoint as `seed-export` makes it of these options, against the last one, within `writing`."""
        start = time.perf_counter()
        self.check_name(name)
        last = next(iter(self._usable(self.checkpoints[-1:])), None)
        below = self._chain(last) if last is not None and last.depth < min(chain, CHAIN_MAX) else []
        number = self.chains.next_number
        part = self.folder / SEEDS / f".seed-{os.getpid()}.part"
        bases = [self._path(each) for each in below]
        try:
            result = export(
                path, output=part, options=replace(options, base=bases, model_id=name, model_version=number)
            )
            os.replace(part, self.folder / SEEDS / f"{result.digest}{CHECKPOINT}")
        finally:
            part.unlink(missing_ok=True)
        sync_folder(self.folder / SEEDS)
        self._take()
        return self._added(self.chains.links[result.digest], round(result.ratio * result.bytes), start)

    def check_same(self, name: str, graph: Graph) -> None:
        """Raise UsageError unless the checkpoint of a name has the graph's tensors."""
        if not checkpoints.gives(self.decoded(self.find(name)), graph):
            raise UsageError(f"{self.folder} has a checkpoint {name} with other tensors; name this one with --name")

    def check_name(self, name: str) -> None:
        """Raise UsageError unless a checkpoint may be added under this name."""
        if not name.isprintable() or not 0 < len(name.encode()) <= STRING_MAX:
            raise UsageError(f"{name!r} can't be a name: up to {STRING_MAX} bytes that can be printed; use --name")
        if self.chains.named(name):
            raise UsageError(
                f"{self.folder} has a checkpoint {name} already; name this one otherwise with --name, or leave out "
                f"what is there with --missing"
            )

    def find(self, name: str) -> Link:
        """Return the checkpoint of a name.

        Raises:
            UsageError: there is none, or more than one.
            MissingCheckpointError: a seed that it needs is missing.
        """
        found = self.chains.named(name)
        if not found:
            raise UsageError(f"{self.folder} has no checkpoint {name}; see: seed-export archive {self.folder} list")
        if len(found) > 1:
            files = ", ".join(f"{link.digest}{CHECKPOINT}" for link in found)
            raise UsageError(f"{self.folder} has {len(found)} checkpoints {name}: {files}; move all but one elsewhere")
        if found[0] in self.chains.broken:
            raise self._missing(found[0])
        return found[0]

    def decoded(self, link: Link) -> Decoded:
        """Return the weights of a checkpoint.

        Raises:
            FormatError: a seed is damaged.
        """
        return self._weights.decode(self._chain(link))

    def restore(self, name: str, output: Path) -> int:
        """Write a checkpoint as a file, see `checkpoints.write`; return the size of its weights [B]."""
        check_writable(output)
        checkpoints.check_suffix(output)
        try:
            decoded = self.decoded(self.find(name))
        except FileNotFoundError:
            # A writer put another seed of the same weights in its place meanwhile.
            self.refresh()
            decoded = self.decoded(self.find(name))
        checkpoints.write(decoded, output)
        return int(decoded.data.size)

    def verify(self, names: Sequence[str] = (), progress: Progress | None = None) -> list[tuple[str, str]]:
        """Decode checkpoints and compare all digests; return the names of those that can't be restored, and why.

        Args:
            names: of checkpoints; all of them, and the files of no checkpoint, if there is none.
            progress: called with the number of those that are done, and of all.
        """
        faults: list[tuple[str, str]] = []
        if not names:
            faults += [(file, "the file is damaged") for file in self.chains.damaged]
            faults += [(link.name, str(self._missing(link))) for link in self.chains.broken]
        chosen = [self.find(name) for name in names] or self.checkpoints
        # Nothing that is in memory or decoded already may stand in for a file.
        reader = WeightsReader(self.folder, use_latest=False)
        for place, link in enumerate(chosen):
            if progress is not None:
                progress(place, len(chosen))
            try:
                self._verify(reader, link)
            except (SeedError, OSError) as error:
                faults.append((link.name, str(error)))
        return faults

    def _verify(self, reader: WeightsReader, link: Link) -> None:
        try:
            reader.decode(self._chain(link)).seed.skeleton()
        except (FileNotFoundError, MissingCheckpointError):
            # A writer removed it meanwhile, or put another seed of the same weights in its place.
            self.refresh()
            for each in self.chains.named(link.name):
                if each.number == link.number:
                    reader.decode(self._chain(each)).seed.skeleton()

    def prune(self, keep: Callable[[list[Link]], list[Link]], *, chain: int = CHAIN_USUAL, dry: bool = False) -> Pruned:
        """Remove checkpoints, within `writing`; those that are left give the same weights as before.

        One that was on top of a removed one is coded again on one that is left, or the removed one's seed stays for it,
        whichever takes fewer bytes. On a full disk it stays.

        Args:
            keep: returns those that stay.
            chain: as for `add`.
            dry: write and remove nothing, and don't say what would be coded again; needs no `writing`.

        Raises:
            DamagedArchiveError: a file is damaged or missing, so that nothing is removed.
        """
        if not self.chains.is_whole:
            raise DamagedArchiveError(str(self.folder), [*self.chains.damaged, *(x.name for x in self.chains.broken)])
        before, all_of = self.bytes, self.checkpoints
        left = keep(all_of)
        gone = [link for link in all_of if link not in left]
        if not left:
            raise UsageError("nothing would be left; keep at least one checkpoint, or remove the folder")
        if dry:
            return Pruned([link.name for link in gone], [], 0, before, before)
        self._weights.drop_latest()
        recoded = self._recode(left, chain) if gone else []
        for link in [*gone, *recoded]:
            # From here on it is no checkpoint any more, or not its seed; others may need it all the same.
            os.replace(self._path(link), self.folder / SEEDS / f"{link.digest}{ONLY_BASE}")
        sync_folder(self.folder / SEEDS)
        self._take()
        self._tidy()
        held = sum(suffix == ONLY_BASE for _, suffix in links.files_of(self.folder))
        return Pruned([link.name for link in gone], [link.name for link in recoded], held, before, self.bytes)

    def _recode(self, left: Sequence[Link], chain: int) -> list[Link]:
        """Code checkpoints again that are on top of what won't be left, where that takes fewer bytes than keeping it.

        Returns:
            Those that were, with their old seeds.
        """
        recoded: list[Link] = []
        kept: list[Link] = []
        staying: set[str] = {link.digest for link in left if all(each in left for each in self._chain(link))}
        for link in left:
            if link.digest not in staying:
                below = sum(each.bytes for each in self._chain(link) if each.digest not in staying)
                try:
                    new = self._coded_again(link, chain, kept, below)
                except (OSError, DiskSpaceError) as error:
                    if isinstance(error, OSError) and error.errno not in (errno.ENOSPC, errno.EDQUOT):
                        raise
                    new = None
                if new is not None and new.digest != link.digest:
                    recoded.append(link)
                    link = new
                staying |= {each.digest for each in self._chain(link)}
            kept.append(link)
        return recoded

    def _coded_again(self, link: Link, chain: int, kept: Sequence[Link], below: int) -> Link | None:
        """Code a checkpoint on one of those that are kept; None where that takes as many bytes as what is below it."""
        with checkpoints.graph_of(self.decoded(link)) as graph:
            base = self._choose_base(graph, chain, kept)
            made, data = coding.code(graph, link.name, link.number, base, backends.usable_cores())
            return self._put(made, data, graph, None if made.base is None else base) if made.size < below else None

    def _choose_base(self, graph: Graph, chain: int, among: Sequence[Link] | None = None) -> BaseModel | None:
        """Return the nearest of the last checkpoints; None where its chain is as long as it may be."""
        found = (self.checkpoints if among is None else among)[-_CANDIDATES:] if chain else []
        # Where the seed that a checkpoint is coded from will be removed, all below the new one has to be whole.
        usable = self._usable(found) if among is None else self._rooted(found)
        models = [(link, BaseModel((base := self.decoded(link)).seed, None, base)) for link in usable]
        if not models:
            return None
        link, model = min(models, key=lambda pair: coding.change_of(graph, pair[1])) if len(models) > 1 else models[0]
        return model if link.depth < min(chain, CHAIN_MAX) else None

    def _usable(self, found: Sequence[Link]) -> list[Link]:
        """Return those whose files are whole, now that more is to depend on them; their weights may be in memory."""
        return [link for link in found if links.is_whole(self._path(link), link.digest)]

    def _rooted(self, found: Sequence[Link]) -> list[Link]:
        """Return those whose whole chains are."""
        return [link for link in found if self._usable(chain := self._chain(link)) == chain]

    def _put(self, made: SeedDraft, data: npt.NDArray[np.uint8], graph: Graph, base: BaseModel | None) -> Link:
        """Write a seed whose weights are known, and take note of it; it gives the graph's tensors, or none appears."""
        below = None if base is None else base.seed
        part = self.folder / SEEDS / f".seed-{os.getpid()}.part"
        try:
            with open(part, "wb") as file:
                made.write_into(file)
                file.flush()
                os.fsync(file.fileno())
            written = seed_runtime.open(part, enforce=False, base=below)
            if not checkpoints.gives(Decoded(written, data), graph):
                raise SeedError(f"{made.header.model.model_id} would be restored otherwise; report this with the file")
            digest = written.digest.hex()
            os.replace(part, self.folder / SEEDS / f"{digest}{CHECKPOINT}")
        finally:
            part.unlink(missing_ok=True)
        sync_folder(self.folder / SEEDS)
        self._take()
        link = self.chains.links[digest]
        self._weights.keep(Decoded(self._weights.open(link, below), data))
        return link

    def _take(self) -> None:
        """Look which seeds there are now; the headers of those that were there aren't read again."""
        self.chains = Chains(links.scan(self.folder, self.chains.links.values()))

    def _tidy(self) -> None:
        """Remove what no checkpoint needs; nothing where a file is damaged or missing."""
        reader = WeightsReader(self.folder, use_latest=False)
        for link, other in self.chains.twins() if self.chains.is_whole else ():
            # A kill left a checkpoint twice, and its tensors in another order: their values decide, not their names.
            with contextlib.suppress(SeedError):
                if checkpoints.same(reader.decode(self._chain(link)), reader.decode(self._chain(other))):
                    os.replace(self._path(other), self.folder / SEEDS / f"{other.digest}{ONLY_BASE}")
                    self._take()
        if len(self._rooted(self.chains.doubled)) < len(self.chains.doubled):
            return  # The other seed may be the whole one.
        for digest in self.chains.demoted:
            os.replace(self.folder / SEEDS / f"{digest}{CHECKPOINT}", self.folder / SEEDS / f"{digest}{ONLY_BASE}")
        for digest, suffix in self.chains.unneeded:
            (self.folder / SEEDS / f"{digest}{suffix}").unlink(missing_ok=True)
        if self.chains.demoted or self.chains.unneeded:
            self._take()

    def _chain(self, link: Link) -> list[Link]:
        chain = self.chains.chain(link)
        if chain is None:
            raise self._missing(link)
        return chain

    def _missing(self, link: Link) -> MissingCheckpointError:
        below = link
        while below.base is not None and (found := self.chains.links.get(below.base)) is not None:
            below = found
        return MissingCheckpointError(link.name, str(self.folder), below.base or below.digest)

    def _path(self, link: Link) -> Path:
        path = self.folder / SEEDS / f"{link.digest}{CHECKPOINT}"
        return path if path.exists() else path.with_suffix(ONLY_BASE)

    def _added(self, link: Link, source_bytes: int, start: float, tensors: int | None = None) -> Added:
        return Added(link, self.base_name(link), source_bytes, time.perf_counter() - start, tensors)
