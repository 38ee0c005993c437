"""Changes which version of a model runs, and clears away what is too old.

The version that ran before runs again if anything fails, the service included. A switch is confirmed by its line in
the history, which comes after the service has answered: of one whose process was killed before that, or whose device
lost its power, nobody knows whether it can be served.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable

from seed_runtime.agent.store import history, partial
from seed_runtime.agent.store.installed_model import Model
from seed_runtime.errors import FormatError, SeedError

Report = Callable[[str, int, int], None]


def change(model: Model, digest: str, what: str, passed: set[str], report: Report) -> None:
    """Let this version run, by a `what` of "switch" or "rollback". The model is locked.

    `passed`: versions that this process has checked to the last byte; grows.
    """
    import seed_runtime
    from seed_runtime import trust

    path, before = model.seed(digest), model.running
    report("switch", 0, 1)
    if digest not in passed:
        if not partial.is_whole(path, digest):
            raise FormatError(f"version {digest[:12]}", "it was damaged on this device's disk")
        passed.add(digest)
    # Whether this device takes it, today as well.
    header = seed_runtime.open(path).header
    trust.accept(header, digest, kept=True)
    if before == digest and ran_last(model, digest):
        report("switch", 1, 1)
        return
    planned = None
    if model.has_service:
        from seed_runtime.agent.service import service

        planned = service.make_room(model.store, model.name, digest)
    try:
        with model.pointed(digest):
            if model.has_service:
                service.restart(model.store, model.name, planned)
            history.append(model.folder, what, digest)
    except BaseException as error:
        problem = _back(model, digest, before, error)
        if problem is error:
            raise
        raise problem from error
    report("switch", 1, 1)


def settle(model: Model) -> bool:
    """Let the version that was confirmed last be current, where a service runs another one; whether there was need.

    The model is locked, so that no switch is under way. Without a service, what the golden sample passed stays.
    """
    if not model.has_service:
        return False
    running, ran = model.running, history.runs(history.read(model.folder))
    if running is None or not ran or ran[-1] == running or not model.has(ran[-1]):
        return False
    model.point(ran[-1])
    with contextlib.suppress(OSError):
        history.append(model.folder, "switch", running, "it was interrupted before its service had answered")
    return True


def confirm(model: Model) -> None:
    """Note that the current version runs: its service has answered. The model is locked."""
    digest = model.running
    if digest is not None and not ran_last(model, digest):
        history.append(model.folder, "switch", digest)


def ran_last(model: Model, digest: str) -> bool:
    """Whether the history knows that this version runs; not if the process was killed within the switch."""
    ran = history.runs(history.read(model.folder))
    return bool(ran) and ran[-1] == digest


def prune(model: Model, keep: int, report: Report) -> list[str]:
    """Remove what is older than the newest `keep`; never what runs, nor where a rollback leads."""
    report("prune", 0, 1)
    newest = history.newest_first(history.read(model.folder), model.digests())
    spared = {*newest[:keep], model.running, model.previous()}
    gone = [digest for digest in newest if digest not in spared]
    try:
        model.drop(gone)
    except (OSError, SeedError) as error:
        # The switch has been done; what is left is removed by the next push.
        print(f"old versions of {model.name} could not be removed: {error}", file=sys.stderr)
        gone = [digest for digest in gone if not model.has(digest)]
    report("prune", 1, 1)
    return gone


def _back(model: Model, digest: str, before: str | None, error: BaseException) -> BaseException:
    """Start the service again as it was; the error to tell."""
    if not model.has_service:
        return error
    from seed_runtime.agent.service import service, systemd

    serving = "nothing serves"
    if before is not None:
        with contextlib.suppress(SeedError, OSError):
            service.restart(model.store, model.name)
            serving = f"{before[:12]} serves again"
    if not isinstance(error, SeedError):
        return error
    text = f"the service of {model.name} did not become ready with {digest[:12]} ({error})"
    return systemd.ServiceError(f"{text}; {serving}; see: seed-deploy logs HOST:{model.name}", error.exit_code)
