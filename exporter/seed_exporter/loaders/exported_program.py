"""Load programs of torch.export, in memory or saved as .pt2 files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seed_exporter.graph.model import Graph
from seed_exporter.loaders.torch_module import through_onnx
from seed_runtime.errors import UnsupportedError, UsageError


def matches(source: object) -> bool:
    """Return whether `source` is an exported program or the path of a .pt2 file."""
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
    """Load an exported program or its file. Which dimensions are free is fixed in the program.

    Args:
        source: a `torch.export.ExportedProgram`, or the path of one.
        input_names: names of the graph's inputs, else those of the program.
        output_names: names of the graph's outputs.
        opset: ONNX opset, else torch's choice.

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
                f"{path} is no exported program that torch {torch.__version__} can read: {line}; "
                f"save it again with torch.export.save"
            ) from error
    return through_onnx(
        program,
        input_names=None if input_names is None else list(input_names),
        output_names=None if output_names is None else list(output_names),
        opset_version=opset,
    )
