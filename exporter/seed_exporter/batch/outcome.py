"""How one job of a batch ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """How one job ended.

    Attributes:
        code: exit code of its export; negative, the signal that ended it.
        seconds: how long it took [s].
        result: what `seed-export --json` printed; None where no seed was written.
        error: its last line on stderr where the code isn't 0.
        repeated: True if nothing was done, since the seed is there already.
    """

    code: int
    seconds: float
    result: dict[str, Any] | None
    error: str
    repeated: bool = False

    @property
    def word(self) -> str:
        """The outcome in a word or two."""
        if self.code:
            return "goal not met" if self.result is not None else "failed"
        return "unchanged" if self.repeated else "made"
