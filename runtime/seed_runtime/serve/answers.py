"""Answers: their heads, and sending them within a deadline."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from seed_runtime.serve import limits
from seed_runtime.version import __version__

_SERVER: Final = f"seed-run/{__version__}"


@dataclass
class Answer:
    """An answer whose body is here, or comes in parts."""

    status: HTTPStatus
    body: bytes | AsyncIterator[Any]
    """All of it, or its parts in order."""
    size: int | None
    """Size of the body [B]; None if it isn't known yet."""
    kind: str = "application/json"
    """Content type."""
    header: str = ""
    """More header lines, without the last line's end."""
    is_live: bool = False
    """Whether its parts are made while it is sent, so that only their sending has a deadline."""

    @classmethod
    def of_json(cls, values: Mapping[str, Any], status: HTTPStatus = HTTPStatus.OK, header: str = "") -> Answer:
        """Return an answer of JSON."""
        text = json.dumps(values).encode()
        return cls(status, text, len(text), header=header)

    @classmethod
    def of_error(cls, line: str, status: HTTPStatus, header: str = "") -> Answer:
        """Return an answer that refuses a request, for the reason in `line`."""
        return cls.of_json({"error": " ".join(line.split())}, status, header)

    def head(self, minor: int, keep_alive: bool) -> bytes:
        """Return its head.

        Args:
            minor: 1 for a client of HTTP/1.1, 0 for one of HTTP/1.0.
            keep_alive: whether another request may follow.
        """
        length = f"Content-Length: {self.size}" if self.size is not None else "Transfer-Encoding: chunked" * minor
        connection = "Connection: close" if not keep_alive else "Connection: keep-alive" if minor == 0 else ""
        first = f"HTTP/1.1 {self.status.value} {self.status.phrase}"
        lines = [first, f"Server: {_SERVER}", f"Content-Type: {self.kind}", length, connection, self.header]
        return "\r\n".join(filter(None, lines)).encode("latin-1", "replace") + b"\r\n\r\n"


async def send(link: socket.socket, answer: Answer, *, minor: int = 1, keep_alive: bool, head_only: bool) -> None:
    """Send an answer.

    Args:
        link: the connection, which doesn't block.
        answer: the answer.
        minor: 1 for a client of HTTP/1.1; 0 for one of HTTP/1.0, which gets parts up to the connection's end.
        keep_alive: whether another request may follow.
        head_only: send no body, as HEAD asks.

    Raises:
        TimeoutError: the client doesn't read it in time.
    """
    loop = asyncio.get_running_loop()
    head = answer.head(minor, keep_alive)
    async with asyncio.timeout(limits.ANSWER_S) as deadline:
        if head_only:
            await loop.sock_sendall(link, head)
        elif isinstance(answer.body, bytes):
            # In one packet with the head, so that the client gets it at once.
            await loop.sock_sendall(link, head + answer.body)
        else:
            await loop.sock_sendall(link, head)
            if answer.is_live:
                deadline.reschedule(None)
            chunked = answer.size is None and minor > 0
            async for part in answer.body:
                if not len(part):
                    continue
                if answer.is_live:
                    deadline.reschedule(loop.time() + limits.ANSWER_S)
                await loop.sock_sendall(link, b"%x\r\n%b\r\n" % (len(part), part) if chunked else part)
                if answer.is_live:
                    deadline.reschedule(None)
            if chunked:
                await loop.sock_sendall(link, b"0\r\n\r\n")
