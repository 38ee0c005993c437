"""Part 0x8001: what is joined to an ONNX skeleton to train the model: losses and gradients.

Only training reads it: a model is assembled and run without.
"""

from __future__ import annotations

from typing import Final

from seed_runtime.format.parts.kind import PartKind

TRAINING: Final = PartKind(0x8001, "training graph", None)
