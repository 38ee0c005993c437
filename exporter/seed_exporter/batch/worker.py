"""Do one job: `seed-export` in a process of its own, on a share of this machine's cores.

In a process of its own, a job that runs out of memory or crashes ends alone, its memory is free when it ends, and its
seed is the one that the command makes alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Final

from seed_exporter.batch.jobs_file import Job
from seed_exporter.batch.outcome import Outcome
from seed_runtime import backends
from seed_runtime.version import __version__

# -P: no module is imported from the folder in which the batch happens to run.
_COMMAND: Final = [sys.executable, "-P", "-m", "seed_exporter.cli", "--json"]


class Children:
    """The processes of jobs that run now, each on its own share of the cores."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._shares: set[int] = set()
        self._stopped = False

    def run(self, arguments: list[str], at_once: int) -> tuple[int, str, str]:
        """Run seed-export on one of `at_once` shares of the cores; return its code, stdout and stderr."""
        with self._share(at_once) as cores:
            command = [*_COMMAND, f"--jobs={len(cores)}", *arguments]
            with self._lock:
                if self._stopped:
                    return -signal.SIGTERM, "", "interrupted"
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    errors="replace",
                )
                self._running.add(process)
            # ONNX Runtime takes as many threads as there are cores to run on. No thread has been started by now.
            with contextlib.suppress(AttributeError, OSError):
                os.sched_setaffinity(process.pid, cores)
            try:
                out, err = process.communicate()
            except BaseException:  # joblib runs jobs one by one in the main thread, which signals interrupt
                process.terminate()
                process.wait()
                raise
            finally:
                with self._lock:
                    self._running.discard(process)
            return process.returncode, out, err

    def stop(self) -> None:
        """End all processes and wait for them: they remove what is half written. None is started any more."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for process in running:
            process.terminate()
        for process in running:
            process.wait()

    @contextlib.contextmanager
    def _share(self, at_once: int) -> Iterator[list[int]]:
        with self._lock:
            share = min(set(range(len(self._shares) + 1)) - self._shares)
            self._shares.add(share)
        try:
            yield cores_of(share, at_once)
        finally:
            with self._lock:
                self._shares.discard(share)


_OF_THIS_WORKER: Final = Children()
"""The processes that this worker of a cluster has started."""


def cores_of(share: int, at_once: int) -> list[int]:
    """Return the numbers of the cores of one of `at_once` equal shares; at least one core, which others may share."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    size = max(1, len(cores) // at_once)
    first = share * size % (len(cores) - len(cores) % size)
    return cores[first : first + size]


def do(job: Job, version: str, at_once: int | None = None, children: Children = _OF_THIS_WORKER) -> Outcome:
    """Do one job, here or on a worker of a cluster. Whatever is wrong with it is in the outcome.

    Args:
        job: the export.
        version: of seed-runtime where the batch was started.
        at_once: how many jobs share this machine; None on a worker of a cluster, which knows.
        children: what holds the process.
    """
    if version != __version__:
        text = f"this worker has seed-runtime {__version__} and the batch {version}; install one version on all"
        return Outcome(12, 0.0, None, text)
    start = time.perf_counter()
    code, out, err = children.run(job.arguments, _threads_of_worker() if at_once is None else at_once)
    try:
        result = json.loads(out) if out else None
    except ValueError:
        result = None
    return Outcome(code, time.perf_counter() - start, result, _error(code, err) if code else "")


def _error(code: int, err: str) -> str:
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        return f"{name} ended it; is there memory for all jobs at once? Give a smaller --jobs"
    lines = err.strip().splitlines() or ["it says nothing"]
    return lines[-1].removeprefix("seed-export: ")


def _threads_of_worker() -> int:
    from distributed import get_worker

    threads = get_worker().state.nthreads
    return max(1, min(threads, backends.usable_cores()))
