"""The calls of the protocol: which one a request is for, and the answers that need no model to run."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from seed_runtime.serve import metrics, protocol
from seed_runtime.serve.answers import Answer
from seed_runtime.serve.refused import RefusedError

if TYPE_CHECKING:
    from seed_runtime.serve.head import Head
    from seed_runtime.serve.server import Server

INFER: Final = "infer"
"""The call that runs the model on tensors."""
ASK: Final = "ask"
"""The call that runs it on pictures, texts and sound."""
GENERATE: Final = "generate"
"""The call that makes it write a text."""
STREAM: Final = "generate_stream"
"""Last part of the path where each piece is sent when it is there."""

_CALLS: Final = {
    "ready": "health",
    "stats": "statistics",
    "infer": INFER,
    "ask": ASK,
    "generate": GENERATE,
    STREAM: GENERATE,
}
"""Calls by the last part of a path below the model's."""


def find_call(target: str) -> tuple[str, list[str]]:
    """Return the call that a request is for, one of `metrics.CALLS`, and the path's parts."""
    parts = [unquote(part) for part in target.partition("?")[0].strip("/").split("/")]
    match parts:
        case ["metrics"]:
            return "metrics", parts
        case ["v2"]:
            return "metadata", parts
        case ["v2", "health", "live" | "ready"]:
            return "health", parts
        case ["v2", "models", "stats"]:
            return "statistics", parts
        case ["v2", "models", _] | ["v2", "models", _, "versions", _]:
            return "metadata", parts
        case ["v2", "models", _, "versions", _, *rest] | ["v2", "models", _, *rest] if len(rest) == 1:
            return _CALLS.get(rest[0], "other"), parts
    return "other", parts


def check_model(parts: list[str], server: Server) -> None:
    """Check that a call names the model that is served.

    Raises:
        RefusedError: it names another one, or another version.
    """
    model = server.model
    match parts:
        case ["v2", "models", name, "versions", version, *_]:
            wanted = (name, version)
        case ["v2", "models", "stats"]:
            return
        case ["v2", "models", name, *_]:
            wanted = (name, model.version)
        case _:
            return
    if wanted != (model.name, model.version):
        asked = wanted[0][:80]
        version = "" if wanted[1] == model.version else f", version {wanted[1][:80]}"
        line = f"the model {asked!r}{version} is not served here; {model.name!r}, version {model.version}, is"
        raise RefusedError(HTTPStatus.NOT_FOUND, line)


def answer_call(call: str, parts: list[str], head: Head, server: Server) -> Answer:
    """Answer a call that needs no model to run.

    Raises:
        RefusedError: there is no such call, or it has another method.
    """
    if call == "other":
        raise RefusedError(HTTPStatus.NOT_FOUND, f"there is no {head.target[:80]}; see GET /v2")
    if head.method not in ("GET", "HEAD"):
        raise RefusedError(HTTPStatus.METHOD_NOT_ALLOWED, "use GET here", header="Allow: GET, HEAD")
    model = server.model
    match call, parts:
        case "metrics", _:
            text = server.metrics.prometheus_text(model, server.connections, server.memory_limit).encode()
            return Answer(HTTPStatus.OK, text, len(text), metrics.CONTENT_TYPE)
        case "statistics", _:
            return Answer.of_json(server.metrics.statistics(model))
        case "health", [_, "health", "live"]:
            return Answer.of_json({"live": True})
        case "health", [_, "health", _]:
            # Some versions of the specification call this value `live` as well.
            return _readiness({"ready": not server.stopping, "live": True})
        case "health", _:
            return _readiness({"name": model.name, "ready": not server.stopping})
        case _, ["v2"]:
            return Answer.of_json(protocol.server_metadata())
    return Answer.of_json(model.metadata())


def _readiness(values: dict[str, object]) -> Answer:
    return Answer.of_json(values, HTTPStatus.OK if values["ready"] else HTTPStatus.SERVICE_UNAVAILABLE)
