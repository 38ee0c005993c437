"""Calls into a library, each in a thread of its own, so that its caller can still be interrupted.

Python handles a signal between two instructions of the main thread. A call that stays in C++ delays it for as
long as the call takes, which for a graph with a loop may be for ever.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from seed_runtime.errors import UnsupportedError

WATCH_S: Final = 1.0
"""Time between two calls of a watch [s]."""
END_S: Final = 2.0
"""Time that a stopped call is given to end [s]. Longer ones, such as a huge product, go on in their thread."""

Watch = Callable[[], None]
"""Callback that is called about every `WATCH_S` during a call; an exception that it raises ends the call."""

T = TypeVar("T")


class Workers:
    """Threads that are made when they are needed and end with `close`: one, unless calls come from several."""

    def __init__(self) -> None:
        self._idle: list[_Worker] = []
        self._running: list[_Call[Any]] = []

    def call(self, work: Callable[[], T], stop: Callable[[], None], watch: Watch | None = None) -> T:
        """Run `work` in a thread; return what it returns, raise what it raises.

        An exception in this thread meanwhile, by a signal or by `watch`, calls `stop`, waits up to `END_S` for the
        work to end, and is raised. A thread that doesn't end doesn't keep the process from ending.

        Args:
            work: the call into the library.
            stop: makes the library end the call.
            watch: called about every WATCH_S meanwhile.
        """
        worker = self._take()
        call = _Call(work, stop)
        self._running.append(call)
        worker.calls.put(call)
        try:
            while not call.over.wait(WATCH_S):
                if watch is not None:
                    watch()
        except BaseException:
            call.stop()
            if call.over.wait(END_S):
                self._idle.append(worker)
            else:
                worker.calls.put(None)
            raise
        finally:
            self._running.remove(call)
        self._idle.append(worker)
        try:
            if call.error is not None:
                raise call.error
            return call.values[0]
        finally:
            del call  # or the error's traceback would keep the arrays until the next collection

    def close(self) -> None:
        """Stop what still runs for other threads, and end the threads that are idle. May be called twice.

        Where the interpreter ends while a library runs, the library may abort the process.
        """
        running = list(self._running)
        for call in running:
            call.stop()
        for call in running:
            call.over.wait(END_S)
        while self._idle:
            self._idle.pop().calls.put(None)

    def _take(self) -> _Worker:
        with contextlib.suppress(IndexError):
            while True:
                worker = self._idle.pop()
                # In a child process after a fork no thread lives but its own.
                if worker.is_alive():
                    return worker
        worker = _Worker()
        worker.start()
        return worker


def time_limit(limit_s: float, what: str, watch: Watch | None) -> Watch:
    """Return a watch that calls `watch`, and raises UnsupportedError once `limit_s` seconds have passed from now.

    Args:
        limit_s: from now [s].
        what: what takes so long, for the message.
        watch: another watch, None for none.
    """
    end = time.monotonic() + limit_s

    def check() -> None:
        if time.monotonic() > end:
            raise UnsupportedError(
                f"this model can't be used here: {what} for more than {limit_s:.0f} s; "
                f"use a faster device, or a smaller model of somebody you trust"
            )
        if watch is not None:
            watch()

    return check


class _Call(Generic[T]):
    def __init__(self, work: Callable[[], T], stop: Callable[[], None]) -> None:
        self.work, self.stop = work, stop
        self.over = threading.Event()
        self.values: list[T] = []
        self.error: Exception | None = None


class _Worker(threading.Thread):
    def __init__(self) -> None:
        super().__init__(name="model", daemon=True)
        self.calls: queue.SimpleQueue[_Call[Any] | None] = queue.SimpleQueue()

    def run(self) -> None:
        while (call := self.calls.get()) is not None:
            try:
                call.values.append(call.work())
            except Exception as error:
                # Its traceback would keep this frame alive, and the call's arrays with it.
                call.error = error.with_traceback(None)
            over = call.over
            del call
            over.set()
