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
_STDERR: Final = 2
_READ_MAX: Final = 1 << 16
"""Bytes that a pipe holds, and that are passed on at most."""


class _Process:
    """What is known of this process."""

    is_command = False
    is_done = False


def allow() -> None:
    """Say that this process is a command, whose stderr is its own to redirect for a moment."""
    _Process.is_command = True


def keep_out(library: Any) -> None:
    """Make the first delegate of this process, and print what LiteRT says of it, without the notice.

    Nothing is done in a process that isn't a command's: its stderr may be someone else's, and LiteRT prints its line.

    Args:
        library: module with LiteRT's interpreter.
    """
    # Where stderr was closed from the beginning, its number may be that of a file that was opened since.
    if _Process.is_done or not _Process.is_command or sys.stderr is None:
        return
    _Process.is_done = True
    with contextlib.suppress(AttributeError, OSError, ValueError):
        sys.stderr.flush()
    with contextlib.ExitStack() as opened:
        try:
            kept = os.dup(_STDERR)
            opened.callback(os.close, kept)
            out, into = os.pipe()
        except OSError:  # closed, or no descriptor is left: the line is printed
            return
        opened.callback(os.close, out)
        # LiteRT doesn't wait where it says more than a pipe holds, nor this thread where someone else has its end.
        os.set_blocking(into, False)
        os.set_blocking(out, False)
        try:
            os.dup2(into, _STDERR)
            with contextlib.suppress(RuntimeError, ValueError):  # the user's model then fails in the same way
                library.Interpreter(model_content=MODEL, num_threads=1).allocate_tensors()
        finally:
            os.dup2(kept, _STDERR)
            os.close(into)
            _pass_on(out)


def _pass_on(out: int) -> None:
    """Print what is in the pipe, without the notice; a stderr that takes nothing ends no command."""
    with contextlib.suppress(OSError):
        if rest := os.read(out, _READ_MAX).replace(LINE, b"", 1):
            os.write(_STDERR, rest)
