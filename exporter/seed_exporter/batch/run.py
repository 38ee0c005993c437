"""Do the jobs of a batch side by side, on this machine or on a Dask cluster, and yield each as it ends."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Final

from joblib import Parallel, delayed

from seed_exporter.batch import worker
from seed_exporter.batch.jobs_file import Job
from seed_exporter.batch.outcome import Outcome
from seed_runtime.errors import ClusterError, UsageError
from seed_runtime.version import __version__

_CONNECT_S: Final = 20
"""How long a scheduler may take to answer, and its first worker to be there [s]."""


def run(jobs: Sequence[Job], at_once: int, scheduler: str | None = None) -> Iterator[tuple[Job, Outcome]]:
    """Do all jobs, and yield them in the order in which they end.

    When the caller stops early, the jobs that run here are ended and leave nothing half written. On a cluster those
    that have begun run to their end.

    Args:
        jobs: the jobs, of which each writes files of its own.
        at_once: how many run side by side here; a cluster has its own number.
        scheduler: address of a Dask scheduler, such as tcp://host:8786; None for this machine.

    Raises:
        UsageError: the package `distributed` isn't installed.
        ClusterError: the scheduler doesn't answer, has no workers, or was lost.
    """
    if not jobs:
        return
    if scheduler is not None:
        yield from _run_there(jobs, scheduler)
        return
    children = worker.Children()

    def do(job: Job) -> tuple[Job, Outcome]:
        return job, worker.do(job, __version__, at_once, children)

    # Threads: each waits for the process of its job.
    parallel = Parallel(at_once, prefer="threads", return_as="generator_unordered", batch_size=1)
    results = parallel(delayed(do)(job) for job in jobs)
    try:
        # Not `yield from`, which would close `results` before what follows.
        for result in results:  # noqa: UP028
            yield result
    finally:
        children.stop()
        with warnings.catch_warnings():
            # joblib warns of jobs that were not waited for, which is meant here.
            warnings.simplefilter("ignore", UserWarning)
            results.close()


def _run_there(jobs: Sequence[Job], address: str) -> Iterator[tuple[Job, Outcome]]:
    """Do all jobs on a cluster. A job whose worker is lost begins again on another one.

    Not by joblib's backend for Dask, which does the jobs on this machine where the cluster has one thread, and ends all
    of them when one has killed its workers.
    """
    try:
        from distributed import Client, as_completed
    except ModuleNotFoundError:
        raise UsageError("--scheduler needs Dask; install it: pip install 'seed-runtime[cluster]'") from None
    try:
        client = Client(address, timeout=_CONNECT_S)
    except (OSError, ValueError) as error:
        raise ClusterError(address, str(error) or type(error).__name__) from None
    with client:
        try:
            client.wait_for_workers(1, timeout=_CONNECT_S)
        except TimeoutError:
            raise ClusterError(address, f"it has no worker after {_CONNECT_S} s") from None
        futures = {client.submit(worker.do, job, __version__, pure=False): job for job in jobs}
        for future in as_completed(futures):
            if future.status == "finished":
                yield futures[future], future.result()
            elif future.status == "error":
                yield futures[future], Outcome(1, 0.0, None, f"the cluster gave it up: {future.exception()}")
            else:
                raise ClusterError(address, "the connection to it was lost")
