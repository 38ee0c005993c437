"""Render a chat template in a process of its own, as it is code of a package's that may never end.

Run as a script by `render`: one JSON object comes by stdin, and one goes out by stdout.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Final

SECONDS_MAX: Final = 10.0
"""Time that a template has, with the start of its process [s]."""
OUTPUT_MAX: Final = 64 << 10
"""Longest text that it may make [character]."""
_MEMORY_MAX: Final = 1 << 30
"""Address space of its process [B]."""


def render(template: str, values: Mapping[str, Any], seconds: float = SECONDS_MAX) -> str:
    """Return the text that a template makes of values.

    Memory is limited where the system does it, which macOS and Windows don't; time and output are limited everywhere.

    Raises:
        ValueError: the template fails, or takes too long, too much memory or makes too long a text.
    """
    # Without this file's folder on the path, whose modules have names of others.
    command = [sys.executable, "-P", __file__]
    given = json.dumps({"template": template, "values": values})
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise ValueError(f"its chat template takes more than {seconds:g} s") from None
    if done.returncode:
        raise ValueError(f"its chat template's process ended with {done.returncode}")
    found: dict[str, str] = json.loads(done.stdout)
    if "problem" in found:
        raise ValueError(f"its chat template can't be used: {found['problem']}")
    return found["text"]


def _main() -> None:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    _limit_memory()
    given = json.load(sys.stdin)
    # As transformers renders it.
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    parts, size = [], 0
    try:
        for part in environment.from_string(given["template"]).generate(**given["values"]):
            size += len(part)
            if size > OUTPUT_MAX:
                raise ValueError(f"it makes more than {OUTPUT_MAX:,} characters")
            parts.append(part)
        text = "".join(parts)
        text.encode()  # raises for half of a surrogate pair
    except Exception as error:  # it may fail in any way
        found = {"problem": str(error)[:200] or type(error).__name__}
    else:
        found = {"text": text}
    json.dump(found, sys.stdout)


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    # macOS refuses it, and so does a system with a lower limit.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_MAX, _MEMORY_MAX))


if __name__ == "__main__":
    _main()
