"""The same work on many devices at once, each on a connection of its own; what fails on one leaves the others alone."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TypeVar

from seed_devices.errors import FleetError
from seed_devices.fleet.target import Target
from seed_devices.ssh import processes
from seed_devices.ssh.connection import Connection

PARALLEL: Final = 8
PARALLEL_MAX: Final = 256

T = TypeVar("T")


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What came of one device: `value`, or `error`."""

    target: Target
    value: T | None
    error: Exception | None
    seconds: float


@dataclass(frozen=True)
class Access:
    """How devices are reached."""

    config: Path | None = None
    accept_new: bool = False

    def to(self, target: Target) -> Connection:
        return Connection(target.host, config=self.config, accept_new=self.accept_new, port=target.port)


def run_on_each(
    targets: Sequence[Target],
    work: Callable[[Target, Connection], T],
    *,
    access: Access,
    parallel: int = PARALLEL,
    done: Callable[[Outcome[T]], None] = lambda outcome: None,
) -> list[Outcome[T]]:
    """Do `work` on all devices, `parallel` at a time; outcomes in the order of `targets`.

    `done` is called in this thread with each of them as it ends. Whatever interrupts this thread ends all
    connections before it goes on its way.
    """

    def one(target: Target) -> Outcome[T]:
        start = time.perf_counter()
        try:
            with access.to(target) as connection:
                value = work(target, connection)
        except Exception as error:
            return Outcome(target, None, error, time.perf_counter() - start)
        return Outcome(target, value, None, time.perf_counter() - start)

    pool = concurrent.futures.ThreadPoolExecutor(max(1, min(parallel, len(targets), PARALLEL_MAX)))
    futures = [pool.submit(one, target) for target in targets]
    try:
        for future in concurrent.futures.as_completed(futures):
            done(future.result())
    except BaseException:
        processes.stop_all()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    return [future.result() for future in futures]


def combined_error(outcomes: Sequence[Outcome[T]]) -> Exception | None:
    """The error that stands for all of them: of one device its own, of several FleetError; None if all went well."""
    failed = [outcome.error for outcome in outcomes if outcome.error is not None]
    if not failed:
        return None
    return failed[0] if len(outcomes) == 1 else FleetError(len(failed), len(outcomes))
