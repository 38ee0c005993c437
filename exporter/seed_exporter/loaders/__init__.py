"""Load models: bytes of some format in, a Graph out.

A format is one module with `matches` and `load`, and one line in `LOADERS`.
"""

from __future__ import annotations

import contextlib
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from seed_runtime.errors import UnsupportedError, UsageError
from seed_runtime.format.preamble import MAGIC
from seed_runtime.system import wrong_files

if TYPE_CHECKING:
    from seed_exporter.graph.model import Graph

LOADERS: Final = (
    "onnx_file",
    "tflite_file",
    "exported_program",
    "torch_module",
)
"""Modules of this package, in the order in which they are asked whether they know a source."""

_EXTRAS: Final = {
    "onnx": "export",
    "google": "export",
    "numpy": "export",
    "torch": "torch",
    "onnxscript": "torch",
} | dict.fromkeys(("ai_edge_litert", "flatbuffers"), "tflite")
"""The extra of this distribution that installs a package, by the package's import name."""


def load(source: Any, **options: Any) -> Graph:
    """Load a model.

    Args:
        source: a path (`.onnx`, `.pt2`, `.tflite`), an ONNX model, a torch module or an exported program.
        options: for the format's own `load`, such as `example_inputs` for a torch module.

    Raises:
        UsageError: no format knows `source`, or the package that reads it isn't installed.
        UnsupportedError: the file is something else, the model is damaged, or can't be expressed in ONNX.
    """
    head = _head(source)
    if head.startswith(MAGIC):
        raise UsageError(f"{source} is already a seed; run it: seed-run {source} --verify")
    found = wrong_files.recognise(head)
    # A program of torch.export is an archive itself.
    if found is not None and (found is not wrong_files.ARCHIVE or Path(source).suffix.lower() != ".pt2"):
        raise UnsupportedError(f"{source} is {found.title}; {found.advice}")
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
    raise UsageError(
        f"{shown} is not a model that seed-export reads; give a .onnx, .pt2 or .tflite file, or a torch module"
    )


def _head(source: Any) -> bytes:
    """Return a file's first bytes; none where `source` is no file that can be read."""
    if isinstance(source, str | Path):
        with contextlib.suppress(OSError, ValueError), open(source, "rb") as file:
            return file.read(wrong_files.HEAD_BYTES)
    return b""
