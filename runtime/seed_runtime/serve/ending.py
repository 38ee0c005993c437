"""Whether a text has to end before it is whole, and what it waits for until then."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class EndedError(Exception):
    """Nobody waits for the text any more, or it took too long."""


class Ending:
    """The end of one text, for the thread of the connections alone."""

    def __init__(self, seconds: float) -> None:
        """Let the text end after so many seconds."""
        self.is_gone = False
        """Whether the client closed its connection."""
        self.is_stopping = False
        """Whether the server is ending."""
        self._waiting: asyncio.Timeout | None = None
        self.extend(seconds)

    def extend(self, seconds: float) -> None:
        """Let the text end so many seconds from now."""
        self._deadline = asyncio.get_running_loop().time() + seconds

    def end(self, *, is_gone: bool = False) -> None:
        """End the text, and what it waits for.

        Args:
            is_gone: whether the client closed its connection; else the server is ending.
        """
        self.is_gone, self.is_stopping = self.is_gone or is_gone, self.is_stopping or not is_gone
        if self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(asyncio.get_running_loop().time())

    @contextlib.asynccontextmanager
    async def waiting(self) -> AsyncIterator[None]:
        """Wait within the block for as long as the text may go on.

        Raises:
            EndedError: it has to end.
        """
        if self.is_gone or self.is_stopping or asyncio.get_running_loop().time() > self._deadline:
            raise EndedError
        try:
            async with asyncio.timeout_at(self._deadline) as self._waiting:
                yield
        except TimeoutError:
            raise EndedError from None
        finally:
            self._waiting = None

    @contextlib.asynccontextmanager
    async def holding(self, lock: asyncio.Lock) -> AsyncIterator[None]:
        """Hold a lock within the block, which those who wait for it get in the order in which they came.

        Raises:
            EndedError: the text has to end before it has the lock.
        """
        async with self.waiting():
            await lock.acquire()
        try:
            yield
        finally:
            lock.release()
