"""Prompts: JSON in, the text that a model writes out, in one answer or piece by piece as server-sent events.

Source: github.com/triton-inference-server/server, docs/protocol/extension_generate.md
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import select
import socket
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from seed_runtime.errors import InputError, MemoryBudgetError, SeedError
from seed_runtime.limits import VOCABULARY_MAX
from seed_runtime.memory.plan import SLACK
from seed_runtime.serve import limits
from seed_runtime.serve.answers import Answer
from seed_runtime.serve.ending import EndedError, Ending
from seed_runtime.serve.metrics import Times
from seed_runtime.serve.objects import read_object
from seed_runtime.serve.refused import busy, refusal_of
from seed_runtime.serve.writing import NoRoomError, Text

if TYPE_CHECKING:
    from seed_runtime.serve.bodies import Reservation
    from seed_runtime.serve.protocol import ServedModel
    from seed_runtime.serve.server import Server

_FIELDS: Final = ("id", "text_input", "parameters")
_EVENTS: Final = "text/event-stream"
_LOOK_S: Final = 0.5
"""Time between two looks whether a client that has sent its next request is still there [s]."""
_TIME: Final = "time"
"""Why a text ended that took too long, beside the reasons of `Generator.stop`."""


async def generate(
    server: Server,
    body: memoryview,
    reserved: Reservation,
    link: socket.socket,
    running: contextlib.AsyncExitStack,
    *,
    streams: bool,
) -> Answer:
    """Write a text, in turn with others.

    Args:
        server: the server; its model writes texts.
        body: the request; the caller keeps no reference to it.
        reserved: memory of the body, which is returned once the text begins.
        link: the client's connection, on which nothing is read meanwhile.
        running: keeps the text's place for this request until the caller has sent the answer.
        streams: send each piece when it is there.

    Raises:
        RefusedError: the request can't be used, others keep their places too long, or the server ends before it begins.
        ConnectionError: the client is gone.
    """
    begun = time.perf_counter()
    ending = Ending(limits.WAIT_S)
    running.enter_context(_watching(server, link, ending))
    prepare = functools.partial(_prepare, server.model, body)
    del body
    try:
        text = await server.desk.begin(ending, prepare)
        running.callback(server.desk.leave, text)
        del prepare
        reserved.shrink(memoryview(b""))
        ending.extend(limits.GENERATE_S)
        if streams:
            events = _events(server, text, ending, begun)
            # Where the client can't be sent more, the text ends at once.
            running.push_async_callback(events.aclose)
            return Answer(HTTPStatus.OK, events, None, _EVENTS, "Cache-Control: no-cache", is_live=True)
        pieces = []
        while piece := await server.desk.next_piece(text, ending):
            pieces.append(piece)
    except EndedError:
        if ending.is_gone:
            server.metrics.add_failure(time.perf_counter() - begun)
            raise ConnectionAbortedError from None
        reason = "the server is ending" if ending.is_stopping else "the model writes other texts"
        raise busy(f"{reason}; try again later") from None
    except BaseException as error:
        server.metrics.add_failure(time.perf_counter() - begun)
        if (refusal := refusal_of(error)) is not None:
            raise refusal from None
        raise
    if ending.is_gone:
        server.metrics.add_failure(time.perf_counter() - begun)
        raise ConnectionAbortedError
    server.metrics.add_success(Times(text.queue, 0.0, text.run, 0.0))
    return Answer.of_json({**text.head, "text_output": "".join(pieces), **_end(text, ending)})


async def _events(server: Server, text: Text, ending: Ending, begun: float) -> AsyncGenerator[bytes, None]:
    """Yield an event for each piece, and one for the end, or for what went wrong.

    Raises:
        ConnectionError: the client is gone.
    """
    try:
        while piece := await server.desk.next_piece(text, ending):
            yield _event({**text.head, "text_output": piece})
        if ending.is_gone:
            raise ConnectionAbortedError
        last = {**text.head, "text_output": "", **_end(text, ending)}
    except BaseException as error:  # GeneratorExit where the client was sent no more
        server.metrics.add_failure(time.perf_counter() - begun)
        if not isinstance(error, SeedError):
            raise
        # The status was sent before the first run.
        yield _event({"error": " ".join(str(error).split())})
        return
    server.metrics.add_success(Times(text.queue, 0.0, text.run, 0.0))
    yield _event(last)


def _end(text: Text, ending: Ending) -> dict[str, Any]:
    from seed_runtime.processing.generation import INTERRUPTED

    return text.end(INTERRUPTED if ending.is_stopping else _TIME)


def _event(values: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(values).encode() + b"\n\n"


def _prepare(model: ServedModel, body: memoryview, others: Sequence[Text]) -> Text:
    """Read the request and tokenize the prompt; in the model's thread.

    Raises:
        InputError: it can't be used.
        MemoryBudgetError: there is no room for prompt and answer.
        NoRoomError: there is none beside other texts.
    """
    from seed_runtime.processing.generation import Generator

    assert model.writer is not None
    writer = model.writer
    request = _read(body, writer.generation.context)
    head: dict[str, Any] = {"model_name": model.name, "model_version": model.version}
    if request["id"] is not None:
        head["id"] = request["id"]
    given: dict[str, Any] = request["parameters"]
    most, rng_seed = given.pop("max_tokens", None), given.pop("rng_seed", None)
    try:
        generator = Generator(
            writer.generation,
            writer.tokenizer,
            request["text_input"],
            sampling=replace(writer.generation.sampling, **given),
            max_tokens=most,
            rng_seed=rng_seed,
        )
    except MemoryBudgetError as error:  # to split the prompt
        held = sum(each.held_bytes for each in others)
        if error.needed - SLACK - held > error.limit:
            raise
        raise NoRoomError from None
    return Text(head, generator, writer, others)


def _read(body: memoryview, context: int) -> dict[str, Any]:
    """Return the fields of a request, all of them checked.

    Raises:
        InputError: one can't be used.
    """
    from seed_runtime.processing.generation.sampling import PENALTY_MAX, TEMPERATURE_MAX

    ranges: dict[str, tuple[type, float, float]] = {
        "max_tokens": (int, 1, context),
        "temperature": (float, 0, TEMPERATURE_MAX),
        "top_k": (int, 0, VOCABULARY_MAX),
        "top_p": (float, 0, 1),
        "repetition_penalty": (float, 1 / PENALTY_MAX, PENALTY_MAX),
        "rng_seed": (int, 0, (1 << 63) - 1),
    }
    found = read_object(body, "request", _FIELDS)
    identifier, prompt, parameters = found.get("id"), found.get("text_input"), found.get("parameters", {})
    if not (identifier is None or (isinstance(identifier, str) and len(identifier) <= limits.ID_MAX)):
        raise InputError(f"id must be a string of at most {limits.ID_MAX} characters")
    if not isinstance(prompt, str):
        raise InputError("text_input must be a string")
    if not isinstance(parameters, dict) or not parameters.keys() <= ranges.keys():
        raise InputError(f"parameters must be an object with {', '.join(ranges)}")
    for name, value in parameters.items():
        kind, least, most = ranges[name]
        # A bool is an int, and no range has NaN.
        if type(value) not in (int, kind) or not least <= value <= most:
            number = "a whole number" if kind is int else "a number"
            raise InputError(f"{name} must be {number} from {least:g} to {most:,}")
    return {"id": identifier, "text_input": prompt, "parameters": dict(parameters)}


@contextlib.contextmanager
def _watching(server: Server, link: socket.socket, ending: Ending) -> Iterator[None]:
    """Notice within the block that the client closes its connection, or that the server ends."""
    loop = asyncio.get_running_loop()
    closed = select.poll()
    closed.register(link, select.POLLRDHUP)
    later: asyncio.TimerHandle | None = None

    def look() -> None:
        try:
            is_gone = not link.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            is_gone = True
        loop.remove_reader(link)
        if is_gone:
            ending.end(is_gone=True)
        else:
            look_behind()

    def look_behind() -> None:
        # The next request is there, and the loop can't wait for what comes behind it.
        nonlocal later
        if closed.poll(0):
            ending.end(is_gone=True)
        else:
            later = loop.call_later(_LOOK_S, look_behind)

    loop.add_reader(link, look)
    server.endings.add(ending)
    if server.stopping:
        ending.end()
    try:
        yield
    finally:
        server.endings.discard(ending)
        loop.remove_reader(link)
        if later is not None:
            later.cancel()
