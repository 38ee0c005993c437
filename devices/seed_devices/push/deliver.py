"""Bring a seed to a device that has a runtime: transfer, install, switch."""

from __future__ import annotations

import shlex
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from seed_devices import names
from seed_devices.errors import RemoteError
from seed_devices.push import preflight
from seed_devices.push.job import Job
from seed_devices.remote.agent_client import AgentClient
from seed_devices.ssh.transfer import put
from seed_runtime.errors import SeedError

WAIT_S: Final = 75
"""Seconds that a push waits for another one to the same model: longer than a dead link keeps the lock."""
_DAMAGED: Final = 10
"""The exit code of a damaged seed."""
_TRANSFERS: Final = 2
"""Most transfers of a seed that arrives damaged: late bytes of an earlier push that was cut may be among the new."""


@dataclass(frozen=True)
class Delivery:
    """State of a device after a delivery. `state` and `sent` are those of PushResult."""

    state: str
    sent: int = 0
    previous: str | None = None
    removed: tuple[str, ...] = ()
    record: dict[str, Any] | None = None


def deliver(job: Job, agent: AgentClient) -> Delivery:
    """Send what is missing of the seed, let the device check it, and switch to it.

    Raises:
        RemoteError: the device refuses the seed; what ran there still runs.
        UnreachableError: the connection was lost; the next push continues.
    """
    fields: dict[str, Any] = {"name": job.name, "digest": job.seed.digest}
    sent, record = 0, None
    for attempt in range(_TRANSFERS):
        with job.phases.phase("transfer"):
            state, added = _transfer(job, agent, fields)
        sent += added
        if state != "partial":
            break
        try:
            with job.phases.phase("install"):
                answer = agent.call(
                    "install", job.phases.progress_of("install"), **fields, max_memory=job.options.max_memory
                )
            record = answer.get("record")
            break
        except RemoteError as error:
            if error.exit_code != _DAMAGED or attempt == _TRANSFERS - 1:
                raise
    if state == "current":
        agent.call("release")
        return Delivery("unchanged", sent, record=record)
    with job.phases.phase("switch"):
        answer = agent.call(
            "switch",
            job.phases.progress_of("switch"),
            **fields,
            keep=job.options.keep,
            replace=job.options.replace,
        )
    state = "pushed" if state == "partial" else "switched"
    return Delivery(state, sent, answer.get("previous"), tuple(answer.get("removed") or ()), record)


def _transfer(job: Job, agent: AgentClient, fields: dict[str, Any]) -> tuple[str, int]:
    """Send what is missing.

    Returns:
        What the device had of the seed ("current", "kept" or "partial"), and the bytes that were sent.
    """
    seed, progress = job.seed, job.phases.progress_of("transfer")
    answer = agent.call(
        "begin", progress, **fields, file_size=seed.file_size, weights_bytes=seed.weights_size, wait_s=WAIT_S
    )
    state, have, path = answer.get("state"), answer.get("have"), answer.get("path")
    if state in ("current", "kept"):
        return str(state), 0
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
        return "partial", 0
    show = None if progress is None else lambda done, total: progress("transfer", done, total)
    try:
        put(job.connection, seed.path, path, have, progress=show)
    except RemoteError as error:
        raise _transfer_error(job, agent, error) from None
    return "partial", seed.file_size - have


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
