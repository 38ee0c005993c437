"""Open the seed, the cache and the session of a job; shared by the commands."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import seed_runtime
from seed_runtime.assembly.cache import ModelCache, default_root
from seed_runtime.backends import Feeds, litert_notice
from seed_runtime.cli.arguments import Job
from seed_runtime.cli.terminal import Terminal
from seed_runtime.errors import UsageError
from seed_runtime.seed import Seed
from seed_runtime.session import Session
from seed_runtime.system.scratch import scratch_beside_cache


@contextlib.contextmanager
def open_seed(job: Job) -> Iterator[Seed]:
    """Open the seed of the command line: its header is checked, and its signature too, except for --inspect.

    With --apply that is the last seed that is applied: what it signs is the digests of all that it builds on.
    """
    base: Seed | None = None
    *before, last = (job.seed, *job.apply)
    for path in before:
        base = _open_file(path, enforce=False, base=base)
    enforce = job.action != "inspect"
    if last != "-":
        yield _open_file(last, enforce=enforce, base=base)
        return
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("stdin is a terminal; pipe a seed into it, or give the path of one")
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as pipe:
        yield seed_runtime.open(pipe, enforce=enforce, base=base)


def _open_file(path: str, *, enforce: bool, base: Seed | None) -> Seed:
    try:
        return seed_runtime.open(path, enforce=enforce, base=base)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; give the path of a seed") from None


@contextlib.contextmanager
def open_base_cache(job: Job, seed: Seed) -> Iterator[ModelCache | None]:
    """Give the cache into which the base of a seed is assembled; None for a seed without one."""
    if seed.base is None:
        yield None
        return
    with open_cache(job) as cache:
        yield cache


@contextlib.contextmanager
def open_cache(job: Job, *, fresh: bool = False) -> Iterator[ModelCache]:
    """Give the user's cache, or a temporary one for --no-cache and where it must be `fresh`."""
    if job.use_cache and not fresh:
        yield ModelCache(default_root(), job.cache_limit)
        return
    with scratch_beside_cache() as folder:
        yield ModelCache(folder, job.cache_limit, lasting=False)


def open_session(
    job: Job,
    seed: Seed,
    cache: ModelCache,
    terminal: Terminal,
    feeds: Feeds | None,
    *,
    beside: int = 0,
    verify: bool = False,
    runs: int | None = None,
) -> Session:
    """Open a session under the limits of the command line; for the arguments see `Seed.session`."""
    litert_notice.allow()
    return seed.session(
        max_memory=job.max_memory,
        feeds=feeds,
        threads=job.threads,
        cache=cache,
        progress=terminal.progress("assembling"),
        notice=terminal.note,
        beside=beside,
        verify=verify,
        runs=runs,
    )
