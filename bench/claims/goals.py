"""What each row of the published table must reach: bytes of the whole seed, its ratio, and what is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .intervals import Interval

Measure = Literal["accuracy", "perplexity"]


@dataclass(frozen=True)
class Goal:
    """A row.

    Attributes:
        name: of the network, and of its files under `seeds/`.
        title: for people.
        measure: accuracy, of which 99 % are kept, or perplexity, which grows by a factor.
        size: of the whole seed at most [B].
        ratio: bytes of the teacher's distinct weights at fp32 over the seed's, at least.
        growth: of perplexity at most.
    """

    name: str
    title: str
    measure: Measure
    size: int
    ratio: float
    growth: float = 1.0

    def keeps(self, interval: Interval) -> bool:
        """Return whether a seed's quality counts as kept."""
        return interval.kept if self.measure == "accuracy" else interval.middle <= self.growth

    def text(self) -> str:
        """Return the goal for people."""
        kept = "99 % kept" if self.measure == "accuracy" else f"perplexity at most {self.growth:g} times the teacher's"
        return f"{self.size:,} bytes, {self.ratio:g}x, {kept}"


GOALS = (
    Goal("berttiny", "BERT-tiny", "accuracy", 164_864, 106),
    Goal("distilbert", "DistilBERT", "accuracy", 3_565_158, 76),
    Goal("gpt2", "GPT-2 small", "perplexity", 3_386_900, 147, 1.25),
    Goal("mobilenetv2", "MobileNetV2", "accuracy", 92_160, 152),
    Goal("resnet50", "ResNet-50", "accuracy", 58_163, 1756),
)
