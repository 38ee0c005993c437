"""HTTP/1.1 for the server: one connection's requests, each within its limits of size and time.

Every fault of the client is answered with a 4xx and a line of JSON. The connection is closed after those that leave it
unclear where the next request begins. Handlers run in the server's threads. Every wait for the client has a deadline.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, Final, NoReturn
from urllib.parse import unquote

from seed_runtime.errors import InputError, MemoryBudgetError
from seed_runtime.serve import limits, protocol
from seed_runtime.serve.address import is_local
from seed_runtime.serve.reading import Reader, RefusedError
from seed_runtime.version import __version__

if TYPE_CHECKING:
    from seed_runtime.serve.server import Server

_TYPES: Final = ("application/json", "application/octet-stream")
"""Content types of a request."""
_DISCARD: Final = 64 << 10
"""Bytes that are read and discarded at once."""


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of one connection until it is closed."""

    protocol_version = "HTTP/1.1"
    server_version = f"seed-run/{__version__}"
    sys_version = ""
    server: Server  # type: ignore[assignment]
    connection: socket.socket

    def setup(self) -> None:
        """Prepare to read from the connection."""
        self.connection = self.request
        self._reader = Reader(self.connection)
        self.rfile = self._reader
        if self.connection.family != socket.AF_UNIX:
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def finish(self) -> None:
        """Release the reader; the server closes the connection."""
        self._reader.close()

    def handle_one_request(self) -> None:
        """Read a request and answer it. Afterwards `close_connection` says whether another one may follow."""
        self.close_connection = True
        self._begun = False
        self._unread = True
        self.requestline, self.request_version, self.command = "", self.protocol_version, ""
        try:
            if not self._await_request():
                return
            self._answer_one()
            if self._unread:
                self._drain()
        except RefusedError as refused:
            self._refuse(refused)
        except (TimeoutError, ConnectionError):
            self.close_connection = True
        except Exception as error:
            self._report_internal_error(error)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> NoReturn:
        """Refuse a head in which http.server finds a fault.

        Raises:
            RefusedError: always.
        """
        # http.server gives 505 for an unknown version of HTTP, which is a fault of the client as well.
        status = HTTPStatus(code) if code < 500 else HTTPStatus.BAD_REQUEST
        raise RefusedError(status, f"this request can't be read: {message or status.phrase}", close=True)

    def handle_expect_100(self) -> bool:
        """Do nothing yet: `_read_body` answers "100 Continue" once the request is known to be acceptable."""
        return True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  its name in http.server
        """Log nothing: the service manager's log would grow with every request."""

    # Reading

    def _await_request(self) -> bool:
        with self.server.waiting(self.connection) as stopping:
            if stopping or not self._reader.wait(limits.IDLE_S):
                return False
        self._reader.begin_head(limits.HEAD_S)
        try:
            self.raw_requestline = self._reader.readline()
            if not self.raw_requestline.strip():
                return False
            # It returns False only after send_error, which raises an error here.
            self.parse_request()
        except TimeoutError:
            raise RefusedError(HTTPStatus.REQUEST_TIMEOUT, "the request took too long to come", close=True) from None
        if self.request_version == "HTTP/0.9":
            raise RefusedError(HTTPStatus.BAD_REQUEST, "this is not a request of HTTP/1.1 or 1.0", close=True)
        return True

    def _answer_one(self) -> None:
        if self.headers.get("Origin") is not None:
            raise RefusedError(
                HTTPStatus.FORBIDDEN, "web pages may not ask this server; put a proxy in front that decides", close=True
            )
        # A web page's own name may be made to resolve to this machine; then it sends no Origin. A Unix socket can't be
        # reached by web pages.
        if self.connection.family != socket.AF_UNIX and not all(map(is_local, self.headers.get_all("Host", []))):
            line = "Host is not a name of this machine; use localhost, and let a proxy in front set it so"
            raise RefusedError(HTTPStatus.MISDIRECTED_REQUEST, line, close=True)
        sizes = self.headers.get_all("Content-Length", [])
        if len(set(sizes)) > 1:
            raise RefusedError(HTTPStatus.BAD_REQUEST, "Content-Length is given twice", close=True)
        chunked = self.headers.get("Transfer-Encoding") is not None
        self._unread = chunked or (bool(sizes) and sizes[0].strip() != "0")
        parts = [unquote(part) for part in self.path.partition("?")[0].strip("/").split("/")]
        match parts:
            case ["v2"]:
                self._send_json(self._get(protocol.server_metadata()))
            case ["v2", "health", "live"]:
                self._send_json(self._get({"live": True}))
            case ["v2", "health", "ready"]:
                # Some versions of the specification call this value `live` as well.
                self._send_ready(self._get({"ready": self._ready, "live": True}))
            case ["v2", "models", name, "versions", version, *rest]:
                self._model(name, version, rest)
            case ["v2", "models", name, *rest]:
                self._model(name, None, rest)
            case _:
                raise RefusedError(HTTPStatus.NOT_FOUND, f"there is no {self.path[:80]}; see GET /v2")

    @property
    def _ready(self) -> bool:
        return not self.server.stopping

    def _model(self, name: str, version: str | None, rest: list[str]) -> None:
        model = self.server.model
        if name != model.name or version not in (None, model.version):
            asked = name if version is None else f"{name}, version {version}"
            line = f"the model {asked[:80]!r} is not served here; {model.name!r}, version {model.version}, is"
            raise RefusedError(HTTPStatus.NOT_FOUND, line)
        if rest == []:
            self._send_json(self._get(model.metadata()))
        elif rest == ["ready"]:
            self._send_ready(self._get({"name": model.name, "ready": self._ready}))
        elif rest == ["infer"]:
            if self.command != "POST":
                raise RefusedError(HTTPStatus.METHOD_NOT_ALLOWED, "use POST to infer", header="Allow: POST")
            self._infer()
        else:
            raise RefusedError(HTTPStatus.NOT_FOUND, f"there is no {self.path[:80]}; see GET /v2")

    def _get(self, values: dict[str, Any]) -> dict[str, Any]:
        if self.command != "GET":
            raise RefusedError(HTTPStatus.METHOD_NOT_ALLOWED, "use GET here", header="Allow: GET")
        return values

    def _infer(self) -> None:
        size = self._size()
        json_size = self._number("Inference-Header-Content-Length", size)
        if json_size is not None and json_size > size:
            raise RefusedError(HTTPStatus.BAD_REQUEST, "Inference-Header-Content-Length is more than Content-Length")
        with self.server.bodies.reserve(size) as is_reserved:
            if not is_reserved:
                raise RefusedError(
                    HTTPStatus.SERVICE_UNAVAILABLE, "too many requests at once; try again", header="Retry-After: 1"
                )
            body = self._read_body(size)
            with contextlib.ExitStack() as running:
                running.enter_context(self.server.run_lock)
                self._run(body, size if json_size is None else json_size, running)

    def _run(self, body: bytearray, json_size: int, running: contextlib.ExitStack) -> None:
        """Run the model and answer. `running` is closed before a small answer is sent, and by the caller otherwise."""
        model = self.server.model
        try:
            request = protocol.read_request(body, json_size, model)
            values = model.run(request.feeds)
        except InputError as error:
            raise RefusedError(HTTPStatus.BAD_REQUEST, str(error)) from None
        except MemoryBudgetError as error:
            raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, str(error)) from None
        head, parts = protocol.write_answer(model, request, values)
        whole = _join_up_to(parts, limits.ANSWER_HELD)
        if isinstance(whole, bytes):
            del request, values, body
            running.close()
            self._send(HTTPStatus.OK, [whole], len(whole), head)
        elif head is None:
            self._send(HTTPStatus.OK, whole, None, None)
        else:
            pieces = list(whole)
            self._send(HTTPStatus.OK, pieces, sum(memoryview(piece).nbytes for piece in pieces), head)

    def _size(self) -> int:
        """Return Content-Length, once the headers say that the body can be used."""
        kind = self.headers.get("Content-Type")
        # The protocol lets clients send none.
        if kind is not None and kind.partition(";")[0].strip().lower() not in _TYPES:
            raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"send {' or '.join(_TYPES)}", close=True)
        if self.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
            raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send the body without Content-Encoding", close=True)
        if self.headers.get("Transfer-Encoding") is not None:
            raise RefusedError(HTTPStatus.LENGTH_REQUIRED, "send Content-Length, not Transfer-Encoding", close=True)
        size = self._number("Content-Length", self.server.body_max)
        if size is None:
            raise RefusedError(HTTPStatus.LENGTH_REQUIRED, "send Content-Length", close=True)
        return size

    def _number(self, name: str, most: int) -> int | None:
        text = self.headers.get(name)
        if text is None:
            return None
        text = text.strip()
        if not (text.isascii() and text.isdigit()) or len(text) > 15:
            raise RefusedError(HTTPStatus.BAD_REQUEST, f"{name} is not a size", close=True)
        if int(text) > most and name == "Content-Length":
            line = f"the request has {int(text):,} bytes, and this model's inputs have at most {most:,}"
            raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, line, close=True)
        return int(text)

    def _read_body(self, size: int) -> bytearray:
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            body = self._reader.read_body(size, limits.BODY_S + size / limits.BODY_RATE)
        except TimeoutError:
            raise RefusedError(HTTPStatus.REQUEST_TIMEOUT, "the body took too long to come", close=True) from None
        self._unread = False
        return body

    # Answering

    def _send_ready(self, values: dict[str, Any]) -> None:
        self._send_json(values, HTTPStatus.OK if values["ready"] else HTTPStatus.SERVICE_UNAVAILABLE)

    def _send_json(self, values: dict[str, Any], status: HTTPStatus = HTTPStatus.OK, header: str = "") -> None:
        text = json.dumps(values).encode()
        self._send(status, [text], len(text), None, header)

    def _send(
        self, status: HTTPStatus, parts: Iterable[Any], size: int | None, json_size: int | None, header: str = ""
    ) -> None:
        """Send an answer.

        Args:
            status: its status.
            parts: its body.
            size: the body's size; None to send it in chunks, or to a client of HTTP/1.0 up to the connection's end.
            json_size: the size of the JSON before binary data; None for a body of JSON only.
            header: one more header line.
        """
        if self._unread or self.server.stopping:
            self.close_connection = True
        chunked = size is None and self.request_version != "HTTP/1.0"
        self._begun = True
        self.close_connection = self.close_connection or (size is None and not chunked)
        lines = [
            f"HTTP/1.1 {status.value} {status.phrase}",
            f"Server: {self.server_version}",
            f"Content-Type: {'application/json' if json_size is None else 'application/octet-stream'}",
            "Transfer-Encoding: chunked" if chunked else "" if size is None else f"Content-Length: {size}",
            "" if json_size is None else f"Inference-Header-Content-Length: {json_size}",
            "Connection: close" if self.close_connection else "",
            "Connection: keep-alive" if not self.close_connection and self.request_version == "HTTP/1.0" else "",
            header,
        ]
        head = "\r\n".join(filter(None, lines)).encode("latin-1", "replace") + b"\r\n\r\n"
        deadline = time.monotonic() + limits.ANSWER_S
        if self.command == "HEAD":
            self._write(head, deadline)
            return
        for part in parts:
            piece = b"%x\r\n" % len(part) + part + b"\r\n" if chunked else part
            if head and len(part) <= limits.ANSWER_HELD:
                # In one packet with the head, so that the client gets it at once.
                self._write(head + bytes(piece), deadline)
            else:
                self._write(head, deadline)
                self._write(piece, deadline)
            head = b""
        self._write(head + (b"0\r\n\r\n" if chunked else b""), deadline)

    def _write(self, data: bytes | memoryview, deadline: float) -> None:
        if not len(data):
            return
        # The timeout is for all of sendall, not for each of its parts.
        self.connection.settimeout(max(0.001, deadline - time.monotonic()))
        self.connection.sendall(data)

    def _refuse(self, refused: RefusedError) -> None:
        # The memory of the request must be free while the client reads this.
        refused.__traceback__ = refused.__context__ = None
        if self._begun:
            self.close_connection = True
            return
        self.close_connection = self.close_connection or refused.close
        with contextlib.suppress(TimeoutError, ConnectionError):
            self._send_json({"error": " ".join(refused.line.split())}, refused.status, refused.header)
            if self.close_connection:
                self._drain()
            return
        self.close_connection = True

    def _report_internal_error(self, error: Exception) -> None:
        """Answer 500 for a fault of ours, and write it to the log."""
        if os.environ.get("SEED_DEBUG"):
            traceback.print_exc()
        print(f"seed-run: {type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        line = f"{error}" if hasattr(error, "exit_code") else f"internal error: {type(error).__name__}"
        self._refuse(RefusedError(HTTPStatus.INTERNAL_SERVER_ERROR, line, close=True))

    def _drain(self) -> None:
        """Read on for a moment: closing a connection with unread bytes would discard the answer."""
        with contextlib.suppress(OSError, TimeoutError):
            self.connection.shutdown(socket.SHUT_WR)
            deadline = time.monotonic() + limits.LINGER_S
            while (left := deadline - time.monotonic()) > 0:
                self.connection.settimeout(left)
                if not self.connection.recv(_DISCARD):
                    return


def _join_up_to(parts: Iterator[Any], most: int) -> bytes | Iterator[Any]:
    """Return all parts as one if they have at most `most` bytes, else the parts one after the other."""
    first: list[Any] = []
    size = 0
    for part in parts:
        first.append(part)
        size += len(part)
        if size > most:
            return _chain(first, parts)
    return b"".join(first)


def _chain(first: list[Any], rest: Iterator[Any]) -> Iterator[Any]:
    while first:
        yield first.pop(0)
    yield from rest
