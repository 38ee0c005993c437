"""Read what a client sends, within limits of size and time for a whole head or body."""

from __future__ import annotations

import io
import socket
import time
from http import HTTPStatus
from typing import Any, Final

from seed_runtime.serve import limits

_BUFFER: Final = 16 << 10


class RefusedError(Exception):
    """The request can't be answered as asked."""

    def __init__(self, status: HTTPStatus, line: str, *, close: bool = False, header: str = "") -> None:
        """Describe the answer.

        Args:
            status: its status.
            line: the text of the error.
            close: close the connection after it.
            header: one more header line.
        """
        super().__init__(line)
        self.status, self.line, self.close, self.header = status, line, close, header


class Reader(io.BufferedReader):
    """A connection to read from, with a deadline for the whole of a head or a body, not for each of its pieces."""

    def __init__(self, connection: socket.socket) -> None:
        """Read from this connection."""
        self._source = _Timed(connection)
        super().__init__(self._source, _BUFFER)
        self._head_left = 0

    def wait(self, seconds: float) -> bool:
        """Wait for the first byte of a request. Return whether it arrived within that time."""
        self._source.set_deadline(seconds)
        try:
            return bool(self.peek(1))
        except (TimeoutError, ConnectionError):
            return False

    def begin_head(self, seconds: float) -> None:
        """Limit the size and the time of the head that `readline` reads next."""
        self._head_left = limits.HEAD_MAX
        self._source.set_deadline(seconds)

    def readline(self, size: int | None = -1) -> bytes:
        """Read a line of the head.

        Raises:
            RefusedError: the head is too large.
            TimeoutError: it takes too long.
        """
        line = super().readline(self._head_left + 1)
        self._head_left -= len(line)
        if self._head_left < 0:
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise RefusedError(status, f"the headers have more than {limits.HEAD_MAX:,} bytes", close=True)
        return line

    def read_body(self, size: int, seconds: float) -> bytearray:
        """Read a body of this size.

        Raises:
            RefusedError: the connection ends before.
            TimeoutError: it takes too long.
        """
        self._source.set_deadline(seconds)
        # Its pages take no memory until they are written to, so a size that is only claimed costs nothing.
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

    def set_deadline(self, seconds: float) -> None:
        """Raise TimeoutError from reads later than this."""
        self._deadline = time.monotonic() + seconds

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what has arrived, waiting until the deadline for the first byte."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)
