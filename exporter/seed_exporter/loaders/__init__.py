"""Load models: bytes of some format in, a Graph out.

A format is one module with `matches` and `load`, and one line in `LOADERS`.
"""

from __future__ import annotations

import contextlib
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from seed_runtime.errors import UsageError
from seed_runtime.format.preamble import MAGIC

if TYPE_CHECKING:
    from seed_exporter.graph.model import Graph

LOADERS: Final = (
    "onnx_file",
    "exported_program",
    "torch_module",
)
"""Modules of this package, in the order in which they are asked whether they know a source."""

_EXTRAS: Final = {"onnx": "export", "google": "export", "numpy": "export", "torch": "torch", "onnxscript": "torch"}
"""The extra of this distribution that installs a package, by the package's import name."""


def load(source: Any, **options: Any) -> Graph:
    """Load a model.

    Args:
        source: a path, an ONNX model, a torch module or an exported program.
        options: for the format's own `load`, such as `example_inputs` for a torch module.

    Raises:
        UsageError: no format knows `source`, or the package that reads it isn't installed.
        UnsupportedError: the model is damaged, or can't be expressed in ONNX.
    """
    if _is_seed(source):
        raise UsageError(f"{source} is already a seed; run it: seed-run {source} --verify")
    try:
        for name in LOADERS:
            module = importlib.import_module(f"{__name__}.{name}")
            if module.matches(source):
                graph: Graph = module.load(source, **options)
                return graph
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRAS:
            raise
        raise UsageError(
            f"reading this model needs the package {package}: pip install 'seed-runtime[{_EXTRAS[package]}]'"
        ) from error
    shown = repr(source) if isinstance(source, str) else f"a {type(source).__name__} ({source})"
    raise UsageError(f"{shown} is not a model that seed-export reads; give a .onnx or .pt2 file, or a torch module")


def _is_seed(source: Any) -> bool:
    if isinstance(source, str | Path):
        with contextlib.suppress(OSError, ValueError), open(source, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    return False
