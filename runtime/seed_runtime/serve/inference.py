"""One inference: what its body may be, the run of the model, the answer."""

from __future__ import annotations

import contextlib
import functools
import json
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from seed_runtime.backends import Feeds
from seed_runtime.errors import MemoryBudgetError
from seed_runtime.serve import limits, protocol
from seed_runtime.serve.answers import Answer
from seed_runtime.serve.asking import answer_question
from seed_runtime.serve.metrics import Times
from seed_runtime.serve.reading import RATIO_MAX
from seed_runtime.serve.refused import RefusedError, busy, refusal_of

if TYPE_CHECKING:
    from seed_runtime.serve.head import Head
    from seed_runtime.serve.server import Server

_TYPES: Final = ("application/json", "application/octet-stream")
"""Content types of a request."""
_CODINGS: Final = ("gzip", "x-gzip", "deflate")
"""Content codings of a request."""


@dataclass(frozen=True)
class BodyPlan:
    """What the headers say about a body."""

    size: int
    """Its size as it is sent [B]."""
    compressed: bool
    most: int
    """Largest size of its content [B]."""
    json_size: int | None
    """Size of the JSON before binary data [B]; None if all is JSON."""


def plan_body(head: Head, body_max: int) -> BodyPlan:
    """Return what the headers say about an inference's body, before a byte of it is read.

    Args:
        head: the request's head.
        body_max: largest body [B].

    Raises:
        RefusedError: it can't be used.
    """
    if head.method != "POST":
        raise RefusedError(HTTPStatus.METHOD_NOT_ALLOWED, "use POST here", header="Allow: POST")
    kind = head.one("Content-Type")
    # The protocol lets clients send none.
    if kind is not None and kind.partition(";")[0].strip().lower() not in _TYPES:
        raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"send {' or '.join(_TYPES)}", close=True)
    coding = (head.one("Content-Encoding") or "identity").lower()
    if coding not in ("identity", *_CODINGS):
        line = f"send the body as it is, or with Content-Encoding {' or '.join(_CODINGS[::2])}"
        raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, line, close=True)
    if head.all("Transfer-Encoding"):
        # The memory for a body is reserved before it is read.
        raise RefusedError(HTTPStatus.LENGTH_REQUIRED, "send Content-Length, not Transfer-Encoding", close=True)
    size = _number(head, "Content-Length")
    if size is None:
        raise RefusedError(HTTPStatus.LENGTH_REQUIRED, "send Content-Length", close=True)
    if size > body_max:
        line = f"the request has {size:,} bytes, and at most {body_max:,} are read"
        raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, line, close=True)
    compressed = coding in _CODINGS
    most = min(body_max, size * RATIO_MAX) if compressed else size
    return BodyPlan(size, compressed, most, _number(head, "Inference-Header-Content-Length"))


async def infer(
    server: Server,
    body: memoryview,
    json_size: int | None,
    running: contextlib.AsyncExitStack,
    *,
    is_question: bool = False,
) -> Answer:
    """Run the model on a request.

    Args:
        server: the server.
        body: the request; the caller keeps no reference to it.
        json_size: the size of the JSON before binary data [B]; None if all is JSON.
        running: keeps the model for this request until the caller has sent the answer. A small answer doesn't need
            that; its arrays are free, and the stack is closed, on return.
        is_question: whether it asks about pictures, texts or sound.

    Raises:
        RefusedError: the request can't be used, or needs a package that is missing here.
    """
    json_size = len(body) if json_size is None else json_size
    if json_size > len(body):
        raise RefusedError(HTTPStatus.BAD_REQUEST, "Inference-Header-Content-Length is more than the body has")
    begun = time.perf_counter()
    try:
        await running.enter_async_context(server.run_lock)
        queued = time.perf_counter() - begun
        held = server.desk.held_bytes
        work = functools.partial(_ask, server.model, body) if is_question else None
        result = await server.worker.call(work or functools.partial(_run, server.model, body, json_size, held))
    except BaseException as error:
        server.metrics.add_failure(time.perf_counter() - begun)
        if (refusal := refusal_of(error)) is not None:
            raise refusal from None
        raise
    server.metrics.add_success(Times(queued, *result.times))
    kind, header = "application/json", ""
    if result.json_size is not None:
        kind, header = "application/octet-stream", f"Inference-Header-Content-Length: {result.json_size}"
    if isinstance(result.body, bytes):
        await running.aclose()
        return Answer(HTTPStatus.OK, result.body, result.size, kind, header)
    return Answer(HTTPStatus.OK, _parts(server, result.body), result.size, kind, header)


@dataclass
class _Result:
    body: bytes | Iterator[Any]
    """In one piece if it is small."""
    size: int | None
    """Size of the body [B]; None if it isn't known before all is written."""
    json_size: int | None
    """Size of the JSON before binary data [B]; None if all is JSON."""
    times: tuple[float, float, float]
    """Times to read the request, to run the model and to write the answer, in seconds."""


def _run(model: protocol.ServedModel, body: memoryview, json_size: int, held: int) -> _Result:
    """Read a request, run the model and write the answer, or its beginning; in the model's thread.

    Args:
        model: the model.
        body: the request.
        json_size: the size of the JSON before binary data [B].
        held: memory that texts hold meanwhile [B].
    """
    begun = time.perf_counter()
    request = protocol.read_request(body, json_size, model)
    if held:
        _admit(model, request.feeds, held)
    was_read = time.perf_counter()
    values = model.run(request.feeds)
    has_run = time.perf_counter()
    head_size, parts = protocol.write_answer(model, request, values)
    whole = _join_up_to(parts, limits.ANSWER_HELD)
    size = len(whole) if isinstance(whole, bytes) else None
    if head_size is not None and not isinstance(whole, bytes):
        pieces = list(whole)
        whole, size = iter(pieces), sum(memoryview(piece).nbytes for piece in pieces)
    times = (was_read - begun, has_run - was_read, time.perf_counter() - has_run)
    return _Result(whole, size, head_size, times)


def _admit(model: protocol.ServedModel, feeds: Feeds, held: int) -> None:
    """Check that feeds can be run beside what texts hold.

    Raises:
        RefusedError: they can't yet.
        MemoryBudgetError: they never can.
    """
    assert model.writer is not None
    try:
        model.writer.admit(feeds, held)
    except MemoryBudgetError:
        model.writer.admit(feeds, 0)
        raise busy("the texts that are being written take the memory for this input; try again later") from None


def _ask(model: protocol.ServedModel, body: memoryview) -> _Result:
    """Answer a question; in the model's thread."""
    begun = time.perf_counter()
    text = json.dumps(answer_question(model, body)).encode()
    # Decoding and the model take turns, sample by sample.
    return _Result(text, len(text), None, (0.0, time.perf_counter() - begun, 0.0))


async def _parts(server: Server, parts: Iterator[Any]) -> AsyncIterator[Any]:
    while (part := await server.worker.call(lambda: next(parts, None))) is not None:
        yield part


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


def _number(head: Head, name: str) -> int | None:
    text = head.one(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 15:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"{name} is not a size", close=True)
    return int(text)
