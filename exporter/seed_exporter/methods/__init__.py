"""What `--method` says: how each weight is coded. A method is one file here and one line in METHODS."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from seed_exporter.methods import grid, lossless, moments
from seed_exporter.methods.trial import Choice, Trial

Method = Callable[[Trial, Callable[[], None]], Choice]
"""Chooses codings for the trial's graph; calls its second argument now and then, as a sign of life."""

METHODS: Mapping[str, Method] = {
    "grid": grid.choose,
    "lossless": lossless.choose,
    "moments": moments.choose,
}

__all__ = ["METHODS", "Choice", "Method", "Trial"]
