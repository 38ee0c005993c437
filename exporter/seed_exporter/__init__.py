"""Makes seeds of models, on a workstation.

>>> import seed_exporter
>>> result = seed_exporter.export("model.onnx", output="model.seed")
"""

from __future__ import annotations

from seed_exporter.pipeline import export
from seed_exporter.results import Options, Result

__all__ = ["Options", "Result", "export"]
