"""Read what a client sends, within limits of size. Deadlines are the caller's: see `Connection` in http.py."""

from __future__ import annotations

import asyncio
import re
import socket
import zlib
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

import numpy as np

from seed_runtime.serve import limits
from seed_runtime.serve.head import TOKEN
from seed_runtime.serve.refused import RefusedError

_PIECE: Final = 16 << 10
"""Bytes that are received at once, except into a body's own memory."""
_END: Final = b"\r\n\r\n"
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_AUTO_HEADER: Final = 32
"""Added to zlib's wbits: take a gzip header or a zlib header. Source: zlib.h, inflateInit2."""
RATIO_MAX: Final = 1032
"""Largest ratio of deflate: a match of 258 bytes takes at least two bits. Source: zlib.net/zlib_tech.html."""


class Reader:
    """A connection to read from. It holds at most `HEAD_MAX` and a piece of what comes after a request."""

    def __init__(self, link: socket.socket, on_received: Callable[[int], None]) -> None:
        """Read from `link`, which doesn't block, and call `on_received` with the size of each piece of a body."""
        self._link, self._on_received = link, on_received
        self._loop = asyncio.get_running_loop()
        self._ahead = b""
        """Received bytes that no request has taken yet."""

    @property
    def has_ahead(self) -> bool:
        """Whether bytes have come that no request has taken."""
        return bool(self._ahead)

    async def wait(self) -> bool:
        """Wait for the first byte of a request. Return False if the connection ends instead."""
        # RFC 9112, 2.2: empty lines before a request are ignored.
        while not self._ahead:
            received = await self._receive()
            if not received:
                return False
            self._ahead = received.lstrip(b"\r\n")
        return True

    async def read_head(self) -> bytes:
        """Read the request line and all headers, without the empty line after them.

        Raises:
            RefusedError: they are too large or can't be HTTP, or the connection ends before.
        """
        searched = 0
        while True:
            end = self._ahead.find(_END, searched)
            size = len(self._ahead) if end < 0 else end
            if not TOKEN.match(self._ahead) or _BARE_LF.search(self._ahead, searched, size):
                raise RefusedError(HTTPStatus.BAD_REQUEST, "this is not a request of HTTP/1.1 or 1.0", close=True)
            if size > limits.HEAD_MAX:
                status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
                raise RefusedError(status, f"the headers have more than {limits.HEAD_MAX:,} bytes", close=True)
            if end >= 0:
                head, self._ahead = self._ahead[:end], self._ahead[end + len(_END) :].lstrip(b"\r\n")
                return head
            searched = max(0, size - len(_END) + 1)
            received = await self._receive()
            if not received:
                raise RefusedError(HTTPStatus.BAD_REQUEST, "the connection ended within the headers", close=True)
            self._ahead += received

    async def read_body(self, size: int) -> memoryview:
        """Read a body of this size.

        Raises:
            RefusedError: the connection ends before.
        """
        # Unlike a bytearray's, its pages take no memory until they are written to: a size that is only announced
        # costs nothing.
        body = np.empty(size, np.uint8).data
        place = 0
        while place < size:
            place += await self._receive_into(body[place:])
        return body

    async def read_compressed(self, size: int, most: int) -> memoryview:
        """Read a body that is compressed by gzip or zlib.

        Args:
            size: its size as it is sent [B].
            most: largest size of its content, which is what is allocated at most [B].

        Raises:
            RefusedError: the content is larger, the bytes are damaged, or the connection ends before.
        """
        body = np.empty(most, np.uint8).data
        buffer = memoryview(bytearray(min(_PIECE, size)))
        inflater = zlib.decompressobj(zlib.MAX_WBITS | _AUTO_HEADER)
        place, left = 0, size
        while left:
            count = await self._receive_into(buffer[: min(left, len(buffer))])
            left -= count
            data: bytes | memoryview = buffer[:count]
            while not inflater.eof:
                try:
                    content = inflater.decompress(data, _PIECE)
                except zlib.error as error:
                    line = f"the body can't be decompressed: {error}"
                    raise RefusedError(HTTPStatus.BAD_REQUEST, line, close=True) from None
                if len(content) > most - place:
                    line = f"the body's content has more than {most:,} bytes; send smaller inputs"
                    raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, line, close=True)
                body[place : place + len(content)] = content
                place += len(content)
                data = inflater.unconsumed_tail
                if not data and len(content) < _PIECE:
                    break
                # A bomb must not keep the other connections waiting.
                await asyncio.sleep(0)
            if inflater.eof and (left or inflater.unused_data):
                raise RefusedError(HTTPStatus.BAD_REQUEST, "bytes stand behind the compressed body", close=True)
        if not inflater.eof:
            raise RefusedError(HTTPStatus.BAD_REQUEST, "the compressed body is cut", close=True)
        return body[:place]

    async def discard(self) -> None:
        """Receive what comes, and forget it, until the connection ends."""
        self._ahead = b""
        while await self._receive():
            pass

    async def _receive(self) -> bytes:
        """Receive a piece; nothing if the connection has ended."""
        # Without this a client that sends faster than it is read keeps all others waiting, and no deadline ends that:
        # what is here already is received without giving way.
        await asyncio.sleep(0)
        return await self._loop.sock_recv(self._link, _PIECE)

    async def _receive_into(self, view: memoryview) -> int:
        """Receive at least one byte of a body. Return how many."""
        if self._ahead:
            count = min(len(self._ahead), len(view))
            view[:count], self._ahead = self._ahead[:count], self._ahead[count:]
            return count
        await asyncio.sleep(0)  # as in _receive
        count = await self._loop.sock_recv_into(self._link, view)
        self._on_received(count)
        if not count:
            raise RefusedError(HTTPStatus.BAD_REQUEST, "the body is shorter than Content-Length", close=True)
        return count
