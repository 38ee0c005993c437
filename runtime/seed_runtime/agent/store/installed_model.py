"""One model on this device, as a folder in which every change is one rename.

    lock                          held by the process that changes this model
    versions/<digest>/            model.seed and record.json: never changed once they are there; a seed with a base
                                  stands on the version with the base's digest, see chains.py
    current -> versions/<digest>  the version that runs
    history.jsonl                 the order of events
    pushing                       the digest of the transfer that was begun last
    wanted                        grows while a process waits for the lock
    service.json                  if a service was installed

What a rename publishes is on the disk before it, and the rename itself is on the disk before the next step. A process
that is killed leaves hidden names behind (.<digest>.new, .<digest>.old, .current.*), which the next one that takes the
lock removes or completes. No link is followed but `current`, if it has exactly this form.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from seed_runtime.agent.store import history, partial
from seed_runtime.errors import TrustError, UsageError
from seed_runtime.format.preamble import DIGEST
from seed_runtime.stored_bases import SEED_FILE
from seed_runtime.system.files import atomic_write, write_synced
from seed_runtime.system.locks import lock_within
from seed_runtime.system.sync import make_folder, sync_folder

if TYPE_CHECKING:
    from seed_runtime.agent.store.store import Store

RECORD_FILE: Final = "record.json"
"""The name of the file with what an installation noted about a version."""
SERVICE_FILE: Final = "service.json"
"""The name of the file with the settings of the model's service."""
_SMALL_FILE_MAX: Final = 1 << 16
"""Bytes read of a small file."""
_WANTED_MAX: Final = 64
"""Size in bytes at which the file `wanted` is emptied."""
_LINK: Final = re.compile(r"versions/([0-9a-f]{64})")
_HIDDEN: Final = re.compile(r"\.([0-9a-f]{64})\.(new|old)")
_LEFTOVER: Final = re.compile(r"\.current\.[0-9a-f]{8}|\.seed-[0-9a-f]{8}\.part|wanted")


class InstalledModel:
    """One model by its name. Methods that change it need its lock; those that read need none."""

    def __init__(self, store: Store, name: str) -> None:
        """Name a model of a store, be it there or not. `Store.model` checks the name."""
        self.store, self.name = store, name
        self.folder = store.models / name
        self.versions = self.folder / "versions"
        self.link = self.folder / "current"

    def seed_path(self, digest: str) -> Path:
        """Return where the seed of a version is."""
        return self.versions / digest / SEED_FILE

    @property
    def running(self) -> str | None:
        """The digest that `current` names, if that version is there."""
        with contextlib.suppress(OSError):
            match = _LINK.fullmatch(os.readlink(self.link))
            if match and self.has(match[1]):
                return match[1]
        return None

    @property
    def has_service(self) -> bool:
        """True if a service was installed, or its installation begun."""
        return (self.folder / SERVICE_FILE).is_file()

    def has(self, digest: str) -> bool:
        """Return whether this version is stored."""
        folder = self.versions / digest
        return folder.is_dir() and not folder.is_symlink()

    def digests(self) -> list[str]:
        """Return the digests of all versions, sorted."""
        return sorted(name for name in list_names(self.versions) if DIGEST.fullmatch(name) and self.has(name))

    def is_empty(self) -> bool:
        """Return whether there is neither a version nor a part of one."""
        return self.partial_digest() is None and not self.digests()

    def previous(self) -> str | None:
        """Return the version that a rollback would activate; None if there is none."""
        return history.previous(history.read(self.folder), self.running, self.digests())

    def record(self, digest: str) -> dict[str, Any]:
        """Return what was noted when a version was installed; the digest alone if that can't be read."""
        with contextlib.suppress(OSError, ValueError, RecursionError):
            found = json.loads(_read_small(self.versions / digest / RECORD_FILE))
            if isinstance(found, dict):
                return {**found, "digest": digest}
        return {"digest": digest}

    def partial_digest(self) -> str | None:
        """Return the digest whose transfer was begun last, if a part of it is here and it isn't installed."""
        with contextlib.suppress(OSError, ValueError):
            digest = _read_small(self.folder / "pushing").decode().strip()
            if DIGEST.fullmatch(digest) and self.store.partial_path(digest).is_file() and not self.has(digest):
                return digest
        return None

    def find(self, prefix: str) -> str:
        """Return the one version whose digest begins with `prefix`.

        Raises:
            UsageError: there is none, or more than one.
        """
        found = [digest for digest in self.digests() if digest.startswith(prefix)]
        if len(found) == 1:
            return found[0]
        stored = ", ".join(digest[:12] for digest in found or self.digests()) or "none"
        what = "more than one version begins" if found else "no version begins"
        raise UsageError(f"{self.name}: {what} with {prefix}; there are: {stored}; name one of them")

    # Changes

    @contextlib.contextmanager
    def locked(self, wait_s: float) -> Iterator[None]:
        """Hold the model's lock, after repairing what a killed process left.

        A model that is empty at the end is removed.

        Args:
            wait_s: how long to wait for a process that holds the lock, in seconds.

        Raises:
            BusyError: it still holds the lock after that.
        """
        make_folder(self.folder)
        busy = f"another push to {self.name} is under way on {os.uname().nodename}; wait for it, or run this again"
        lock = lock_within(self.folder / "lock", wait_s, busy, on_retry=self._mark_waiting)
        try:
            self._recover()
            yield
        finally:
            # Not if it was removed within the block: another process may have created a model of this name since.
            if lock.is_in_place() and self.is_empty() and not self.has_service:
                with contextlib.suppress(OSError):
                    self.remove()
            lock.close()

    def waiting_mark(self) -> int | None:
        """Return a number that changes for as long as a process waits for the lock; None if none waited."""
        with contextlib.suppress(OSError):
            return (self.folder / "wanted").stat().st_size
        return None

    def _mark_waiting(self) -> None:
        # The mark is the file's length and not its time, since clocks jump.
        with contextlib.suppress(OSError), open(self.folder / "wanted", "ab") as file:
            if file.tell() >= _WANTED_MAX:
                file.truncate(0)
            file.write(b".")

    def note_transfer(self, digest: str) -> None:
        """Note that the transfer of this version begins."""
        with atomic_write(self.folder / "pushing") as file:
            file.write(digest.encode() + b"\n")

    def add_version(self, digest: str, part: Path, record: dict[str, Any]) -> None:
        """Make a transferred seed the version `digest`, in one step and on the disk.

        Args:
            digest: the version. One that is stored already is replaced: it was found damaged.
            part: the seed, which has been checked. It is moved, and stays where it is on an error.
            record: what to note about it.
        """
        make_folder(self.versions)
        new, final = self.versions / f".{digest}.new", self.versions / digest
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        try:
            write_synced(new / RECORD_FILE, json.dumps(record, sort_keys=True).encode() + b"\n")
            with partial.open_file(part, "rb") as file:
                os.fsync(file.fileno())
            part.rename(new / SEED_FILE)
            try:
                sync_folder(new)
                # There is one only if it was found damaged, see Agent.begin.
                old = self._hide_version(digest)
                new.rename(final)
            except BaseException:
                if not final.exists() and not part.exists():
                    (new / SEED_FILE).rename(part)
                raise
        finally:
            shutil.rmtree(new, ignore_errors=True)
        sync_folder(self.versions)
        sync_folder(part.parent)
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)
        with contextlib.suppress(OSError):
            (self.folder / "pushing").unlink(missing_ok=True)

    @contextlib.contextmanager
    def switched_to(self, digest: str) -> Iterator[None]:
        """Point `current` at this version, and back at the one before if the block fails."""
        before = self.running
        # Created before the switch: on a full disk there would be no way back.
        back = self._new_link(before) if before is not None else None
        try:
            self.set_current(digest)
            yield
        except BaseException:
            if back is not None:
                os.replace(back, self.link)
            else:
                self.link.unlink(missing_ok=True)
            sync_folder(self.folder)
            raise
        finally:
            self._remove_leftover_files()

    def set_current(self, digest: str) -> None:
        """Point `current` at this version, in one step and on the disk."""
        os.replace(self._new_link(digest), self.link)
        sync_folder(self.folder)

    def clear_current(self) -> None:
        """Remove `current`, so that no version runs."""
        self.link.unlink(missing_ok=True)
        sync_folder(self.folder)

    def remove_versions(self, digests: Iterable[str]) -> int:
        """Remove versions, none of which may be running. Return their size in bytes."""
        hidden = [path for digest in digests if (path := self._hide_version(digest)) is not None]
        if not hidden:
            return 0
        sync_folder(self.versions)
        return self._remove_hidden(hidden)

    def remove(self) -> None:
        """Remove the whole model. The lock is still held afterwards, on a file that has no name any more."""
        old = self.store.models / f".{self.name}.{secrets.token_hex(4)}.old"
        self.folder.rename(old)
        sync_folder(self.store.models)
        shutil.rmtree(old, ignore_errors=True)

    def _new_link(self, digest: str) -> Path:
        """Create a link to this version that hasn't taken the place of `current` yet."""
        path = self.folder / f".current.{secrets.token_hex(4)}"
        path.symlink_to(f"versions/{digest}")
        return path

    def _remove_leftover_files(self) -> None:
        for name in list_names(self.folder):
            if _LEFTOVER.fullmatch(name):
                with contextlib.suppress(OSError):
                    (self.folder / name).unlink()

    def _hide_version(self, digest: str) -> Path | None:
        """Rename a version to its hidden name, from which it can be removed. Return the path; None if there is none."""
        old = self.versions / f".{digest}.old"
        shutil.rmtree(old, ignore_errors=True)
        try:
            (self.versions / digest).rename(old)
        except FileNotFoundError:
            return None
        return old

    def _remove_hidden(self, paths: list[Path]) -> int:
        """Remove versions that have hidden names. Return their size in bytes."""
        digests = [_HIDDEN.sub(r"\1", path.name) for path in paths]
        size = sum(entry.stat().st_size for path in paths for entry in path.iterdir())
        with contextlib.ExitStack() as last:
            try:
                # Before they are removed: a version that isn't there must not be listed as stored.
                self.store.forget_versions(digests)
            except (OSError, TrustError):
                last.callback(self.store.forget_versions, digests)  # a full disk may have space for it afterwards
            for path in paths:
                shutil.rmtree(path, ignore_errors=True)
        return size

    def _recover(self) -> None:
        """Complete or remove what killed processes left. The lock is held."""
        self._remove_leftover_files()
        if self.partial_digest() is None:
            (self.folder / "pushing").unlink(missing_ok=True)
        hidden = [match for name in list_names(self.versions) if (match := _HIDDEN.fullmatch(name))]
        for match in hidden:
            path, digest, kind = self.versions / match[0], match[1], match[2]
            if kind == "new":
                # Its seed has been checked already and is worth a transfer, so it becomes a partial transfer again.
                part = self.store.partial_path(digest)
                if (path / SEED_FILE).is_file() and not part.exists() and not self.has(digest):
                    (path / SEED_FILE).rename(part)
                    sync_folder(part.parent)
                shutil.rmtree(path, ignore_errors=True)
            elif not self.has(digest) and self._is_current(digest):
                path.rename(self.versions / digest)
            else:
                self._remove_hidden([path])
        if hidden:
            sync_folder(self.versions)

    def _is_current(self, digest: str) -> bool:
        """Return whether `current` names this version, be it there or not."""
        with contextlib.suppress(OSError):
            return os.readlink(self.link) == f"versions/{digest}"
        return False


def list_names(folder: Path) -> list[str]:
    """Return the names in a folder, sorted; none if there is no such folder."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return sorted(os.listdir(folder))
    return []


def _read_small(path: Path) -> bytes:
    with partial.open_file(path, "rb") as file:
        return file.read(_SMALL_FILE_MAX)
