"""Keep a notice out of stderr: the line that LiteRT prints when it makes the first delegate of a process.

No option, function or environment variable of its packages switches it off (ai_edge_litert 2.3, tflite_runtime 2.14),
and it is printed once in a process. So `seed-run` lets the first delegate be made for a model of two numbers, which
stands here, and until that is open stderr is a pipe. What else comes out of it is passed on, and no model of a user's
is opened meanwhile, whose errors could be lost if the process ended.
"""

from __future__ import annotations

import base64
import contextlib
import os
import sys
import zlib
from typing import Any, Final

LINE: Final = b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n"
MODEL: Final = zlib.decompress(
    base64.b85decode(
        "c-noAK?;B{3<S4Yq!f`HJoEwnz(0tG9z6J5ALllWq9C?RV7Ey(3BbPO85l6aBcP`vR6t9"
        "LO5`Ap1mg8pE!uNUicJG6$z&sqc@xU%*y&ku|KWc8`u5hMPSmWD8*MMKEPTv7_dWqpq6EG"
    )
)
"""y = x + x, each of one float32: the delegate is made for a model with an operator."""
_READ_MAX: Final = 1 << 16
"""Bytes that a pipe holds, and that are passed on at most."""


class _Process:
    """What is known of this process."""

    is_command = False
    is_done = False


def allow() -> None:
    """Let this process keep the notice out: stderr is its own, and none of its threads starts another process."""
    _Process.is_command = True


def keep_out(library: Any) -> None:
    """Make the first delegate of this process, and print what LiteRT says of it, without the notice.

    Nothing is done in a process that isn't a command's: its stderr may be someone else's, and LiteRT prints its line.

    Args:
        library: module with LiteRT's interpreter.
    """
    if _Process.is_done or not _Process.is_command:
        return
    _Process.is_done = True
    number = 2
    with contextlib.suppress(AttributeError, OSError, ValueError):
        sys.stderr.flush()
    try:
        kept = os.dup(number)
    except OSError:  # closed: nobody reads it
        return
    out, into = os.pipe()
    try:
        os.set_blocking(into, False)
        os.dup2(into, number)
        try:
            with contextlib.suppress(RuntimeError, ValueError):  # the user's model then fails in the same way
                library.Interpreter(model_content=MODEL, num_threads=1).allocate_tensors()
        finally:
            os.dup2(kept, number)
            os.close(into)
        said = os.read(out, _READ_MAX)
    finally:
        os.close(kept)
        os.close(out)
    if rest := said.replace(LINE, b"", 1):
        os.write(number, rest)
