"""Methods of `--method`, which plan how each weight is coded. A method is one file here and one line in METHODS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from seed_exporter.quantize.evaluator import Evaluator
from seed_exporter.quantize.methods import lossless, published, quantized
from seed_exporter.quantize.methods.base import Choice, Method

METHODS: Final[Mapping[str, Method]] = {
    "grid": quantized.METHOD,
    "lossless": lossless.METHOD,
    "moments": published.METHOD,
}
"""Methods by their words on the command line, the default first."""

__all__ = ["METHODS", "Choice", "Evaluator", "Method"]
