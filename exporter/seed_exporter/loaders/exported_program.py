"""Programs saved by torch.export (.pt2)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seed_exporter.graph.model import Graph
from seed_exporter.loaders.torch_module import through_onnx
from seed_runtime.errors import UnsupportedError, UsageError


def matches(source: object) -> bool:
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "export") and isinstance(source, torch.export.ExportedProgram):
        return True
    return isinstance(source, (str, Path)) and Path(source).suffix.lower() == ".pt2"


def load(
    source: Any,
    *,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    opset: int | None = None,
) -> Graph:
    """The graph of an exported program or of its file. Which dimensions are free is fixed in the program.

    Raises:
        UsageError: there is no such file.
        UnsupportedError: the file holds no program that this torch reads, or ONNX can't express it.
    """
    import torch

    program = source
    if isinstance(source, (str, Path)):
        path = Path(source)
        if not path.is_file():
            raise UsageError(f"{path}: no such file; check the path")
        try:
            program = torch.export.load(path)
        except Exception as error:  # zip, pickle and schema errors have no common root
            line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UnsupportedError(
                f"{path} is no exported program that torch {torch.__version__} reads: {line}; "
                f"save it again with torch.export.save"
            ) from error
    return through_onnx(
        program,
        input_names=None if input_names is None else list(input_names),
        output_names=None if output_names is None else list(output_names),
        opset_version=opset,
    )
