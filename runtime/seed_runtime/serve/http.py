"""HTTP/1.1 for the server: one connection's requests, each within its limits of size and time.

Every fault of the client is answered with a 4xx and a line of JSON. The connection is closed after those that leave it
unclear where the next request begins. Every wait for the client has a deadline, and waiting takes no thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import traceback
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import TYPE_CHECKING

from seed_runtime.serve import limits
from seed_runtime.serve.address import is_local
from seed_runtime.serve.answers import Answer, send
from seed_runtime.serve.calls import ASK, GENERATE, INFER, STREAM, answer_call, check_model, find_call
from seed_runtime.serve.generating import generate
from seed_runtime.serve.head import Head, parse_head
from seed_runtime.serve.inference import BodyPlan, infer, plan_body
from seed_runtime.serve.reading import Reader
from seed_runtime.serve.refused import RefusedError, busy

if TYPE_CHECKING:
    from seed_runtime.serve.server import Server


class Connection:
    """Answers the requests of one connection until it is closed."""

    def __init__(self, link: socket.socket, server: Server) -> None:
        """Serve the connection `link`, which doesn't block."""
        self._link, self._server = link, server
        self._reader = Reader(link, self._on_received)
        self._deadline: asyncio.Timeout | None = None
        """Of what is being read."""
        self.patience = 0.0
        """Time of the event loop from which on it may be dropped for others."""
        self.is_idle = False
        """Whether a request was answered, and nothing of the next one has come."""
        self._dropped = False
        """Whether its place was given to others."""
        self._reset()

    def _reset(self) -> None:
        self._head: Head | None = None
        self._call = "other"
        self._unread = True
        """Whether there may be more of the request than was read."""
        self._begun = False
        """Whether some of the answer was sent."""

    async def serve(self) -> None:
        """Answer requests until the connection ends, or is closed after a fault."""
        with contextlib.suppress(OSError, TimeoutError):
            while await self._serve_one():
                self._reset()
                self.is_idle = True
                # A client that sends one request after the other must not keep the others waiting.
                await asyncio.sleep(0)

    def hurry(self, seconds: float) -> None:
        """Let what is being read take no longer than this."""
        if self._deadline is not None and not self._deadline.expired():
            when = asyncio.get_running_loop().time() + seconds
            self._deadline.reschedule(min(when, self._deadline.when() or when))

    def drop(self) -> None:
        """End what is being read, since others need its place."""
        self._dropped = True
        self.hurry(0)

    async def refuse_all(self) -> None:
        """Answer 503 without reading a request, since the server is full."""
        with contextlib.suppress(OSError, TimeoutError):
            await self._refuse(busy("too many connections; try again later"))

    async def _serve_one(self) -> bool:
        """Read a request and answer it. Return whether another one may follow."""
        keep_alive = False
        try:
            if not await self._await_request():
                return False
            keep_alive = await self._answer()
            if not keep_alive and (self._unread or self._reader.has_ahead):
                await self._linger()
        except RefusedError as refused:
            keep_alive = await self._refuse(refused)
        except (TimeoutError, ConnectionError):
            return False
        except Exception as error:
            await self._report_internal_error(error)
        return keep_alive

    # Reading

    async def _await_request(self) -> bool:
        """Wait for the first byte of a request. Return False if none comes."""
        try:
            async with self._reading(limits.IDLE_S, limits.PATIENCE_S):
                if not await self._reader.wait():
                    return False
        except TimeoutError:
            # A request may be on its way on a connection that has had none.
            if self._server.stopping and not self.is_idle:
                raise self._late("") from None
            if self._dropped and not self.is_idle:
                raise busy("too many connections; try again later") from None
            return False
        self.is_idle = False
        return True

    @contextlib.asynccontextmanager
    async def _reading(self, seconds: float, patience: float, *, body: bool = False) -> AsyncIterator[None]:
        """Read within a deadline; TimeoutError after it. After `patience` it may be cut short for others."""
        self.patience = asyncio.get_running_loop().time() + patience
        try:
            async with asyncio.timeout(seconds) as self._deadline:
                self._server.readers[self] = body
                if self._server.stopping:
                    self.hurry(limits.ENDING_S)
                yield
        finally:
            self._server.readers.pop(self, None)
            self._deadline = None

    async def _read_head(self) -> Head:
        try:
            async with self._reading(limits.HEAD_S, limits.PATIENCE_S):
                self._head = parse_head(await self._reader.read_head())
        except TimeoutError:
            raise self._late("the request took too long to come") from None
        return self._head

    async def _read_body(self, plan: BodyPlan, expects_continue: bool) -> memoryview:
        try:
            async with self._reading(limits.BODY_S, limits.PATIENCE_S, body=True):
                if expects_continue:
                    await asyncio.get_running_loop().sock_sendall(self._link, b"HTTP/1.1 100 Continue\r\n\r\n")
                if plan.compressed:
                    body = await self._reader.read_compressed(plan.size, plan.most)
                else:
                    body = await self._reader.read_body(plan.size)
        except TimeoutError:
            raise self._late("the body took too long to come") from None
        self._unread = False
        return body

    def _on_received(self, count: int) -> None:
        """Give a body the time that so many bytes may take, unless its time was cut short."""
        if self._deadline is None or self._deadline.expired() or self._server.stopping:
            return
        if self in self._server.readers:
            seconds = count / limits.BODY_RATE
            self.patience += seconds
            self._deadline.reschedule((self._deadline.when() or 0.0) + seconds)

    def _late(self, line: str) -> RefusedError:
        if self._server.stopping:
            return busy("the server is ending; try again later")
        return RefusedError(HTTPStatus.REQUEST_TIMEOUT, line, close=True)

    # Answering

    async def _answer(self) -> bool:
        """Answer a request. Return whether another one may follow."""
        head = await self._read_head()
        self._check(head)
        size = head.one("Content-Length")
        self._unread = bool(head.all("Transfer-Encoding")) or size not in (None, "0")
        self._call, parts = find_call(head.target)
        check_model(parts, self._server)
        if self._call not in (INFER, ASK, GENERATE):
            return await self._send(answer_call(self._call, parts, head, self._server))
        if self._call == ASK and self._server.model.processing is None:
            line = f"{self._server.model.name} doesn't say what it can be asked about; send tensors to infer"
            raise RefusedError(HTTPStatus.NOT_FOUND, line)
        if self._call == GENERATE and self._server.model.writer is None:
            reason = self._server.model.writes_not
            status = HTTPStatus.NOT_IMPLEMENTED if reason else HTTPStatus.NOT_FOUND
            line = f"{self._server.model.name} doesn't write texts here: "
            raise RefusedError(status, line + (reason or "its seed says nothing of generation"))
        plan = plan_body(head, self._server.body_max if self._call == INFER else self._server.asked_max)
        admitted = self._server.admitted(is_prompt=self._call == GENERATE)
        async with admitted, self._server.bodies.reserve(plan.most) as reserved:
            expects_continue = head.minor > 0 and (head.one("Expect") or "").lower() == "100-continue"
            async with contextlib.AsyncExitStack() as running:
                # No name holds the body, so that its memory is free while a text is written, or a small answer sent.
                if self._call == GENERATE:
                    answer = await generate(
                        self._server,
                        reserved.shrink(await self._read_body(plan, expects_continue)),
                        reserved,
                        self._link,
                        running,
                        streams=parts[-1] == STREAM,
                    )
                    return await self._send(answer)
                answer = await infer(
                    self._server,
                    reserved.shrink(await self._read_body(plan, expects_continue)),
                    plan.json_size,
                    running,
                    is_question=self._call == ASK,
                )
                return await self._send(answer)

    def _check(self, head: Head) -> None:
        """Refuse requests of web pages."""
        if head.all("Origin"):
            raise RefusedError(
                HTTPStatus.FORBIDDEN, "web pages may not ask this server; put a proxy in front that decides", close=True
            )
        # A web page's own name may be made to resolve to this machine; then it sends no Origin. A Unix socket can't be
        # reached by web pages.
        if self._link.family != socket.AF_UNIX and not all(map(is_local, head.all("Host"))):
            line = "Host is not a name of this machine; use localhost, and let a proxy in front set it so"
            raise RefusedError(HTTPStatus.MISDIRECTED_REQUEST, line, close=True)

    async def _send(self, answer: Answer) -> bool:
        """Send an answer. Return whether another request may follow."""
        head = self._head
        minor = 1 if head is None else head.minor
        keep_alive = (
            head is not None
            and head.keep_alive
            and not (self._unread or self._server.stopping or (answer.size is None and minor == 0))
        )
        self._begun = True
        self._server.metrics.count(self._call, answer.status)
        is_head = head is not None and head.method == "HEAD"
        await send(self._link, answer, minor=minor, keep_alive=keep_alive, head_only=is_head)
        return keep_alive

    async def _refuse(self, refused: RefusedError) -> bool:
        # The memory of the request must be free while the client reads this.
        refused.__traceback__ = refused.__context__ = None
        if self._begun:
            return False
        self._unread = self._unread or refused.close
        keep_alive = await self._send(Answer.of_error(refused.line, refused.status, refused.header))
        if not keep_alive:
            await self._linger()
        return keep_alive

    async def _report_internal_error(self, error: Exception) -> None:
        """Answer 500 for a fault of ours, and write it to the log."""
        if os.environ.get("SEED_DEBUG"):
            traceback.print_exception(error)
        error.__traceback__ = None
        print(f"seed-run: {type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        line = f"{error}" if hasattr(error, "exit_code") else f"internal error: {type(error).__name__}"
        await self._refuse(RefusedError(HTTPStatus.INTERNAL_SERVER_ERROR, line, close=True))

    async def _linger(self) -> None:
        """Read on for a moment: closing a connection with unread bytes would discard the answer."""
        with contextlib.suppress(OSError, TimeoutError):
            self._link.shutdown(socket.SHUT_WR)
            with self._server.lingering():
                async with asyncio.timeout(limits.LINGER_S):
                    await self._reader.discard()
