"""The kinds of parts that this runtime knows (SPEC.md, "PARTS"). A new kind is one file here and one line below."""

from __future__ import annotations

from typing import Final

from seed_runtime.format.parts.kind import PartKind
from seed_runtime.format.parts.onnx_skeleton import ONNX_SKELETON
from seed_runtime.format.parts.processing import PROCESSING
from seed_runtime.format.parts.tflite_skeleton import TFLITE_SKELETON
from seed_runtime.format.parts.training import TRAINING

__all__ = ["KINDS", "ONNX_SKELETON", "PROCESSING", "TFLITE_SKELETON", "TRAINING", "PartKind", "file_of"]

KINDS: Final[dict[int, PartKind]] = {
    kind.number: kind
    for kind in (
        ONNX_SKELETON,
        TFLITE_SKELETON,
        TRAINING,
        PROCESSING,
    )
}  # fmt: skip
"""Kinds by their number; a number never changes its meaning."""


def file_of(number: int) -> str | None:
    """Return the file of the assembled model that a part becomes, None where it isn't written or not known."""
    kind = KINDS.get(number)
    return None if kind is None else kind.file
