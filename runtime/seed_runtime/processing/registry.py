"""The kinds of steps that this runtime knows. A new kind is one file here and one line below."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from seed_runtime.processing import (
    audio,
    boxes,
    constant,
    ctc,
    embeddings,
    file_bytes,
    image,
    labels,
    notes,
    regions,
    segments,
    text,
)
from seed_runtime.processing.fields import Fields
from seed_runtime.processing.sources import Sources
from seed_runtime.processing.steps import InputStep, OutputStep

INPUTS: Final[dict[str, Callable[[Fields, Sources], InputStep]]] = {
    "audio": audio.read,
    "bytes": file_bytes.read,
    "constant": constant.read,
    "image": image.read,
    "text": text.read,
}
"""Readers of steps before the model, by their kind."""
OUTPUTS: Final[dict[str, Callable[[Fields, Sources], OutputStep]]] = {
    "boxes": boxes.read,
    "ctc": ctc.read,
    "embeddings": embeddings.read,
    "labels": labels.read,
    "notes": notes.read,
    "regions": regions.read,
    "segments": segments.read,
}
"""Readers of steps behind the model, by their kind."""
