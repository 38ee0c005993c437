"""Accept connections and answer each, until the caller is interrupted.

One thread serves all connections, so that slow ones cost memory for what they sent and no more, and one runs the
model: for one request at a time, since a plan's memory is that of one run.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import functools
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any, Final

from seed_runtime.serve import limits
from seed_runtime.serve.bodies import BodyBudget
from seed_runtime.serve.ending import Ending
from seed_runtime.serve.http import Connection
from seed_runtime.serve.metrics import Metrics
from seed_runtime.serve.protocol import ServedModel
from seed_runtime.serve.refused import busy
from seed_runtime.serve.worker import Worker
from seed_runtime.serve.writing import Desk

_POLL_S: Final = 1.0
"""Time for which a signal may go unnoticed that arrives just before a wait, or in another thread, in seconds."""
_RETRY_S: Final = 0.02
"""Time until it is tried again to accept or to serve a connection for which there was no room, in seconds."""

# <malloc.h>
_M_ARENA_MAX = -8
_ARENAS: Final = 2
"""Number of the allocator's arenas."""


class Server:
    """A server of one model.

    A context manager: its threads run within the block. At its end the requests that run may finish, within `GRACE_S`.
    """

    def __init__(
        self,
        model: ServedModel,
        listener: socket.socket,
        *,
        body_max: int,
        bodies_max: int,
        memory_limit: int | None = None,
        asked_max: int = 0,
    ) -> None:
        """Prepare to serve.

        Args:
            model: the model.
            listener: the listening socket, which the end of the block closes.
            body_max: largest body of a request [B].
            asked_max: largest body of a question about pictures, texts or sound [B].
            bodies_max: largest size of all bodies held at once [B].
            memory_limit: --max-memory, for the metrics [B]; None for no limit.
        """
        self.model, self.body_max, self.memory_limit = model, body_max, memory_limit
        self.asked_max = asked_max
        self.bodies = BodyBudget(bodies_max, functools.partial(self.drop_slowest, body=True))
        self.run_lock = asyncio.Lock()
        """Lock that is held while the model runs once, and while a large answer is sent."""
        self.metrics = Metrics()
        self.stopping = False
        """True if the server is ending."""
        self.readers: dict[Connection, bool] = {}
        """Connections that are being read from, and whether what they read is a body."""
        self.connections = 0
        """Number of connections that are served."""
        self.requests = 0
        """Number of inference requests that are read, wait, or run."""
        self.prompts = 0
        """Number of those of them that are for texts."""
        self.endings: set[Ending] = set()
        """Of texts that are being written, or wait for that."""
        self._listener = listener
        self._beside = 0
        """Number of connections that wait to be served, or were answered for the last time and are read on."""
        self._fewer_beside = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._ended = threading.Event()
        self._failure: BaseException | None = None

    def __enter__(self) -> Server:
        """Start the threads."""
        _limit_arenas()
        self.worker = Worker()
        self.desk = Desk(self.worker, self.run_lock)
        started = threading.Event()
        # A daemon, so that a connection that hangs doesn't keep the process from ending.
        self._thread = threading.Thread(target=self._serve, args=(started,), name="connections", daemon=True)
        self._thread.start()
        started.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening, let running requests finish, and end the threads."""
        self.stopping = True
        with contextlib.suppress(RuntimeError):  # the loop has ended
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(limits.GRACE_S + limits.ENDING_S)
        self.worker.end()

    def run(self) -> None:
        """Wait until an exception, such as that of a signal handler, is raised in this thread, or the server ends."""
        while not self._ended.wait(_POLL_S):
            pass
        if self._failure is not None:
            raise self._failure

    @contextlib.asynccontextmanager
    async def admitted(self, *, is_prompt: bool) -> AsyncIterator[None]:
        """Hold a place for an inference within the block, waiting up to ADMIT_S.

        Args:
            is_prompt: whether it is for a text, which may keep its place for minutes.

        Raises:
            RefusedError: none becomes free in time.
        """

        def has_room() -> bool:
            return self.requests < limits.REQUESTS_MAX and not (is_prompt and self.prompts >= limits.PROMPTS_MAX)

        if not await self._find_room(has_room, body=True):
            raise busy("too many requests at once; try again")
        self.requests += 1
        self.prompts += is_prompt
        try:
            yield
        finally:
            self.requests -= 1
            self.prompts -= is_prompt

    @contextlib.contextmanager
    def lingering(self) -> Iterator[None]:
        """Count a connection as one that was answered for the last time, so that another one may take its place."""
        self.connections -= 1
        self._beside += 1
        try:
            yield
        finally:
            self.connections += 1
            self._beside -= 1
            self._fewer_beside.set()

    def drop_slowest(self, *, body: bool = False) -> bool:
        """Drop the connection that has kept others waiting the longest. Return False if none may be dropped.

        Args:
            body: drop only one that sends a body.
        """
        found = [each for each, is_body in self.readers.items() if is_body or not body]
        slowest = min(found, key=lambda each: each.patience, default=None)
        if slowest is None or slowest.patience > asyncio.get_running_loop().time():
            return False
        del self.readers[slowest]
        slowest.drop()
        return True

    # The thread of the connections

    def _serve(self, started: threading.Event) -> None:
        try:
            asyncio.run(self._serve_all(started))
        except BaseException as error:
            self._failure = error
        finally:
            started.set()
            self._ended.set()

    async def _serve_all(self, started: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        tasks: set[asyncio.Task[None]] = set()
        accepting = asyncio.create_task(self._accept_all(tasks))
        stopping = asyncio.create_task(self._stop.wait())
        started.set()
        await asyncio.wait((accepting, stopping), return_when=asyncio.FIRST_COMPLETED)
        accepting.cancel()
        # To close the listener resets those that wait in the kernel.
        with contextlib.suppress(OSError):
            while True:
                self._start(self._listener.accept()[0], tasks)
        self._listener.close()
        for ending in self.endings:
            ending.end()
        for connection in list(self.readers):
            connection.hurry(0 if connection.is_idle else limits.ENDING_S)
        if tasks:
            await asyncio.wait(tasks, timeout=limits.GRACE_S)
        if not stopping.done():
            await accepting  # raises what ended it

    async def _accept_all(self, tasks: set[asyncio.Task[None]]) -> None:
        loop = asyncio.get_running_loop()
        self._listener.setblocking(False)
        while True:
            while self._beside >= limits.BESIDE_MAX:
                self._fewer_beside.clear()
                await self._fewer_beside.wait()
            try:
                link, _ = await loop.sock_accept(self._listener)
            except ConnectionError:
                continue
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    raise
                await asyncio.sleep(_RETRY_S)
                continue
            self._start(link, tasks)
            # Those that are here already go on before the next one is accepted.
            await asyncio.sleep(0)

    def _start(self, link: socket.socket, tasks: set[asyncio.Task[None]]) -> None:
        task = asyncio.get_running_loop().create_task(self._serve_connection(link))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def _serve_connection(self, link: socket.socket) -> None:
        with link:
            link.setblocking(False)
            if link.family != socket.AF_UNIX:
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._beside += 1
            has_room = await self._find_room(lambda: self.connections < limits.CONNECTIONS_MAX)
            self._beside -= 1
            self._fewer_beside.set()
            self.connections += 1
            try:
                connection = Connection(link, self)
                await (connection.serve() if has_room else connection.refuse_all())
            finally:
                self.connections -= 1

    async def _find_room(self, has_room: Callable[[], bool], *, body: bool = False) -> bool:
        """Wait up to ADMIT_S for room, and drop a slow connection for it, or one with a slow `body`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limits.ADMIT_S
        dropped = False
        while not has_room():
            if loop.time() > deadline:
                return False
            dropped = dropped or self.drop_slowest(body=body)
            await asyncio.sleep(_RETRY_S)
        return True


def _limit_arenas() -> None:
    """Let glibc's threads share arenas: an arena of its own would keep what a thread's largest request left there."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt: Any = ctypes.CDLL(None).mallopt
        mallopt(_M_ARENA_MAX, _ARENAS)
