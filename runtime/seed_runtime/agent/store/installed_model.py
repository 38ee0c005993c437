"""One model on this device, as a folder in which every change is one rename.

    lock                          held by whoever changes this model
    versions/<digest>/            model.seed and record.json: never changed once they are there
    current -> versions/<digest>  what runs
    history.jsonl                 the order of events
    pushing                       the digest whose transfer was begun last
    wanted                        grows while somebody waits for the lock
    service.json                  if a service was installed

What is published by a rename is on the disk before it, and the rename itself before the next step. A process that is
killed leaves hidden names behind (.<digest>.new, .<digest>.old, .current.*), which the next one that takes the lock
removes or completes. No link is followed but `current` of exactly this form.
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
from seed_runtime.system.files import atomic_write, write_synced
from seed_runtime.system.locks import lock_within
from seed_runtime.system.sync import make_folder, sync_folder

if TYPE_CHECKING:
    from seed_runtime.agent.store.store import Store

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
DIGEST: Final = re.compile(r"[0-9a-f]{64}")
SEED_FILE: Final = "model.seed"
RECORD_FILE: Final = "record.json"
SERVICE_FILE: Final = "service.json"
_SMALL_FILE_MAX: Final = 1 << 16
_WANTED_MAX: Final = 64
_LINK: Final = re.compile(r"versions/([0-9a-f]{64})")
_HIDDEN: Final = re.compile(r"\.([0-9a-f]{64})\.(new|old)")
_LEFT: Final = re.compile(r"\.current\.[0-9a-f]{8}|\.seed-[0-9a-f]{8}\.part|wanted")


class Model:
    """One named model. What changes it needs its lock; what reads it needs none."""

    def __init__(self, store: Store, name: str) -> None:
        self.store, self.name = store, name
        self.folder = store.models / name
        self.versions = self.folder / "versions"
        self.link = self.folder / "current"

    def seed(self, digest: str) -> Path:
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
        return (self.folder / SERVICE_FILE).is_file()

    def has(self, digest: str) -> bool:
        folder = self.versions / digest
        return folder.is_dir() and not folder.is_symlink()

    def digests(self) -> list[str]:
        return sorted(name for name in listed(self.versions) if DIGEST.fullmatch(name) and self.has(name))

    def is_empty(self) -> bool:
        return self.pushing() is None and not self.digests()

    def previous(self) -> str | None:
        return history.previous(history.read(self.folder), self.running, self.digests())

    def record(self, digest: str) -> dict[str, Any]:
        """What was noted when it was installed; the digest alone if that can't be read."""
        with contextlib.suppress(OSError, ValueError, RecursionError):
            found = json.loads(_small_file(self.versions / digest / RECORD_FILE))
            if isinstance(found, dict):
                return {**found, "digest": digest}
        return {"digest": digest}

    def pushing(self) -> str | None:
        """The digest whose transfer was begun last and has not been installed, if anything of it is here."""
        with contextlib.suppress(OSError, ValueError):
            digest = _small_file(self.folder / "pushing").decode().strip()
            if DIGEST.fullmatch(digest) and self.store.part(digest).is_file() and not self.has(digest):
                return digest
        return None

    def find(self, prefix: str) -> str:
        """The one version whose digest begins so."""
        found = [digest for digest in self.digests() if digest.startswith(prefix)]
        if len(found) == 1:
            return found[0]
        there = ", ".join(digest[:12] for digest in found or self.digests()) or "none"
        what = "more than one version begins" if found else "no version begins"
        raise UsageError(f"{self.name}: {what} with {prefix}; there are: {there}")

    # Changes

    @contextlib.contextmanager
    def locked(self, wait_s: float) -> Iterator[None]:
        """Hold the lock, once what a killed process left has been put right. BusyError after `wait_s`."""
        make_folder(self.folder)
        busy = f"another push to {self.name} is under way on {os.uname().nodename}; wait for it, or run this again"
        lock = lock_within(self.folder / "lock", wait_s, busy, on_retry=self._want)
        try:
            self._recover()
            yield
        finally:
            # A folder that holds nothing is removed, but not one that another process has created since a `remove`.
            if lock.is_in_place() and self.is_empty() and not self.has_service:
                with contextlib.suppress(OSError):
                    self.remove()
            lock.close()

    def wanted(self) -> int | None:
        """Changes for as long as somebody waits for the lock."""
        with contextlib.suppress(OSError):
            return (self.folder / "wanted").stat().st_size
        return None

    def _want(self) -> None:
        # Its length, not its time: clocks jump. It is emptied once it gets long.
        with contextlib.suppress(OSError), open(self.folder / "wanted", "ab") as file:
            if file.tell() >= _WANTED_MAX:
                file.truncate(0)
            file.write(b".")

    def note_pushing(self, digest: str) -> None:
        with atomic_write(self.folder / "pushing") as file:
            file.write(digest.encode() + b"\n")

    def place(self, digest: str, part: Path, record: dict[str, Any]) -> None:
        """Make `part`, which has been checked, the version `digest`, in one step and on the disk."""
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
                # There only if it was found damaged, see Agent.begin.
                old = self._set_aside(digest)
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
    def pointed(self, digest: str) -> Iterator[None]:
        """Let `current` name this version, in one step and on the disk; if the block fails, the one before again."""
        before = self.running
        # Made first: on a full disk there is no going back otherwise.
        back = self._beside(before) if before is not None else None
        try:
            self.point(digest)
            yield
        except BaseException:
            if back is not None:
                os.replace(back, self.link)
            else:
                self.link.unlink(missing_ok=True)
            sync_folder(self.folder)
            raise
        finally:
            self._clear_links()

    def point(self, digest: str) -> None:
        """Let `current` name this version, in one step and on the disk."""
        os.replace(self._beside(digest), self.link)
        sync_folder(self.folder)

    def unpoint(self) -> None:
        """Let nothing run."""
        self.link.unlink(missing_ok=True)
        sync_folder(self.folder)

    def drop(self, digests: Iterable[str]) -> int:
        """Remove these versions; returns their bytes. The caller sees to it that none of them runs."""
        aside = [path for digest in digests if (path := self._set_aside(digest)) is not None]
        if not aside:
            return 0
        sync_folder(self.versions)
        return self._remove_aside(aside)

    def remove(self) -> None:
        """Remove all of it. The lock is held still, but on a file that has no name any more."""
        old = self.store.models / f".{self.name}.{secrets.token_hex(4)}.old"
        self.folder.rename(old)
        sync_folder(self.store.models)
        shutil.rmtree(old, ignore_errors=True)

    def _beside(self, digest: str) -> Path:
        """A link to this version that has not taken its place yet."""
        path = self.folder / f".current.{secrets.token_hex(4)}"
        path.symlink_to(f"versions/{digest}")
        return path

    def _clear_links(self) -> None:
        for name in listed(self.folder):
            if _LEFT.fullmatch(name):
                with contextlib.suppress(OSError):
                    (self.folder / name).unlink()

    def _set_aside(self, digest: str) -> Path | None:
        old = self.versions / f".{digest}.old"
        shutil.rmtree(old, ignore_errors=True)
        try:
            (self.versions / digest).rename(old)
        except FileNotFoundError:
            return None
        return old

    def _remove_aside(self, paths: list[Path]) -> int:
        digests = [_HIDDEN.sub(r"\1", path.name) for path in paths]
        size = sum(entry.stat().st_size for path in paths for entry in path.iterdir())
        with contextlib.ExitStack() as last:
            try:
                # Before they go: what is there no more must not be remembered as kept.
                self.store.forget(digests)
            except (OSError, TrustError):
                last.callback(self.store.forget, digests)  # a full disk may have room for this afterwards
            for path in paths:
                shutil.rmtree(path, ignore_errors=True)
        return size

    def _recover(self) -> None:
        """Complete or remove what killed processes left; called under the lock."""
        self._clear_links()
        if self.pushing() is None:
            (self.folder / "pushing").unlink(missing_ok=True)
        left = [match for name in listed(self.versions) if (match := _HIDDEN.fullmatch(name))]
        for match in left:
            path, digest, kind = self.versions / match[0], match[1], match[2]
            if kind == "new":
                # Checked already, and worth a transfer.
                part = self.store.part(digest)
                if (path / SEED_FILE).is_file() and not part.exists() and not self.has(digest):
                    (path / SEED_FILE).rename(part)
                    sync_folder(part.parent)
                shutil.rmtree(path, ignore_errors=True)
            elif not self.has(digest) and self._linked(digest):
                path.rename(self.versions / digest)
            else:
                self._remove_aside([path])
        if left:
            sync_folder(self.versions)

    def _linked(self, digest: str) -> bool:
        with contextlib.suppress(OSError):
            return os.readlink(self.link) == f"versions/{digest}"
        return False


def listed(folder: Path) -> list[str]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return sorted(os.listdir(folder))
    return []


def _small_file(path: Path) -> bytes:
    with partial.open_file(path, "rb") as file:
        return file.read(_SMALL_FILE_MAX)
