"""Accept connections and pass each to one of a fixed number of threads, until the caller is interrupted.

The threads are created once, and the allocator uses few arenas, so that memory doesn't grow with the number of
requests. The model runs for one request at a time, since a plan's memory is that of one run.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import queue
import socket
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final

from seed_runtime.serve import limits
from seed_runtime.serve.http import Handler
from seed_runtime.serve.protocol import ServedModel

_BUSY_TEXT: Final = b'{"error": "too many connections; try again later"}'
_BUSY: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
    b"Retry-After: 1\r\nConnection: close\r\n\r\n%b" % (len(_BUSY_TEXT), _BUSY_TEXT)
)
_POLL_S: Final = 1.0
"""Time for which a signal may go unnoticed that arrives just before a wait, or in another thread, in seconds."""

# <malloc.h>
_M_ARENA_MAX = -8
_ARENAS: Final = 2
"""Number of the allocator's arenas."""


class BodyBudget:
    """A limit for the size of all bodies that are held at once."""

    def __init__(self, size: int) -> None:
        """Limit them to `size` bytes together."""
        self._free = size
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def reserve(self, size: int) -> Iterator[bool]:
        """Reserve that many bytes for the block, waiting up to WAIT_S. Gives whether they became free in time."""
        with self._changed:
            held = self._changed.wait_for(lambda: self._free >= size, limits.WAIT_S)
            if held:
                self._free -= size
        try:
            yield held
        finally:
            if held:
                with self._changed:
                    self._free += size
                    self._changed.notify_all()


class Server:
    """A server of one model.

    A context manager: its threads run within the block. At its end the requests that run may finish, within `GRACE_S`.
    """

    def __init__(self, model: ServedModel, listener: socket.socket, *, body_max: int, bodies_max: int) -> None:
        """Prepare to serve.

        Args:
            model: the model.
            listener: the listening socket, which the end of the block closes.
            body_max: largest body of a request [B].
            bodies_max: largest size of all bodies held at once [B].
        """
        self.model, self.body_max = model, body_max
        self.bodies = BodyBudget(bodies_max)
        self.run_lock = threading.Lock()
        """Lock that is held while the model runs, and while a large answer is sent."""
        self.stopping = False
        """True if the server is ending."""
        self._listener = listener
        self._free = threading.Semaphore(limits.CONNECTIONS_MAX)
        self._queue: queue.SimpleQueue[socket.socket | None] = queue.SimpleQueue()
        self._idle: set[socket.socket] = set()
        self._idle_lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Server:
        """Start the threads."""
        _limit_arenas()
        for number in range(limits.CONNECTIONS_MAX):
            # Daemons, so that a thread that hangs in a library doesn't keep the process from ending.
            thread = threading.Thread(target=self._work, name=f"connection-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening, let running requests finish, and end the threads."""
        self._listener.close()
        with self._idle_lock:
            self.stopping = True
            for connection in self._idle:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)
        for _ in self._threads:
            self._queue.put(None)
        deadline = time.monotonic() + limits.GRACE_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def run(self) -> None:
        """Accept connections until an exception, such as that of a signal handler, is raised in this thread."""
        self._listener.settimeout(_POLL_S)
        while True:
            try:
                connection, _ = self._listener.accept()
            except (TimeoutError, ConnectionError):
                continue
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    raise
                time.sleep(_POLL_S / 10)
                continue
            if self._free.acquire(timeout=limits.ADMIT_S):
                self._queue.put(connection)
            else:
                _answer_busy(connection)
            del connection

    @contextlib.contextmanager
    def waiting(self, connection: socket.socket) -> Iterator[bool]:
        """Mark a connection as idle within the block, so that the end of the server wakes it.

        Yields:
            Whether the server is ending already.
        """
        with self._idle_lock:
            self._idle.add(connection)
            stopping = self.stopping
        try:
            yield stopping
        finally:
            with self._idle_lock:
                self._idle.discard(connection)

    def _work(self) -> None:
        while (connection := self._queue.get()) is not None:
            try:
                with contextlib.suppress(OSError), connection:
                    # It answers errors itself. One that it raises all the same ends this connection alone.
                    Handler(connection, ("", 0), self)  # type: ignore[arg-type]
            finally:
                del connection
                self._free.release()


def _answer_busy(connection: socket.socket) -> None:
    """Answer 503 without waiting for the client."""
    with contextlib.suppress(OSError), connection:
        connection.settimeout(0)
        connection.sendall(_BUSY)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 16):
            pass


def _limit_arenas() -> None:
    """Let glibc's threads share arenas: an arena of its own would keep what a thread's largest request left there."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt: Any = ctypes.CDLL(None).mallopt
        mallopt(_M_ARENA_MAX, _ARENAS)
