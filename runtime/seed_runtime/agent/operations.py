"""Carries out what a client asks for: the operations of a push, one after the other, for as long as the client lives.

Locks are held by this process: they are free again the moment it ends, however it ends. The order of an answer's
effects is the one that the device survives: what is new is whole and on the disk before `current` names it, and what
is old goes after that.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import traceback
from collections.abc import Iterator
from typing import Any, Final

from seed_runtime.agent import activation
from seed_runtime.agent import status as looking
from seed_runtime.agent.protocol import Gone, Wire, answer_for, checked
from seed_runtime.agent.store import history, partial
from seed_runtime.agent.store.installed_model import Model
from seed_runtime.agent.store.store import Store
from seed_runtime.errors import DiskSpaceError, SeedError, UsageError
from seed_runtime.system.locks import FileLock, lock_within
from seed_runtime.version import __version__

STALL_S: Final = 60.0
"""How long a transfer may stand still before another push may take its place."""
ROOM: Final = 1 << 20
"""What a push needs beside the seed and its weights: records, folders, journals [B]."""
WAIT_S: Final = 5.0
"""How long an operation that wasn't begun waits for the lock."""


class Agent:
    """All operations; each takes its checked fields and returns what its answer holds beside `ok`."""

    def __init__(self, wire: Wire, store: Store | None = None) -> None:
        self._wire = wire
        self._store = store or Store()
        self._held = contextlib.ExitStack()
        self._begun: tuple[str, str] | None = None
        """Name and digest of the push whose locks are held."""
        self._moved: tuple[int, float] = (0, 0.0)
        """Size of the partial file when it last grew, and when that was."""
        self._sure = 0
        """Bytes of the partial file that the seed's digests have confirmed."""
        self._wanted: int | None = None
        self._passed: set[str] = set()
        """Versions that this process has checked in full."""

    def serve(self) -> None:
        """Answer until the client ends."""
        self._wire.hello()
        try:
            while True:
                try:
                    request = self._wire.request(self._idle)
                    if request is None:
                        return
                    with self._wire.beating(str(request.get("op"))[:20]):
                        answer = self.answer(request)
                except Exception as error:
                    answer = answer_for(error)
                self._wire.send(answer)
        except Gone:
            pass
        finally:
            self.release()

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """What one request gets; errors are answers, too."""
        try:
            op, fields = checked(request)
            done = {"ok": True, **getattr(self, op)(**fields)}
            self._moved = (self._moved[0], time.monotonic())
            return done
        except Exception as error:
            if os.environ.get("SEED_DEBUG"):
                traceback.print_exc()
            return answer_for(error)

    # Looking

    def facts(self) -> dict[str, Any]:
        from seed_runtime.agent import facts

        return {"facts": facts.collect()}

    def status(self, name: str | None) -> dict[str, Any]:
        names = [name] if name is not None else self._store.names()
        models = [model for each in names if not (model := self._store.model(each)).is_empty()]
        free = shutil.disk_usage(looking.existing(self._store.home)).free
        return {"models": looking.describe(models), "runtime": __version__, "disk_free": free}

    def log(self, name: str, lines: int) -> dict[str, Any]:
        model = self._known(name)
        service: list[str] = []
        if model.has_service:
            from seed_runtime.agent.service import service as unit

            service = unit.log(name, lines)
        told = history.read(model.folder)[-lines:]
        return {"lines": looking.newest(told), "service": looking.newest(service[-lines:])}

    # Changing

    def begin(self, name: str, digest: str, file_size: int, weights_bytes: int, wait_s: float) -> dict[str, Any]:
        self.release()
        model, part = self._store.model(name), self._store.part(digest)
        report = self._wire.report
        report("begin", 0, file_size)
        with contextlib.ExitStack() as held:
            held.enter_context(model.locked(wait_s))
            self._settle(model)
            self._store.tidy(digest)
            state, have = "partial", 0
            tail: list[str] = []
            # What is damaged is sent again, and replaced.
            if model.has(digest) and partial.is_whole(model.seed(digest), digest):
                self._passed.add(digest)
                done = model.running == digest and activation.ran_last(model, digest)
                state, have = "current" if done else "kept", file_size
            else:
                busy = "this seed is being pushed under another name; wait, or run this again"
                held.callback(_unlock_part, lock_within(part, wait_s, busy))
                front, tail = partial.trim(part, digest, lambda done, total: report("begin", done, total))
                if front.file_size not in (None, file_size):
                    raise UsageError(f"file_size is {file_size}, and its header says {front.file_size}; send that")
                have = front.have
                # What the tail takes is on the disk already, and is free again if another one is sent for it.
                there = part.stat().st_size
                self._need_disk(digest, max(0, file_size - there), front.weights_size or weights_bytes)
                model.note_pushing(digest)
            report("begin", file_size, file_size)
            self._held = held.pop_all()
        self._begun, self._moved, self._wanted = (name, digest), (have, time.monotonic()), model.wanted()
        if state == "partial":
            report("receive", have, file_size)
        self._sure = have
        return {"state": state, "have": have, "path": str(part), "tail": tail, "block": partial.BLOCK}

    def resume(self, have: int) -> dict[str, Any]:
        """Go on behind `have` bytes: those that begin confirmed, and blocks behind them that the client knows."""
        if self._begun is None or have < self._sure:
            raise UsageError(f"have is {have} and {self._sure} bytes are known to be right; begin first")
        partial.cut(self._store.part(self._begun[1]), have)
        self._moved = (have, time.monotonic())
        return {"have": have}

    def install(self, name: str, digest: str, max_memory: int | None) -> dict[str, Any]:
        if self._begun != (name, digest) or not self._store.part(digest).is_file():
            raise UsageError(
                f"nothing of {digest[:12]} was sent for {name} since begin; begin first, and send the seed"
            )
        from seed_runtime.agent import install

        model = self._store.model(name)
        with self._failures(model, "install", digest):
            done = install.install(model, self._store.part(digest), digest, max_memory, self._wire.report)
        self._passed.add(digest)
        return done

    def switch(self, name: str, digest: str, keep: int) -> dict[str, Any]:
        with self._locked(name) as model:
            if not model.has(digest):
                raise UsageError(f"{name} has no version {digest[:12]}; push it first")
            before = model.running
            with self._failures(model, "switch", digest):
                activation.change(model, digest, "switch", self._passed, self._wire.report)
            previous = model.previous() if before == digest else before
            return {"previous": previous, "removed": activation.prune(model, keep, self._wire.report)}

    def rollback(self, name: str, to: str | None) -> dict[str, Any]:
        with self._locked(name) as model:
            target = model.find(to) if to else model.previous()
            if target is None:
                kept = ", ".join(each[:12] for each in model.digests()) or "none"
                raise UsageError(
                    f"{name}: no other version ran before; kept are: {kept}; name one of them, or push one"
                )
            with self._failures(model, "rollback", target):
                activation.change(model, target, "rollback", self._passed, self._wire.report)
            return {"current": target, "previous": model.previous()}

    def remove(self, name: str, digest: str | None, all: bool) -> dict[str, Any]:  # noqa: A002 - its name on the wire
        with self._locked(name) as model:
            running = model.running
            if digest is not None:
                found = model.find(digest)
                if found == running:
                    raise UsageError(
                        f"{name}: {found[:12]} is running; switch to another version first, or remove all of {name}"
                    )
                chosen = [found]
            else:
                chosen = [each for each in model.digests() if all or each != running]
            if all and digest is None:
                from seed_runtime.agent.service import service as unit

                unit.remove(self._store, name)
                if (pushing := model.pushing()) is not None:
                    self._store.part(pushing).unlink(missing_ok=True)
                model.unpoint()
            size = model.drop(chosen)
            if all and digest is None:
                model.remove()
            return {"removed": chosen, "bytes": size}

    def service(self, name: str, action: str, address: str | None, memory_max: int | None) -> dict[str, Any]:
        from seed_runtime.agent.service import service as unit

        if action == "status":
            self._known(name)
            return {"service": unit.status(self._store, name)}
        with self._locked(name) as model:
            if action == "remove":
                unit.remove(self._store, name)
                return {"service": None}
            if model.running is None:
                raise UsageError(f"{name} has no version that runs; push one first")
            done = unit.install(self._store, name, address, memory_max)
            activation.confirm(model)
            return {"service": done}

    def release(self) -> dict[str, Any]:
        """Let go of what `begin` took."""
        self._begun = None
        self._held.close()
        return {}

    # Parts of these

    def _idle(self) -> None:
        """Make way for a push that waits, if ours has stood still: its link may be dead, unknown to this side."""
        if self._begun is None:
            return
        name, digest = self._begun
        with contextlib.suppress(OSError):
            size = self._store.part(digest).stat().st_size
            if size != self._moved[0]:
                self._moved = (size, time.monotonic())
        if time.monotonic() - self._moved[1] < STALL_S:
            self._wanted = self._store.model(name).wanted()
        elif self._store.model(name).wanted() != self._wanted:
            raise Gone

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[Model]:
        model = self._store.model(name)
        if self._begun and self._begun[0] == name:
            yield model
            return
        self._known(name)
        with model.locked(WAIT_S):
            self._settle(model)
            yield model

    def _settle(self, model: Model) -> None:
        """End a switch that was killed: its service serves what is confirmed, as far as it can."""
        if activation.settle(model):
            from seed_runtime.agent.service import service as unit

            with contextlib.suppress(SeedError, OSError):
                unit.restart(self._store, model.name)

    def _known(self, name: str) -> Model:
        model = self._store.model(name)
        if model.is_empty() and not model.has_service:
            there = ", ".join(self._store.names()) or "none"
            raise UsageError(f"there is no model {name} on this device; there are: {there}")
        return model

    @contextlib.contextmanager
    def _failures(self, model: Model, what: str, digest: str) -> Iterator[None]:
        """Note in the history what fails."""
        try:
            yield
        except Exception as error:
            with contextlib.suppress(OSError):
                history.append(model.folder, what, digest, str(answer_for(error)["error"]))
            raise

    def _need_disk(self, digest: str, seed_bytes: int, weights_bytes: int) -> None:
        """DiskSpaceError unless the rest of the seed and its assembled weights have room where they go.

        Cached models that nobody uses make way for them.
        """
        from seed_runtime.system import paths

        root = paths.cache_home() / "models"
        assembled = (root / digest).is_dir()
        needs = [(self._store.home, seed_bytes + ROOM), (looking.existing(root), 0 if assembled else weights_bytes)]
        cached_on = os.stat(needs[1][0]).st_dev
        if os.stat(needs[0][0]).st_dev == cached_on:
            needs = [(self._store.home, needs[0][1] + needs[1][1])]
        for folder, needed in needs:
            if shutil.disk_usage(folder).free < needed and os.stat(folder).st_dev == cached_on:
                from seed_runtime.assembly.cache import ModelCache  # brings NumPy

                ModelCache(root, 0).free_disk(needed, spare=digest)
            if (free := shutil.disk_usage(folder).free) < needed:
                raise DiskSpaceError(str(folder), needed, free)


def _unlock_part(lock: FileLock) -> None:
    """Unlock a partial file, and remove it if nothing has arrived."""
    with lock, contextlib.suppress(OSError):
        if os.fstat(lock.descriptor).st_size == 0 and lock.is_in_place():
            lock.path.unlink()
