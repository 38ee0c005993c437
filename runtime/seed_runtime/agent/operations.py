"""Carry out what a client asks for: the operations of a push, one after the other, for as long as the client lives.

This process holds the locks, so they are released when it ends, however it ends. The effects of an operation are in an
order that a power cut can't harm: what is new is whole and on the disk before `current` names it, and what is old is
removed after that.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import traceback
from collections.abc import Iterator
from typing import Any, Final

from seed_runtime.agent import activation, disk
from seed_runtime.agent import status as overview
from seed_runtime.agent.protocol.failures import failure_answer
from seed_runtime.agent.protocol.schema import check_request
from seed_runtime.agent.protocol.transport import ClientGone, Transport
from seed_runtime.agent.store import history, partial
from seed_runtime.agent.store.chains import Chains, check_bases, missing_base
from seed_runtime.agent.store.installed_model import InstalledModel
from seed_runtime.agent.store.store import Store
from seed_runtime.agent.store.tuning_folder import TuningFolder
from seed_runtime.agent.tuning_operations import TuningOperations
from seed_runtime.errors import SeedError, UsageError
from seed_runtime.limits import CHAIN_MAX
from seed_runtime.stored_bases import read_base
from seed_runtime.system.locks import FileLock, lock_within
from seed_runtime.version import __version__

STALL_S: Final = 60.0
"""Time without a new byte after which another push may take the place of a transfer, in seconds."""
WAIT_S: Final = 5.0
"""Time that an operation without `begin` waits for the model's lock, in seconds."""


class Agent(TuningOperations):
    """All operations. Each takes the checked fields of a request and returns the fields of its answer beside `ok`.

    Source of the fields: `protocol.schema.OPERATIONS`.
    """

    def __init__(self, transport: Transport, store: Store | None = None) -> None:
        """Serve one client.

        Args:
            transport: the connection to the client.
            store: the store; this user's if None.
        """
        self._transport = transport
        self._store = store or Store()
        self._held = contextlib.ExitStack()
        """The locks of the push that was begun."""
        self._begun: tuple[str, str] | None = None
        """Name and digest of the push that was begun."""
        self._tuned: tuple[str, str] | None = None
        """Name of the model whose fine-tune was begun, and the digest of its samples."""
        self._growth: tuple[int, float] = (0, 0.0)
        """Size of the partial file when it last grew, and the time of that."""
        self._confirmed = 0
        """Bytes of the partial file that the seed's digests have confirmed."""
        self._waiting_mark: int | None = None
        """`InstalledModel.waiting_mark` of the model while the transfer was still growing."""
        self._verified: set[str] = set()
        """Versions that this process has checked in full."""

    def serve(self) -> None:
        """Answer requests until the client leaves, then release all locks."""
        self._transport.send_hello()
        try:
            while True:
                try:
                    request = self._transport.receive(self._leave_if_stalled)
                    if request is None:
                        return
                    with self._transport.heartbeat(str(request.get("op"))[:20]):
                        answer = self.answer(request)
                except Exception as error:
                    answer = failure_answer(error)
                self._transport.send(answer)
        except ClientGone:
            pass
        finally:
            self.release()

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Carry out one request. Return its answer, which may be that of a failure."""
        try:
            op, fields = check_request(request)
            answer = {"ok": True, **getattr(self, op)(**fields)}
            self._growth = (self._growth[0], time.monotonic())
            return answer
        except Exception as error:
            if os.environ.get("SEED_DEBUG"):
                traceback.print_exc()
            return failure_answer(error)

    # Operations that change nothing

    def facts(self) -> dict[str, Any]:
        """Describe this device."""
        from seed_runtime.agent import facts

        return {"facts": facts.collect()}

    def status(self, name: str | None) -> dict[str, Any]:
        """Describe one model, or all of them."""
        names = [name] if name is not None else self._store.names()
        models = [model for each in names if not (model := self._store.model(each)).is_empty()]
        free = disk.free_bytes(self._store.home)
        return {
            "models": overview.describe(models),
            "runtime": __version__,
            "disk_free": free,
            "chain_max": CHAIN_MAX,
        }

    def log(self, name: str, lines: int) -> dict[str, Any]:
        """Return the last events of a model, and the last lines of its service."""
        model = self._require_model(name)
        service: list[str] = []
        if model.has_service:
            from seed_runtime.agent.service import service as services

            service = services.log(name, lines)
        events = history.read(model.folder)[-lines:]
        return {"lines": overview.newest_that_fit(events), "service": overview.newest_that_fit(service[-lines:])}

    def health(self, name: str) -> dict[str, Any]:
        """Ask the server of a model's service how it is; all None where it has no service."""
        from seed_runtime.agent.service import settings
        from seed_runtime.agent.service.health import read_health

        self._require_model(name)
        service = settings.read(self._store, name)
        return {"ready": None, "problem": None, "latency": None} if service is None else read_health(service)

    # Operations that change a model

    def begin(
        self, name: str, digest: str, file_size: int, weights_bytes: int, wait_s: float, base: str | None
    ) -> dict[str, Any]:
        """Lock a model for a push, and find out what of the seed is here already.

        A seed whose base is named and isn't a version of this model is refused before it is sent.

        The locks are held until `release`, the next `begin` or the end of the process.
        """
        self.release()
        model, part = self._store.model(name), self._store.partial_path(digest)
        report = self._transport.report
        report("begin", 0, file_size)
        with contextlib.ExitStack() as held:
            held.enter_context(model.locked(wait_s))
            self._undo_interrupted_switch(model)
            self._store.clean_up(digest)
            state, have = "partial", 0
            tail: list[str] = []
            # A damaged version is transferred again and replaced.
            if model.has(digest) and partial.is_whole(model.seed_path(digest), digest):
                if (found := read_base(model.seed_path(digest))) is not None:
                    check_bases(model, digest, found)
                self._verified.add(digest)
                is_current = model.running == digest and activation.is_confirmed(model, digest)
                state, have = "current" if is_current else "kept", file_size
            else:
                if base is not None and not model.has(base):
                    raise missing_base(digest, base)
                busy = "this seed is being pushed under another name; wait, or run this again"
                held.callback(_unlock_part, lock_within(part, wait_s, busy))
                front, tail = partial.trim(part, digest, lambda done, total: report("begin", done, total))
                if front.file_size not in (None, file_size):
                    raise UsageError(f"file_size is {file_size}, and its header says {front.file_size}; send that")
                have = front.have
                # The bytes after `have` are on the disk already, and are cut off before others are sent for them.
                missing = max(0, file_size - part.stat().st_size)
                disk.require_space(model, digest, base, missing, front.weights_size or weights_bytes)
                model.note_transfer(digest)
            report("begin", file_size, file_size)
            self._held = held.pop_all()
        self._begun, self._growth = (name, digest), (have, time.monotonic())
        self._waiting_mark = model.waiting_mark()
        if state == "partial":
            report("receive", have, file_size)
        self._confirmed = have
        return {"state": state, "have": have, "path": str(part), "tail": tail, "block": partial.BLOCK}

    def resume(self, have: int) -> dict[str, Any]:
        """Cut the partial file to `have` bytes: those that `begin` confirmed, and blocks that the client recognized."""
        if self._begun is None or have < self._confirmed:
            raise UsageError(f"have is {have} and {self._confirmed} bytes are known to be right; begin first")
        partial.cut(self._store.partial_path(self._begun[1]), have)
        self._growth = (have, time.monotonic())
        return {"have": have}

    def install(self, name: str, digest: str, max_memory: int | None) -> dict[str, Any]:
        """Make the seed that was transferred a version. It doesn't run yet."""
        if self._begun != (name, digest) or not self._store.partial_path(digest).is_file():
            raise UsageError(
                f"nothing of {digest[:12]} was sent for {name} since begin; begin first, and send the seed"
            )
        from seed_runtime.agent import install

        model = self._store.model(name)
        with activation.failures_logged(model, "install", digest):
            answer = install.install(
                model, self._store.partial_path(digest), digest, max_memory, self._transport.report
            )
        self._verified.add(digest)
        return answer

    def switch(self, name: str, digest: str, keep: int, replace: bool) -> dict[str, Any]:
        """Activate a version, of another model only with `replace`, then remove the oldest ones beyond `keep`."""
        with self._locked(name) as model:
            if not model.has(digest):
                raise UsageError(f"{name} has no version {digest[:12]}; push it first")
            return activation.switch(model, digest, keep, self._verified, self._transport.report, replace=replace)

    def rollback(self, name: str, to: str | None) -> dict[str, Any]:
        """Activate the version that ran before, or the one whose digest begins with `to`."""
        with self._locked(name) as model:
            target = model.find(to) if to else model.previous()
            if target is None:
                stored = ", ".join(each[:12] for each in model.digests()) or "none"
                raise UsageError(
                    f"{name}: no other version ran before; stored are: {stored}; name one of them, or push one"
                )
            with activation.failures_logged(model, "rollback", target):
                activation.activate(model, target, "rollback", self._verified, self._transport.report)
            return {"current": target, "previous": model.previous()}

    def remove(self, name: str, digest: str | None, all: bool) -> dict[str, Any]:  # noqa: A002 - its name on the wire
        """Remove one version, all but the running one and its bases, or the whole model with its service."""
        with self._locked(name) as model:
            running, chains = model.running, Chains(model)
            if digest is not None:
                found = model.find(digest)
                if found == running:
                    raise UsageError(
                        f"{name}: {found[:12]} is running; switch to another version first, or remove all of {name}"
                    )
                if above := chains.above(found):
                    raise UsageError(
                        f"{name}: {found[:12]} is the base of {', '.join(each[:12] for each in above)}; remove what "
                        f"stands on it first, or remove all of {name}"
                    )
                chosen = [found]
            else:
                spared = set() if all else chains.with_bases([running])
                chosen = chains.last_first(each for each in model.digests() if each not in spared)
            if all and digest is None:
                from seed_runtime.agent.service import service as services

                services.remove(self._store, name)
                if (partial_digest := model.partial_digest()) is not None:
                    self._store.partial_path(partial_digest).unlink(missing_ok=True)
                model.clear_current()
            samples = TuningFolder.of(self._store, name)
            size = samples.clear_if_unused() if digest is None else 0
            if all and digest is None:
                shutil.rmtree(samples.path, ignore_errors=True)
            size += model.remove_versions(chosen)
            if all and digest is None:
                model.remove()
            return {"removed": chosen, "bytes": size}

    def service(self, name: str, action: str, address: str | None, memory_max: int | None) -> dict[str, Any]:
        """Install, remove or describe the service of a model."""
        from seed_runtime.agent.service import service as services

        if action == "status":
            self._require_model(name)
            return {"service": services.status(self._store, name)}
        with self._locked(name) as model:
            if action == "remove":
                services.remove(self._store, name)
                return {"service": None}
            if model.running is None:
                raise UsageError(f"{name} has no version that runs; push one first")
            installed = services.install(self._store, name, address, memory_max)
            activation.confirm_current(model)
            return {"service": installed}

    def release(self) -> dict[str, Any]:
        """Release the locks that `begin` took."""
        self._begun = self._tuned = None
        self._held.close()
        return {}

    def _leave_if_stalled(self) -> None:
        """End this process if its push has stalled and another one waits: the link may be dead without our knowing.

        Raises:
            ClientGone: that is so.
        """
        if self._begun is None:
            return
        name, digest = self._begun
        with contextlib.suppress(OSError):
            size = self._store.partial_path(digest).stat().st_size
            if size != self._growth[0]:
                self._growth = (size, time.monotonic())
        if time.monotonic() - self._growth[1] < STALL_S:
            self._waiting_mark = self._store.model(name).waiting_mark()
        elif self._store.model(name).waiting_mark() != self._waiting_mark:
            raise ClientGone

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[InstalledModel]:
        """Hold the lock of a model that exists. `begin` may have taken it already."""
        model = self._store.model(name)
        if self._begun and self._begun[0] == name:
            yield model
            return
        self._require_model(name)
        with model.locked(WAIT_S):
            self._undo_interrupted_switch(model)
            yield model

    def _undo_interrupted_switch(self, model: InstalledModel) -> None:
        """Undo a switch that was killed, and restart the service with the confirmed version if that is possible."""
        if activation.undo_interrupted_switch(model):
            from seed_runtime.agent.service import service as services

            with contextlib.suppress(SeedError, OSError):
                services.restart(self._store, model.name)

    def _require_model(self, name: str) -> InstalledModel:
        """Return a model of which there is anything, its service included. UsageError otherwise."""
        model = self._store.model(name)
        if model.is_empty() and not model.has_service:
            names = ", ".join(self._store.names()) or "none"
            raise UsageError(f"there is no model {name} on this device; there are: {names}; name one, or push it")
        return model


def _unlock_part(lock: FileLock) -> None:
    """Unlock a partial file, and remove it if nothing has arrived."""
    with lock, contextlib.suppress(OSError):
        if os.fstat(lock.descriptor).st_size == 0 and lock.is_in_place():
            lock.path.unlink()
