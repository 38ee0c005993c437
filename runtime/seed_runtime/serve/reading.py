"""What a client sends, within limits of size and time for a whole head or body."""

from __future__ import annotations

import io
import socket
import time
from http import HTTPStatus
from typing import Any, Final

from seed_runtime.serve import limits

_BUFFER: Final = 16 << 10


class RefusedError(Exception):
    """The request can't be answered as asked: a status and a line. `close`: nothing more is read from here."""

    def __init__(self, status: HTTPStatus, line: str, *, close: bool = False, header: str = "") -> None:
        super().__init__(line)
        self.status, self.line, self.close, self.header = status, line, close, header


class Reader(io.BufferedReader):
    """What a client sends, under a deadline for the whole of a head or a body, not for each of its pieces."""

    def __init__(self, connection: socket.socket) -> None:
        self._source = _Timed(connection)
        super().__init__(self._source, _BUFFER)
        self._head_left = 0

    def wait(self, seconds: float) -> bool:
        """Whether a request begins to come within that time."""
        self._source.within(seconds)
        try:
            return bool(self.peek(1))
        except (TimeoutError, ConnectionError):
            return False

    def head(self, seconds: float) -> None:
        """A head follows, to be read by `readline`."""
        self._head_left = limits.HEAD_MAX
        self._source.within(seconds)

    def readline(self, size: int | None = -1) -> bytes:
        line = super().readline(self._head_left + 1)
        self._head_left -= len(line)
        if self._head_left < 0:
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise RefusedError(status, f"the headers have more than {limits.HEAD_MAX:,} bytes", close=True)
        return line

    def exactly(self, size: int, seconds: float) -> bytearray:
        """A body of this size."""
        self._source.within(seconds)
        # Of pages that nothing has touched: a size that is only claimed takes no memory.
        body = bytearray(size)
        view = memoryview(body)
        while view:
            count = self.readinto1(view)
            if not count:
                raise RefusedError(HTTPStatus.BAD_REQUEST, "the body is shorter than Content-Length", close=True)
            view = view[count:]
        return body


class _Timed(io.RawIOBase):
    """A connection to read from until a deadline, then TimeoutError."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__()
        self._connection = connection
        self._deadline = 0.0

    def within(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)
