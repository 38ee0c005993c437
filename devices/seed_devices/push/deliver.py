"""Bring a version to a device that has a runtime: transfer, install, switch.

It takes the route with the fewest bytes. Where the device refuses that, it takes the next one. Bases that are missing
are installed before, as versions that don't run.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from seed_devices import names
from seed_devices.errors import RemoteError
from seed_devices.push import preflight
from seed_devices.push.job import Job
from seed_devices.push.preflight import SeedFile
from seed_devices.push.routes import Route
from seed_devices.remote.agent_client import AgentClient
from seed_devices.ssh.transfer import put
from seed_runtime.errors import SeedError

WAIT_S: Final = 75
"""Seconds that a push waits for another one to the same model: longer than a dead link keeps the lock."""
_DAMAGED: Final = 10
"""The exit code of a damaged seed."""
_REFUSED: Final = (_DAMAGED, 11, 12, 13, 14)
"""Exit codes of a seed in whose place another one may do: it or its base is damaged, isn't accepted, can't be used
there, or takes too much of the disk or the memory."""
_LACKS_BASE: Final = ("BaseError", "MissingLinkError")
"""How the device calls the error of a seed whose base isn't there any more, or was damaged."""
_TRANSFERS: Final = 2
"""Most transfers of a seed that arrives damaged: late bytes of an earlier push that was cut may be among the new."""


@dataclass(frozen=True)
class Delivery:
    """State of a device after a delivery. `state` and `sent` are those of PushResult."""

    route: Route
    """The route that was taken in the end."""
    state: str
    sent: int = 0
    previous: str | None = None
    removed: tuple[str, ...] = ()
    record: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()


@dataclass
class _Sent:
    """Bytes that were sent so far."""

    count: int = 0


def deliver(job: Job, agent: AgentClient, routes: Sequence[Route]) -> Delivery:
    """Send what is missing of the version, let the device check it, and switch to it.

    Args:
        job: the push.
        agent: on the device.
        routes: at least one; the first that the device accepts is taken.

    Raises:
        RemoteError: the device refuses the seed; what ran there still runs.
        UnreachableError: the connection was lost; the next push continues.
    """
    sent = _Sent()
    notes: list[str] = []
    problem: SeedError | None = None
    for route in routes:
        if route.is_repair and not _is_about_base(problem):
            continue
        try:
            seeds = [job.candidates.load(header) for header in route.files]
        except SeedError as damaged:
            problem = damaged
            notes.append(f"{route.seed.path.name} was not used: {damaged}")
            continue
        try:
            return replace(_take_route(job, agent, route, seeds, sent), notes=tuple(notes))
        except RemoteError as refused:
            if refused.exit_code not in _REFUSED:
                raise
            problem = refused
            kind = "" if route.seed.base is None else ", a delta,"
            reason = str(refused).removeprefix(f"{job.host}: ")
            notes.append(f"{route.seed.path.name}{kind} was refused there ({reason})")
    assert problem is not None, "there is a route, and the first one is no repair"
    if len(notes) < 2:
        raise problem
    raise RemoteError(problem.exit_code, f"{problem}; before that, {'; '.join(notes[:-1])}", type(problem).__name__)


def _is_about_base(problem: SeedError | None) -> bool:
    """Return whether a refusal may be cured by sending the bases again."""
    return isinstance(problem, RemoteError) and (problem.exit_code == _DAMAGED or problem.kind in _LACKS_BASE)


def _take_route(job: Job, agent: AgentClient, route: Route, seeds: Sequence[SeedFile], sent: _Sent) -> Delivery:
    """Deliver the seeds of one route; what is sent is added to `sent`."""
    sizes, start = [seed.file_size for seed in seeds], job.phases.sent_before
    try:
        for number, seed in enumerate(seeds):
            job.phases.sent_before = start + sum(sizes[:number])
            job.phases.to_send_after = sum(sizes[number + 1 :])
            state, record = _install(job, agent, seed, sent)
    finally:
        job.phases.sent_before = start
    if state == "current":
        agent.call("release")
        return Delivery(route, "unchanged", sent.count, record=record)
    with job.phases.phase("switch"):
        answer = agent.call(
            "switch",
            job.phases.progress_of("switch"),
            name=job.name,
            digest=route.seed.digest,
            keep=job.options.keep,
            replace=job.options.replace,
        )
    state = "pushed" if state == "partial" else "switched"
    return Delivery(route, state, sent.count, answer.get("previous"), tuple(answer.get("removed") or ()), record)


def _install(job: Job, agent: AgentClient, seed: SeedFile, sent: _Sent) -> tuple[str, dict[str, Any] | None]:
    """Send what is missing of one seed, and let the device make a version of it.

    Returns:
        What the device had of the seed ("current", "kept" or "partial"), and its record where it was installed.
    """
    for attempt in range(_TRANSFERS):
        with job.phases.phase("transfer"):
            state = _transfer(job, agent, seed, sent)
        if state != "partial":
            break
        try:
            with job.phases.phase("install"):
                answer = agent.call(
                    "install",
                    job.phases.progress_of("install"),
                    name=job.name,
                    digest=seed.digest,
                    max_memory=job.options.max_memory,
                )
            return state, answer.get("record")
        except RemoteError as error:
            if error.exit_code != _DAMAGED or attempt == _TRANSFERS - 1:
                raise
    return state, None


def _transfer(job: Job, agent: AgentClient, seed: SeedFile, sent: _Sent) -> str:
    """Send what is missing of one seed; returns what the device had of it ("current", "kept" or "partial")."""
    progress = job.phases.progress_of("transfer")
    answer = agent.call(
        "begin",
        progress,
        name=job.name,
        digest=seed.digest,
        file_size=seed.file_size,
        weights_bytes=seed.weights_size,
        base=seed.base,
        wait_s=WAIT_S,
    )
    state, have, path = answer.get("state"), answer.get("have"), answer.get("path")
    if state in ("current", "kept"):
        return str(state)
    if have is None or have > seed.file_size or path is None:
        raise RemoteError(
            1,
            f"{job.host}: its agent reports that {have} bytes have arrived of {seed.file_size}; see: seed-deploy "
            f"doctor {shlex.quote(job.host)}",
        )
    tail, block = answer.get("tail"), answer.get("block")
    if tail and block and block <= preflight.BLOCK_MAX:
        have += seed.matching_bytes(have, tail, block)
        agent.call("resume", have=have)
    if have == seed.file_size:
        return "partial"
    show = None if progress is None else lambda done, total: progress("transfer", done, total)
    try:
        put(job.connection, seed.path, path, have, progress=show)
    except RemoteError as error:
        raise _transfer_error(job, agent, error) from None
    sent.count += seed.file_size - have
    return "partial"


def _transfer_error(job: Job, agent: AgentClient, error: RemoteError) -> RemoteError:
    """Return the reason why the device could not take the file: mostly a full disk."""
    free = None
    with suppress(SeedError):
        free = agent.call("status", name=job.name).get("disk_free")
    if free is None or free >= preflight.DISK_MARGIN:
        return error
    return RemoteError(
        13,
        f"{job.host}: no space is left there, {free:,} bytes are free; free some: seed-deploy remove "
        f"{shlex.quote(names.model_name(job.host, 'NAME'))} , then run the same command again: it continues where it "
        "stopped",
        "DiskSpaceError",
    )
