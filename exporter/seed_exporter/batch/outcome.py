"""How one job of a batch ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from seed_runtime.errors import GoalNotMetError


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
    def is_done(self) -> bool:
        """True if a seed was written and the same export would do no better: one that was interrupted begins again."""
        return self.result is not None and self.code in (0, GoalNotMetError.exit_code)

    @property
    def word(self) -> str:
        """The outcome in a word or two."""
        if self.code:
            return "goal not met" if self.is_done else "failed"
        return "unchanged" if self.repeated else "made"
