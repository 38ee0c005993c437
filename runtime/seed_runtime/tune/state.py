"""What a run has learned so far, and the same as a record for checkpoints."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from seed_runtime.tune.records import Score, TierResult


@dataclass
class State:
    """What a run has so far, but for the values of tensors.

    Attributes:
        before: score of the seed as it was, on what was held out; None before the first one.
        after: score of what was learned so far, on the same.
        validation: the same on the validation samples.
        quantization_steps: of the tensors that were learned, by their names.
        mode: the last tier whose values were kept.
        steps: steps of gradients in all.
        tiers: results of the tiers that were tried.
        done: these, and those that were left out.
    """

    before: Score | None = None
    after: Score | None = None
    validation: Score | None = None
    quantization_steps: dict[str, float] = field(default_factory=dict)
    mode: str = ""
    steps: int = 0
    tiers: list[TierResult] = field(default_factory=list)
    done: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """Return what `from_record` reads: numbers, texts, lists and dictionaries."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> State:
        """Return the state of a record."""
        scores = {name: _score(record[name]) for name in ("before", "after", "validation")}
        tiers = [TierResult(**{**each, "score": Score(**each["score"])}) for each in record["tiers"]]
        return cls(**{**record, **scores, "tiers": tiers})


def _score(record: dict[str, float] | None) -> Score | None:
    return None if record is None else Score(**record)
