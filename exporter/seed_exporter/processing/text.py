"""Write texts of a seed in the way that takes the fewest bytes."""

from __future__ import annotations

import json
from typing import Any


def json_bytes(value: Any) -> bytes:
    """Return JSON without spaces, in UTF-8."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def with_line_feeds(data: bytes) -> bytes:
    """Return a text of lines with line feeds alone, and none at its end."""
    return data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").rstrip(b"\n")
