"""HTTP/1.1 for the server: one connection's requests, each within its limits of size and time.

Every fault of the client is a 4xx with a line of JSON; the connection ends after those that leave it unclear where
the next request begins. Handlers run in the server's threads. What has no deadline of its own is bounded by it.
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
_DISCARD: Final = 64 << 10


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of one connection until it ends."""

    protocol_version = "HTTP/1.1"
    server_version = f"seed-run/{__version__}"
    sys_version = ""
    server: Server  # type: ignore[assignment]
    connection: socket.socket

    def setup(self) -> None:
        self.connection = self.request
        self._reader = Reader(self.connection)
        self.rfile = self._reader
        if self.connection.family != socket.AF_UNIX:
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def finish(self) -> None:
        self._reader.close()

    def handle_one_request(self) -> None:
        """Read a request and answer it; `close_connection` says whether another one may follow."""
        self.close_connection = True
        self._begun = False
        self._unread = True
        self.requestline, self.request_version, self.command = "", self.protocol_version, ""
        try:
            if not self._await_request():
                return
            self._answer_one()
            if self._unread:
                self._linger()
        except RefusedError as refused:
            self._refuse(refused)
        except (TimeoutError, ConnectionError):
            self.close_connection = True
        except Exception as error:
            self._internal(error)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> NoReturn:
        """What http.server finds wrong with a head, as our kind of answer."""
        # 505 for a version that it doesn't know: a fault of the client all the same.
        status = HTTPStatus(code) if code < 500 else HTTPStatus.BAD_REQUEST
        raise RefusedError(status, f"this is no request that can be read: {message or status.phrase}", close=True)

    def handle_expect_100(self) -> bool:
        """Only once the request is known to be taken, see `_body`."""
        return True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  its name in http.server
        """Nothing: the service manager's log would grow with every request."""

    # Reading

    def _await_request(self) -> bool:
        with self.server.waiting(self.connection) as stopping:
            if stopping or not self._reader.wait(limits.IDLE_S):
                return False
        self._reader.head(limits.HEAD_S)
        try:
            self.raw_requestline = self._reader.readline()
            if not self.raw_requestline.strip():
                return False
            # False only after send_error, which raises here.
            self.parse_request()
        except TimeoutError:
            raise RefusedError(HTTPStatus.REQUEST_TIMEOUT, "the request took too long to come", close=True) from None
        if self.request_version == "HTTP/0.9":
            raise RefusedError(HTTPStatus.BAD_REQUEST, "this is no request of HTTP/1.1 or 1.0", close=True)
        return True

    def _answer_one(self) -> None:
        if self.headers.get("Origin") is not None:
            raise RefusedError(
                HTTPStatus.FORBIDDEN, "web pages may not ask this server; put a proxy in front that decides", close=True
            )
        # A page's own name may be made to lead here, and then it asks without an Origin. No page reaches a socket.
        if self.connection.family != socket.AF_UNIX and not all(map(is_local, self.headers.get_all("Host", []))):
            line = "Host is no name of this machine's; ask localhost, and let a proxy in front set it so"
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
                # Some texts of the protocol call the value of this call `live` as well.
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
        with self.server.bodies.holding(size) as held:
            if not held:
                raise RefusedError(
                    HTTPStatus.SERVICE_UNAVAILABLE, "too many requests at once; try again", header="Retry-After: 1"
                )
            body = self._body(size)
            with contextlib.ExitStack() as turn:
                turn.enter_context(self.server.turn)
                self._run(body, size if json_size is None else json_size, turn)

    def _run(self, body: bytearray, json_size: int, turn: contextlib.ExitStack) -> None:
        """Run the model and answer. The turn ends before a small answer is sent, and after a large one."""
        model = self.server.model
        try:
            request = protocol.read_request(body, json_size, model)
            values = model.run(request.feeds)
        except InputError as error:
            raise RefusedError(HTTPStatus.BAD_REQUEST, str(error)) from None
        except MemoryBudgetError as error:
            raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, str(error)) from None
        head, parts = protocol.write_answer(model, request, values)
        whole = _held(parts, limits.ANSWER_HELD)
        if isinstance(whole, bytes):
            del request, values, body
            turn.close()
            self._send(HTTPStatus.OK, [whole], len(whole), head)
        elif head is None:
            self._send(HTTPStatus.OK, whole, None, None)
        else:
            pieces = list(whole)
            self._send(HTTPStatus.OK, pieces, sum(memoryview(piece).nbytes for piece in pieces), head)

    def _size(self) -> int:
        """Content-Length of a body that may come."""
        kind = self.headers.get("Content-Type")
        # Clients of this protocol may send none.
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
            raise RefusedError(HTTPStatus.BAD_REQUEST, f"{name} is no size", close=True)
        if int(text) > most and name == "Content-Length":
            line = f"the request has {int(text):,} bytes, and this model's inputs make at most {most:,}"
            raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, line, close=True)
        return int(text)

    def _body(self, size: int) -> bytearray:
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            body = self._reader.exactly(size, limits.BODY_S + size / limits.BODY_RATE)
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
        """Send an answer; without `size` in chunks, or up to the connection's end to a client of HTTP/1.0."""
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
                # With the head in one packet: the client gets it at once.
                self._write(head + bytes(piece), deadline)
            else:
                self._write(head, deadline)
                self._write(piece, deadline)
            head = b""
        self._write(head + (b"0\r\n\r\n" if chunked else b""), deadline)

    def _write(self, data: bytes | memoryview, deadline: float) -> None:
        if not len(data):
            return
        # For all of sendall, not for each of its parts.
        self.connection.settimeout(max(0.001, deadline - time.monotonic()))
        self.connection.sendall(data)

    def _refuse(self, refused: RefusedError) -> None:
        # What the request held must not wait for the client to read this.
        refused.__traceback__ = refused.__context__ = None
        if self._begun:
            self.close_connection = True
            return
        self.close_connection = self.close_connection or refused.close
        with contextlib.suppress(TimeoutError, ConnectionError):
            self._send_json({"error": " ".join(refused.line.split())}, refused.status, refused.header)
            if self.close_connection:
                self._linger()
            return
        self.close_connection = True

    def _internal(self, error: Exception) -> None:
        """Our own fault: told to the client, and to whoever reads the log."""
        if os.environ.get("SEED_DEBUG"):
            traceback.print_exc()
        print(f"seed-run: {type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        line = f"{error}" if hasattr(error, "exit_code") else f"internal error: {type(error).__name__}"
        self._refuse(RefusedError(HTTPStatus.INTERNAL_SERVER_ERROR, line, close=True))

    def _linger(self) -> None:
        """Read on for a moment: what is closed with bytes unread takes the answer with it."""
        with contextlib.suppress(OSError, TimeoutError):
            self.connection.shutdown(socket.SHUT_WR)
            deadline = time.monotonic() + limits.LINGER_S
            while (left := deadline - time.monotonic()) > 0:
                self.connection.settimeout(left)
                if not self.connection.recv(_DISCARD):
                    return


def _held(parts: Iterator[Any], most: int) -> bytes | Iterator[Any]:
    """All of it if it is at most that many bytes, else the parts as they come."""
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
