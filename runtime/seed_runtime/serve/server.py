"""Takes connections and gives each to one of a fixed number of threads; ends when its caller is interrupted.

Threads are made once, and the allocator keeps to few arenas, so that memory doesn't grow with the number of
requests. The model runs for one request at a time: a plan's memory is that of one run.
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
from seed_runtime.serve.protocol import Model

_BUSY_TEXT: Final = b'{"error": "too many connections; try again later"}'
_BUSY: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
    b"Retry-After: 1\r\nConnection: close\r\n\r\n%b" % (len(_BUSY_TEXT), _BUSY_TEXT)
)
_POLL_S: Final = 1.0
"""How long a signal may go unnoticed that arrives just before a wait, or in another thread."""

# <malloc.h>
_M_ARENA_MAX = -8
_ARENAS: Final = 2


class Bodies:
    """Lets requests in as long as their bodies together stay below a size [B]."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def holding(self, size: int) -> Iterator[bool]:
        """Hold that many bytes; gives False if they were not free in time."""
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
    """A context manager: its threads run inside. On the way out it ends what runs, within `GRACE_S`."""

    def __init__(self, model: Model, listener: socket.socket, *, body_max: int, bodies: int) -> None:
        self.model, self.body_max = model, body_max
        self.bodies = Bodies(bodies)
        self.turn = threading.Lock()
        self.stopping = False
        self._listener = listener
        self._free = threading.Semaphore(limits.CONNECTIONS_MAX)
        self._queue: queue.SimpleQueue[socket.socket | None] = queue.SimpleQueue()
        self._idle: set[socket.socket] = set()
        self._idle_lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Server:
        _limit_arenas()
        for number in range(limits.CONNECTIONS_MAX):
            # Daemons: one that hangs in a library must not keep the process from ending.
            thread = threading.Thread(target=self._work, name=f"connection-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
        """Serve until an exception, such as that of a signal, comes into this thread."""
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
                _turn_away(connection)
            del connection

    @contextlib.contextmanager
    def waiting(self, connection: socket.socket) -> Iterator[bool]:
        """Note that nothing is under way on this connection; gives whether the server ends, and tells it if it does."""
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
                    # Answers by itself; what it raises all the same ends this connection alone.
                    Handler(connection, ("", 0), self)  # type: ignore[arg-type]
            finally:
                del connection
                self._free.release()


def _turn_away(connection: socket.socket) -> None:
    with contextlib.suppress(OSError), connection:
        connection.settimeout(0)
        connection.sendall(_BUSY)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 16):
            pass


def _limit_arenas() -> None:
    """Let glibc's threads share arenas: each of its own keeps what the largest request left there."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt: Any = ctypes.CDLL(None).mallopt
        mallopt(_M_ARENA_MAX, _ARENAS)
