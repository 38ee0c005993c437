"""Targets of `--dtype`: what the device holds of a model's weights. A target is one file here and one line below."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from seed_exporter.targets import fp16, int2, int4, int8
from seed_exporter.targets.target import Lowered, Target

FP32: Final = Target("fp32")
"""The graph as it is, with floats of the source's types."""
TARGETS: Final[Mapping[str, Target]] = {
    target.name: target for target in (FP32, fp16.TARGET, int8.TARGET, int8.FLOATS, int4.TARGET, int2.TARGET)
}
"""Targets by their words."""
WORDS: Final = tuple(word for word in TARGETS if "-" not in word)
"""Those that the command line takes; the others are what one of these falls back to."""
AUTO: Final = "auto"
"""Word of `--dtype` in place of them, for what suits the device's processor and the model."""

__all__ = ["AUTO", "FP32", "TARGETS", "WORDS", "Lowered", "Target"]
