"""Whether a long answer has to end before it is whole."""

from __future__ import annotations

import time
from dataclasses import dataclass


class EndedError(Exception):
    """Nobody waits for the answer any more, or it took too long."""


@dataclass(eq=False)
class Ending:
    """What the connections' thread knows, for the model's thread, which asks before each run."""

    deadline: float
    """On `time.monotonic`'s clock [s]."""
    is_gone: bool = False
    """Whether the client closed its connection."""
    is_stopping: bool = False
    """Whether the server is ending."""

    def check(self) -> None:
        """Raise EndedError where the answer has to end."""
        if self.is_gone or self.is_stopping or time.monotonic() > self.deadline:
            raise EndedError
