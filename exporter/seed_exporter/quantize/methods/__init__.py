"""What `--method` says: how each weight is coded. A method is one file here and one line in METHODS."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from seed_exporter.quantize.methods import lossless, published, quantized
from seed_exporter.quantize.methods.evaluator import Choice, Trial

Method = Callable[[Trial, Callable[[], None]], Choice]
"""Chooses codings for the trial's graph; calls its second argument now and then, as a sign of life."""

METHODS: Mapping[str, Method] = {
    "grid": quantized.choose,
    "lossless": lossless.choose,
    "moments": published.choose,
}

__all__ = ["METHODS", "Choice", "Method", "Trial"]
