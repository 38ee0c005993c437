"""Fit the vectors of a quantized model to the original's answers on calibration inputs: they are coded anyway.

Matrices stay as they are coded. `means` needs no gradients; `distill` lets the runtime's own tuner do the rest.
"""

from seed_exporter.tuning.distill import Lessons, distilled
from seed_exporter.tuning.means import corrected
from seed_exporter.tuning.records import BN, SMALL, Tier, Tuning
from seed_exporter.tuning.samples import batched
from seed_exporter.tuning.vectors import as_assembled, trainable, with_vectors

__all__ = [
    "BN",
    "SMALL",
    "Lessons",
    "Tier",
    "Tuning",
    "as_assembled",
    "batched",
    "corrected",
    "distilled",
    "trainable",
    "with_vectors",
]
