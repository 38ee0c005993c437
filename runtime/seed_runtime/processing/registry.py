"""The kinds of steps that this runtime knows. A new kind is one file here and one line below."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from seed_runtime.processing import constant, image, labels
from seed_runtime.processing.fields import Fields
from seed_runtime.processing.sources import Sources
from seed_runtime.processing.steps import InputStep, OutputStep

INPUTS: Final[dict[str, Callable[[Fields, Sources], InputStep]]] = {
    "constant": constant.read,
    "image": image.read,
}
"""Readers of steps before the model, by their kind."""
OUTPUTS: Final[dict[str, Callable[[Fields, Sources], OutputStep]]] = {
    "labels": labels.read,
}
"""Readers of steps behind the model, by their kind."""
