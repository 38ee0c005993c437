"""Part 0x0001: an ONNX ModelProto whose weights are external data."""

from __future__ import annotations

from typing import Final

from seed_runtime.format.parts.kind import PartKind

MODEL_FILE: Final = "model.onnx"
"""The file that the skeleton is assembled to."""

ONNX_SKELETON: Final = PartKind(0x0001, "ONNX skeleton", MODEL_FILE, is_skeleton=True)
