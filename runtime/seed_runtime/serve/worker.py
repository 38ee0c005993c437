"""The thread in which the model runs, so that connections are answered meanwhile."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class Worker:
    """One thread that does what it is given, one call after the other."""

    def __init__(self) -> None:
        """Start the thread."""
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        # A daemon, unlike an executor's threads: one that hangs in a library doesn't keep the process from ending.
        threading.Thread(target=self._work, name="model", daemon=True).start()

    async def call(self, function: Callable[[], T]) -> T:
        """Call `function` in the thread and return what it returns."""
        future: Future[T] = Future()
        self._calls.put((future, function))
        try:
            return await asyncio.wrap_future(future)
        finally:
            del future  # or an error, whose traceback has this frame, would keep the request until a collection

    def end(self) -> None:
        """End the thread after the calls that it was given."""
        self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            future, function = call
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function())
                except BaseException as error:
                    future.set_exception(error)
            # A request's arrays must not stay here until the next one comes.
            del call, future, function
