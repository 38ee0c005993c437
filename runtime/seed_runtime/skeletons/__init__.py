"""The kinds of skeleton: what checks one, which files its model is assembled to, and what runs it.

A kind is one file here and one line in `_KINDS`, under the number of the part that holds it (SPEC.md, "Parts").
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from seed_runtime.format.header import Header
from seed_runtime.format.parts import ONNX_SKELETON
from seed_runtime.skeletons import onnx
from seed_runtime.skeletons.info import ALIGNMENT, ExternalTensor, SkeletonInfo, ValueInfo, check_holes

__all__ = ["ALIGNMENT", "KINDS", "ExternalTensor", "Kind", "SkeletonInfo", "ValueInfo", "check_holes", "of"]


@dataclass(frozen=True)
class Kind:
    """One kind of skeleton. `scan` refuses what is not safe to open, with FormatError or UnsupportedError."""

    title: str
    model_file: str
    weights_file: str
    backend: str
    """What runs it, by its name in seed_runtime.backends."""
    scan: Callable[[bytes | memoryview | mmap.mmap], SkeletonInfo]

    def sizes(self, header: Header) -> dict[str, int]:
        """The files of the assembled model and their bytes."""
        return {self.model_file: header.skeleton.raw_size, self.weights_file: header.weights.size}


_KINDS: Final = {
    ONNX_SKELETON.number: Kind("ONNX", onnx.MODEL_FILE, onnx.WEIGHTS_FILE, "onnxruntime", onnx.scan),
}
KINDS: Final = tuple(_KINDS.values())


def of(header: Header) -> Kind:
    """The kind of a seed's skeleton; the header's reader has refused those that aren't here."""
    return _KINDS[header.skeleton.kind]
