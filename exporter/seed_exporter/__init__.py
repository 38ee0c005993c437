"""Makes seeds of models, on a workstation.

>>> import seed_exporter
>>> result = seed_exporter.export("model.onnx", output="model.seed")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seed_exporter.pipeline import export
    from seed_exporter.results import Options, Result

__all__ = ["Options", "Result", "export"]


def __getattr__(name: str) -> Any:
    # Later than this package: seed-export takes over signals and answers --help before onnx and joblib are imported.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from seed_exporter import pipeline, results

    return getattr(pipeline if name == "export" else results, name)
