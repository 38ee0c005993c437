"""Write texts of a seed in the way that takes the fewest bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

_UNUSED: Final = ("truncation", "padding")
"""Fields of a tokenizer that the description has in their place."""


def json_bytes(value: Any) -> bytes:
    """Return JSON without spaces, in UTF-8."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def with_line_feeds(data: bytes) -> bytes:
    """Return a text of lines with line feeds alone, and none at its end."""
    return data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").rstrip(b"\n")


def compact_tokenizer(data: bytes) -> bytes:
    """Return a tokenizer.json with its vocabulary as a list in the order of ids; the same bytes where that can't be.

    A number n stands for the next n tokens that the merges make (`seed_runtime.processing.tokenizer_file.expanded`).
    """
    try:
        return json_bytes(_compact(json.loads(data)))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return data


def _compact(tokenizer: dict[str, Any]) -> dict[str, Any]:
    model = tokenizer["model"]
    vocabulary = model["vocab"]
    value = {name: each for name, each in tokenizer.items() if name not in _UNUSED}
    if not isinstance(vocabulary, dict):
        return value
    by_id = {number: token for token, number in vocabulary.items()}
    first, last = min(by_id, default=0), max(by_id, default=0)
    if len(by_id) < len(vocabulary) or first < 0 or last >= 2 * len(by_id):
        return value
    made = iter("".join(each.split(" ") if isinstance(each, str) else each) for each in model.get("merges") or [])
    return value | {"model": {**model, "vocab": _with_runs([by_id.get(number) for number in range(last + 1)], made)}}


def _with_runs(tokens: list[str | None], made: Iterator[str]) -> list[str | int | None]:
    """Replace runs of tokens that stand in the order in which merges make them by their lengths."""
    found: list[str | int | None] = []
    following = next(made, None)
    for token in tokens:
        if token is None or token != following:
            found.append(token)
            continue
        if found and isinstance(found[-1], int):
            found[-1] += 1
        else:
            found.append(1)
        following = next(made, None)
    return found
