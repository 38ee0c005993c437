"""Do the same work on many devices at once, each on its own connection; a failure on one leaves the others alone."""

from __future__ import annotations

import concurrent.futures
import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TypeVar

from seed_devices.errors import FleetError, UnreachableError
from seed_devices.fleet.target import Target
from seed_devices.ssh import processes
from seed_devices.ssh.connection import Connection

PARALLEL: Final = 8
"""Number of devices that are worked on at a time, unless the user says otherwise."""
PARALLEL_MAX: Final = 256
"""Largest number of devices that can be worked on at a time."""

RETRY_S: Final = (1, 2, 4, 8)
"""Seconds, half or one and a half times as many, before a login is tried again that was refused as one too many."""
_CROWDED: Final = re.compile(
    r"(kex|ssh)_exchange_identification: |Connection (closed|reset) by |Not allowed at this time|Exceeded MaxStartups"
)
"""How ssh's words begin where an sshd, often that of a jump host, closed the connection before the login began."""
_CROWDED_STEP: Final = (
    "a host on the way may allow too few logins at a time: give a smaller --parallel, or raise MaxStartups in its "
    "sshd_config; or its sshd starts no session: see its log there, journalctl -u ssh"
)

T = TypeVar("T")


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """Outcome of the work on one device: `value` or `error`."""

    target: Target
    value: T | None
    error: Exception | None
    seconds: float


@dataclass(frozen=True)
class Access:
    """Access to devices: the user's choice of an ssh_config, and whether unknown host keys are accepted."""

    config: Path | None = None
    accept_new: bool = False

    def to(self, target: Target) -> Connection:
        """Return a connection to a device, which opens with its first command."""
        return Connection(target.host, config=self.config, accept_new=self.accept_new, port=target.port)


def run_on_each(
    targets: Sequence[Target],
    work: Callable[[Target, Connection], T],
    *,
    access: Access,
    parallel: int = PARALLEL,
    done: Callable[[Outcome[T]], None] = lambda outcome: None,
) -> list[Outcome[T]]:
    """Do `work` on all devices.

    Whatever interrupts this thread ends all connections first. Work begins again, after a while, where a host on the
    way refuses the login because it has too many at a time.

    Args:
        targets: the devices.
        work: called with a device and a connection to it.
        access: how the devices are reached.
        parallel: how many are worked on at a time.
        done: called in this thread with the outcome of each device as it ends.

    Returns:
        The outcomes, in the order of `targets`.
    """

    def attempt(target: Target) -> T:
        with access.to(target) as connection:
            return work(target, connection)

    def run(target: Target) -> Outcome[T]:
        start = time.perf_counter()
        try:
            value = _with_retries(lambda: attempt(target))
        except Exception as error:
            return Outcome(target, None, error, time.perf_counter() - start)
        return Outcome(target, value, None, time.perf_counter() - start)

    pool = concurrent.futures.ThreadPoolExecutor(max(1, min(parallel, len(targets), PARALLEL_MAX)))
    futures = [pool.submit(run, target) for target in targets]
    try:
        for future in concurrent.futures.as_completed(futures):
            done(future.result())
    except BaseException:
        processes.stop_all()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    return [future.result() for future in futures]


def open_connection(target: Target, access: Access) -> Connection:
    """Return an open connection to a device; like `run_on_each`, try a login again that was refused as one too many."""

    def attempt() -> Connection:
        connection = access.to(target)
        try:
            connection.hold()
        except BaseException:
            connection.close()
            raise
        return connection

    return _with_retries(attempt)


def _with_retries(attempt: Callable[[], T]) -> T:
    """Repeat an attempt for as long as a host on the way refuses its login because it has too many at a time."""
    for wait_s in (*RETRY_S, None):
        try:
            return attempt()
        except UnreachableError as error:
            if not _CROWDED.match(error.reason) or processes.is_stopping():
                raise
            if wait_s is None:
                raise UnreachableError(error.host, f"{error.reason}, {len(RETRY_S) + 1} times", _CROWDED_STEP) from None
        # Each device after a time of its own: all at once they would be too many again.
        processes.pause(wait_s * random.uniform(0.5, 1.5))
    raise AssertionError


def combined_error(outcomes: Sequence[Outcome[T]]) -> Exception | None:
    """Return one error for all outcomes: a single device's own, FleetError for several devices, None if none failed."""
    failed = [outcome.error for outcome in outcomes if outcome.error is not None]
    if not failed:
        return None
    return failed[0] if len(outcomes) == 1 else FleetError(len(failed), len(outcomes))
