"""Scripts for a device's sh, started by whatever login shell is there, and where their output begins.

A login shell's start files may print before the script runs: greetings, titles, with or without a newline. The script
therefore begins with a random marker, and everything before it is skipped.
"""

from __future__ import annotations

import re
import secrets
import select
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Final, Literal

from seed_devices.terminal_text import plain_lines

START_S: Final = 180
"""Seconds that a login and the start of a program there may take: Python on a slow card, with memory short."""
SHELL_S: Final = 20
"""Seconds of silence after which the first shell of a login counts as one that waits for something."""
NOISE_MAX: Final = 16 << 20
"""Most output of a login shell before the script runs, in bytes."""
_STEP_S: Final = 0.1
"""Seconds between two looks at whether the login is complete."""
_WORDS_MAX: Final = 100
"""Most characters of a shell's last line that a message quotes."""
_SPECIAL: Final = re.compile(r"['\\!\x00-\x1f\x7f]")
"""What login shells read differently within single quotes: fish a backslash, csh `!` and the end of a line."""


@dataclass(frozen=True)
class Start:
    """What came of the start of a script.

    `state` is "runs" where its output comes next, "ended" at the end of all output, "silent" where the shell waits,
    "loud" where it prints on and on, and "locked" where there was no login. `words` is the last line before that, and
    `patience_s` the seconds that were waited at most.
    """

    state: Literal["runs", "ended", "silent", "loud", "locked"]
    words: str = ""
    patience_s: float = START_S


class Script:
    """A script for sh on a device, and its arguments, whatever they hold.

    Args:
        text: the script.
        arguments: what the script knows as `$1` and so on.
    """

    def __init__(self, text: str, *arguments: str) -> None:
        # What is printed is not in the command: a shell that shows what it runs isn't taken for the script.
        nonce = secrets.token_hex(8)
        self.marker = f"seed-{nonce}\n".encode()
        program = f'set -- {shlex.join(arguments)}\necho "seed-""{nonce}"\n{text}'
        # No `exec`: restricted shells refuse it.
        self.command = f"sh -c 'eval \"$(printf %b \"$1\")\"' sh '{_SPECIAL.sub(_octal, program)}'"

    def wait(self, pipe: IO[bytes], logged_in: Callable[[], bool], patience_s: float) -> Start:
        """Read to the marker, wherever in a line it is, and no further.

        Args:
            pipe: the output, as a buffered reader.
            logged_in: whether the login is complete.
            patience_s: seconds that the shell may be silent after the login; START_S holds for all of it.
        """
        poll = select.poll()
        poll.register(pipe, select.POLLIN)
        start, tail, size = time.monotonic(), b"", 0
        heard: float | None = None
        while size <= NOISE_MAX:
            if not poll.poll(_STEP_S * 1000):
                now = time.monotonic()
                heard = now if heard is None and logged_in() else heard
                if now - start > START_S or (heard is not None and now - heard > patience_s):
                    return Start("locked" if heard is None else "silent", _last_line(tail), patience_s)
                continue
            data: bytes = pipe.peek(1)  # type: ignore[attr-defined]
            if not data:
                return Start("ended", _last_line(tail))
            seen = tail + data
            at = seen.find(self.marker)
            if at >= 0:
                pipe.read(at + len(self.marker) - len(tail))
                return Start("runs")
            pipe.read(len(data))
            tail, size, heard = seen[-4 * _WORDS_MAX :], size + len(data), time.monotonic()
            if heard - start > START_S:
                break
        return Start("loud", _last_line(tail))


def _octal(found: re.Match[str]) -> str:
    return f"\\0{ord(found[0]):03o}"


def _last_line(output: bytes) -> str:
    lines = [line.strip() for line in plain_lines(output.decode(errors="replace")).splitlines() if line.strip()]
    return lines[-1][:_WORDS_MAX] if lines else ""
