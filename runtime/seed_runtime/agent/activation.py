"""Activate a version of a model, and remove versions that are too old.

If anything fails, the service included, the version that ran before runs again. A switch is confirmed by its line in
the history, which is written after the service has answered. If the process was killed or the device lost its power
before that, nobody knows whether the new version can be served.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from seed_runtime.agent.protocol.failures import failure_answer
from seed_runtime.agent.protocol.transport import Report
from seed_runtime.agent.store import history, partial
from seed_runtime.agent.store.chains import Chains
from seed_runtime.agent.store.installed_model import InstalledModel
from seed_runtime.errors import FormatError, SeedError, UsageError


class OtherModelError(UsageError):
    """A switch would replace a model by another one that has the same name, which nobody asked for."""


def check_replacement(model: InstalledModel, digest: str) -> None:
    """Check that a version is of the same model as the one that runs; the model is locked.

    A version whose record names no model counts as the same.

    Raises:
        OtherModelError: it is another model's.
    """
    running = model.running
    if running is None or running == digest:
        return
    there, new = model.record(running).get("model_id"), model.record(digest).get("model_id")
    if there is not None and new is not None and there != new:
        raise OtherModelError(
            f"{model.name} is {there} here, and {digest[:12]} is {new}: another model; push it with --replace if that "
            f"is meant, or under another name"
        )


def activate(model: InstalledModel, digest: str, event: str, verified: set[str], report: Report) -> None:
    """Let a version run, its service included. The model is locked.

    Args:
        model: the model.
        digest: the version, which is stored.
        event: "switch" or "rollback", for the history.
        verified: versions that this process has checked in full; `digest` and what it stands on are added.
        report: called with the progress.

    Raises:
        FormatError: the version, or one that it stands on, is damaged.
        MissingLinkError: one that it stands on isn't stored.
        TrustError: this device doesn't accept it.
        ServiceError: its service doesn't become ready.
    """
    import seed_runtime
    from seed_runtime import trust

    path, before = model.seed_path(digest), model.running
    report("switch", 0, 1)
    for each in (digest, *Chains(model).below(digest)):
        if each not in verified:
            if not partial.is_whole(model.seed_path(each), each):
                needed = "" if each == digest else f", on which {digest[:12]} stands"
                raise FormatError(f"version {each[:12]}{needed}", "it was damaged on this device's disk")
            verified.add(each)
    # The device's rules may have changed since the version was installed.
    header = seed_runtime.open(path).header
    trust.accept(header, digest, stored=True)
    if before == digest and is_confirmed(model, digest):
        report("switch", 1, 1)
        return
    reserved = None
    if model.has_service:
        from seed_runtime.agent.service import service

        reserved = service.reserve_memory(model.store, model.name, digest)
    try:
        with model.switched_to(digest):
            if model.has_service:
                service.restart(model.store, model.name, reserved)
            history.append(model.folder, event, digest)
    except BaseException as error:
        explained = _restore_service(model, digest, before, error)
        if explained is error:
            raise
        raise explained from error
    report("switch", 1, 1)


def switch(
    model: InstalledModel, digest: str, keep: int, verified: set[str], report: Report, *, replace: bool
) -> dict[str, Any]:
    """Activate a version, and remove the oldest ones beyond `keep`. The model is locked.

    Args:
        model: the model.
        digest: the version, which is stored.
        keep: how many versions to keep, see `prune`.
        verified: as of `activate`.
        report: called with the progress.
        replace: whether it may be of another model id than the one that runs.

    Returns:
        The answer to `switch`.

    Raises:
        OtherModelError: it is another model's, and `replace` is false.
        SeedError: as `activate`.
    """
    before = model.running
    if not replace:
        check_replacement(model, digest)
    with failures_logged(model, "switch", digest):
        activate(model, digest, "switch", verified, report)
    previous = model.previous() if before == digest else before
    return {"previous": previous, "removed": prune(model, keep, report)}


def undo_interrupted_switch(model: InstalledModel) -> bool:
    """Point `current` back at the last confirmed version, if a switch was interrupted. Return whether it was.

    The model is locked, so that no switch is under way. A model without a service needs no confirmation: its version
    has passed the golden sample, and stays.
    """
    if not model.has_service:
        return False
    running, ran = model.running, history.runs(history.read(model.folder))
    if running is None or not ran or ran[-1] == running or not model.has(ran[-1]):
        return False
    model.set_current(ran[-1])
    with contextlib.suppress(OSError):
        history.append(model.folder, "switch", running, "it was interrupted before its service had answered")
    return True


def confirm_current(model: InstalledModel) -> None:
    """Note in the history that the current version runs, since its service has answered. The model is locked."""
    digest = model.running
    if digest is not None and not is_confirmed(model, digest):
        history.append(model.folder, "switch", digest)


def is_confirmed(model: InstalledModel, digest: str) -> bool:
    """Return whether this is the version that was confirmed last. After an interrupted switch to it, it isn't."""
    ran = history.runs(history.read(model.folder))
    return bool(ran) and ran[-1] == digest


def prune(model: InstalledModel, keep: int, report: Report) -> list[str]:
    """Remove versions older than the newest `keep`, except the one that runs and the target of a rollback.

    What a version that stays stands on stays as well, however old it is. Bases that were sent below another version and
    never switched to aren't counted, and stay for no other reason.

    Returns:
        The versions that were removed. Those that couldn't be removed are left to the next push.
    """
    report("prune", 0, 1)
    events = history.read(model.folder)
    newest, bases = history.newest_first(events, model.digests()), history.only_installed(events)
    counted = [digest for digest in newest if digest not in bases]
    chains = Chains(model)
    spared = chains.with_bases([*counted[:keep], model.running, model.previous()])
    removed = chains.last_first(digest for digest in newest if digest not in spared)
    try:
        model.remove_versions(removed)
    except (OSError, SeedError) as error:
        # Not a failure of the switch, which has been done.
        print(f"old versions of {model.name} could not be removed: {error}", file=sys.stderr)
        removed = [digest for digest in removed if not model.has(digest)]
    report("prune", 1, 1)
    return removed


@contextlib.contextmanager
def failures_logged(model: InstalledModel, what: str, digest: str) -> Iterator[None]:
    """Note errors of the block in the model's history.

    Args:
        model: the model.
        what: "install", "switch" or "rollback".
        digest: the version.
    """
    try:
        yield
    except Exception as error:
        with contextlib.suppress(OSError):
            history.append(model.folder, what, digest, str(failure_answer(error)["error"]))
        raise


def _restore_service(model: InstalledModel, digest: str, before: str | None, error: BaseException) -> BaseException:
    """Start the service again with the version before. Return the error to raise, which says what is served now."""
    if not model.has_service:
        return error
    from seed_runtime.agent.service import service, systemd

    serving = "nothing is served"
    if before is not None:
        with contextlib.suppress(SeedError, OSError):
            service.restart(model.store, model.name)
            serving = f"{before[:12]} is served again"
    if not isinstance(error, SeedError):
        return error
    text = f"the service of {model.name} did not become ready with {digest[:12]} ({error})"
    return systemd.ServiceError(f"{text}; {serving}; see: seed-deploy logs HOST:{model.name}", error.exit_code)
