"""What tuning a seed's vectors was worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

BN, SMALL = "bn", "small"
WORDS: Final = {BN: "means of channels", SMALL: "the original's answers"}
"""What each tier fits vectors to, for people."""


@dataclass(frozen=True)
class Tier:
    """One tier that was tried.

    Attributes:
        name: BN or SMALL.
        damage: that it left on the judged inputs; None where it changed nothing.
        is_kept: whether the seed has its values.
        problem: why it couldn't be tried, or isn't kept with less damage; "" otherwise.
    """

    name: str
    damage: float | None
    is_kept: bool
    problem: str = ""


@dataclass(frozen=True)
class Tuning:
    """What was tried of a seed, and what of it the seed has.

    Attributes:
        tiers: in the order in which they were tried.
        before: damage of the seed on the judged inputs.
        after: the same of the seed that is written.
    """

    tiers: tuple[Tier, ...]
    before: float
    after: float

    def text(self) -> str:
        """Say in a line what it was worth; "" where nothing is kept."""
        kept = [WORDS[tier.name] for tier in self.tiers if tier.is_kept]
        if not kept:
            return ""
        return f"biases and norms were fitted to {' and '.join(kept)}: damage {self.before:.3g} to {self.after:.3g}"

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        tiers = [
            {"mode": tier.name, "damage": tier.damage, "kept": tier.is_kept, "problem": tier.problem or None}
            for tier in self.tiers
        ]
        return {"before": self.before, "after": self.after, "tiers": tiers}
