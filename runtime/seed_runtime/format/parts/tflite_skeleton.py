"""Part 0x0002: a TFLite model of which the data of its weights were left out (skeletons/cut_file.py)."""

from __future__ import annotations

from typing import Final

from seed_runtime.format.parts.kind import PartKind

MODEL_FILE: Final = "model.tflite"
"""The file that skeleton and weights are assembled to."""

TFLITE_SKELETON: Final = PartKind(0x0002, "TFLite skeleton", MODEL_FILE, is_skeleton=True)
