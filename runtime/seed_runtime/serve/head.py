"""The head of a request: its first line and its headers, read strictly.

What other readers of HTTP may understand in another way is refused: a proxy in front must see the same requests.
Source: RFC 9112, sections 3 and 5.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from seed_runtime.serve.refused import RefusedError

TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_REQUEST: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([\x21-\x7e]+) HTTP/1\.([0-9])")
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*")
FIELDS_MAX: Final = 100
"""Largest number of headers."""


@dataclass(frozen=True)
class Head:
    """The head of a request."""

    method: str
    target: str
    """What is asked for, as it was sent: percent-encoded."""
    minor: int
    """1 for HTTP/1.1, 0 for HTTP/1.0."""
    fields: dict[str, list[str]]
    """Values of each header, by its name in lower case."""

    @property
    def keep_alive(self) -> bool:
        """Whether the client wants to send another request on this connection."""
        options = [option.strip().lower() for value in self.all("Connection") for option in value.split(",")]
        return "keep-alive" in options if self.minor == 0 else "close" not in options

    def all(self, name: str) -> list[str]:
        """Return the values of a header."""
        return self.fields.get(name.lower(), [])

    def one(self, name: str) -> str | None:
        """Return the value of a header; None without it.

        Raises:
            RefusedError: it is given more than once.
        """
        values = self.all(name)
        if len(values) > 1:
            raise _unreadable(f"{name} is given more than once")
        return values[0] if values else None


def parse_head(text: bytes) -> Head:
    """Parse a head without the empty line at its end.

    Raises:
        RefusedError: it can't be read, or in more than one way.
    """
    first, *lines = text.split(b"\r\n")
    match = _REQUEST.fullmatch(first)
    if match is None:
        raise _unreadable("this is not a request of HTTP/1.1 or 1.0")
    if len(lines) > FIELDS_MAX:
        status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        raise RefusedError(status, f"there are more than {FIELDS_MAX} headers", close=True)
    fields: dict[str, list[str]] = {}
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise _unreadable(f"this header can't be read: {line[:40].decode('latin-1')!r}")
        fields.setdefault(field[1].decode().lower(), []).append(field[2].decode("latin-1"))
    return Head(match[1].decode(), match[2].decode(), min(1, int(match[3])), fields)


def _unreadable(line: str) -> RefusedError:
    return RefusedError(HTTPStatus.BAD_REQUEST, line, close=True)
