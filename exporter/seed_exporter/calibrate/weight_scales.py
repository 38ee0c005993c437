"""The scale of a weight, which a quantization step follows where no data says more."""

from __future__ import annotations

from typing import Final

import numpy as np

from seed_exporter.calibrate.statistic import Statistic, Subject
from seed_exporter.graph.kinds import FLOATS
from seed_exporter.graph.matrix import as_float32
from seed_exporter.graph.model import Weight


def root_mean_square(weight: Weight) -> float:
    """Compute the root mean square of a weight; 0 for integers, and where an infinity, a NaN or the range leave none.

    A weight without a scale can't be quantized, and is coded as it is.
    """
    if weight.dtype.name not in FLOATS:
        return 0.0
    values = as_float32(weight).reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        value = float(np.sqrt(np.square(values, dtype=np.float32).mean(dtype=np.float64))) if values.size else 0.0
    return value if np.isfinite(value) and np.float32(1 / value if value else 0) < np.inf else 0.0


def _measure(subject: Subject) -> dict[str, float]:
    return {name: root_mean_square(weight) for name, weight in subject.graph.weights.items()}


WEIGHT_SCALES: Final = Statistic("the scales of weights", _measure)
"""Root mean square of each weight, in weight units; 0 where it has none (see `root_mean_square`)."""
