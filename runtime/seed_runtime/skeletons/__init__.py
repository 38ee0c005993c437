"""The kinds of skeleton: the check of one, the files that its model is assembled to, and the backend that runs it.

A kind is one file here and one line in `KINDS`, under the number of the part that holds it (SPEC.md, "PARTS").
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from seed_runtime.format.header import Header
from seed_runtime.format.parts import ONNX_SKELETON, TFLITE_SKELETON, file_of
from seed_runtime.format.sections.holes import ALIGNMENT
from seed_runtime.skeletons import onnx, tflite
from seed_runtime.skeletons.info import ExternalTensor, SkeletonInfo, ValueInfo, check_holes
from seed_runtime.skeletons.layout import Layout, WeightsBeside, WeightsWithin

__all__ = ["ALIGNMENT", "KINDS", "ExternalTensor", "Kind", "SkeletonInfo", "ValueInfo", "check_holes", "of"]


@dataclass(frozen=True)
class Kind:
    """One kind of skeleton."""

    title: str
    layout: Layout
    """Layout of the files that skeleton and weights become."""
    backend: str
    """Name of the backend that runs it, as in seed_runtime.backends."""
    scan: Callable[[bytes | memoryview | mmap.mmap], SkeletonInfo]
    """Function that describes a skeleton; raises FormatError or UnsupportedError for one that is not safe to open."""
    is_told_apart: bool = True
    """Whether the model file is a skeleton, which `scan` tells from a user's own file. Others are not replaced."""

    def sizes(self, header: Header) -> dict[str, int]:
        """Return the files of the assembled model, those of further parts included, with their sizes [B]."""
        parts = {name: part.raw_size for part in header.parts[1:] if (name := file_of(part.kind)) is not None}
        return {**self.layout.sizes(header), **parts}


KINDS: Final[dict[int, Kind]] = {
    ONNX_SKELETON.number: Kind("ONNX", WeightsBeside(onnx.MODEL_FILE, onnx.WEIGHTS_FILE), "onnxruntime", onnx.scan),
    TFLITE_SKELETON.number: Kind(
        "TFLite", WeightsWithin(tflite.MODEL_FILE), "litert", tflite.scan, is_told_apart=False
    ),
}
"""Kinds by the number of their part."""


def of(header: Header) -> Kind:
    """Return the kind of a seed's skeleton; the header's reader has refused those that aren't here."""
    return KINDS[header.skeleton.kind]
