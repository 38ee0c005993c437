"""Memory for the bodies of requests: reserved before a body is read, and returned when its request is answered."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from seed_runtime.serve import limits
from seed_runtime.serve.refused import busy


class Reservation:
    """Bytes that are reserved for one body."""

    def __init__(self, budget: BodyBudget, size: int) -> None:
        """Hold `size` bytes of the budget."""
        self._budget, self.size = budget, size

    def shrink(self, body: memoryview) -> memoryview:
        """Return what is reserved beyond this body, and return the body."""
        self._budget.release(self.size - len(body))
        self.size = len(body)
        return body


class BodyBudget:
    """A limit for the size of all bodies that are held at once."""

    def __init__(self, size: int, make_room: Callable[[], object]) -> None:
        """Limit them to `size` bytes together. `make_room` is called when there is too little."""
        self._free, self._make_room = size, make_room
        self._waiting: set[asyncio.Event] = set()

    @contextlib.asynccontextmanager
    async def reserve(self, size: int) -> AsyncIterator[Reservation]:
        """Reserve that many bytes for the block, waiting up to WAIT_S.

        Raises:
            RefusedError: they don't become free in time.
        """
        changed = asyncio.Event()
        self._waiting.add(changed)
        try:
            async with asyncio.timeout(limits.WAIT_S):
                while self._free < size:
                    self._make_room()
                    changed.clear()
                    # Or until a body has become too slow to keep its room.
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(limits.PATIENCE_S):
                            await changed.wait()
        except TimeoutError:
            raise busy("too many requests at once; try again") from None
        finally:
            self._waiting.discard(changed)
        reservation = Reservation(self, size)
        self._free -= size
        try:
            yield reservation
        finally:
            self.release(reservation.size)

    def release(self, size: int) -> None:
        """Return reserved bytes."""
        self._free += size
        for waiting in self._waiting:
            waiting.set()
