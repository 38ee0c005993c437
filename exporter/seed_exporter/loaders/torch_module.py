"""Load PyTorch modules, through torch's own ONNX exporter."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from seed_exporter.graph.model import Graph
from seed_exporter.loaders import onnx_file
from seed_runtime.backends.onnxruntime import disable_telemetry
from seed_runtime.errors import UnsupportedError, UsageError
from seed_runtime.system.scratch import scratch_folder


def matches(source: object) -> bool:
    """Return whether `source` is a torch module."""
    # A caller who has a module has imported torch, so nothing needs to be imported to find out.
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.nn.Module)


def load(
    source: Any,
    example_inputs: Sequence[Any] | dict[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    opset: int | None = None,
) -> Graph:
    """Load a torch module in evaluation mode; the module's own mode stays as it was.

    Args:
        source: a `torch.nn.Module`.
        example_inputs: the positional arguments of one call, or its keyword arguments.
        dynamic_shapes: as for `torch.export.export`; without it every dimension is fixed.
        input_names: names of the graph's inputs, else those of `forward`'s arguments.
        output_names: names of the graph's outputs.
        opset: ONNX opset, else torch's choice.

    Raises:
        UsageError: `example_inputs` is missing.
        UnsupportedError: torch can't express the module in ONNX.
    """
    if example_inputs is None:
        raise UsageError(
            "a torch module needs example inputs to be traced with: export(module, example_inputs=(tensor,))"
        )
    keywords = dict(example_inputs) if isinstance(example_inputs, dict) else None
    with _evaluating(source):
        return through_onnx(
            source,
            args=() if keywords is not None else _positional(example_inputs),
            kwargs=keywords,
            dynamic_shapes=dynamic_shapes,
            input_names=None if input_names is None else list(input_names),
            output_names=None if output_names is None else list(output_names),
            opset_version=opset,
        )


def through_onnx(program: Any, **options: Any) -> Graph:
    """Export a module or an exported program to a temporary file and load that.

    The exporter based on torch.export is tried first. A module that it can't export is tried with the older
    one based on TorchScript, with a warning that says so.

    Args:
        program: a `torch.nn.Module` or a `torch.export.ExportedProgram`.
        options: for `torch.onnx.export`.

    Raises:
        UnsupportedError: torch can't express the program in ONNX.
    """
    disable_telemetry()  # of ONNX Runtime, which both may import
    import onnxscript  # noqa: F401  torch's exporter needs it and names it only deep inside
    import torch

    # Mapped weights outlive the folder: an unlinked file stays until its last map goes.
    with scratch_folder() as folder:
        path = folder / "model.onnx"
        try:
            with _quiet():
                exported = torch.onnx.export(program, dynamo=True, external_data=True, verbose=False, **options)
                exported.save(path, external_data=True)
        except Exception as first:  # torch raises whatever its passes raise
            if not isinstance(program, torch.nn.Module) or options.get("dynamic_shapes"):
                raise UnsupportedError(_explain(first)) from first
            try:
                with _quiet():
                    options.pop("dynamic_shapes", None)
                    torch.onnx.export(program, f=str(path), dynamo=False, **options)
            except Exception:
                raise UnsupportedError(_explain(first)) from first
            warnings.warn(
                f"torch.export can't export this module ({_first_line(first)}); "
                f"the TorchScript exporter traced it instead: check the outputs",
                stacklevel=3,
            )
        return onnx_file.load(path)


def _positional(inputs: Any) -> tuple[Any, ...]:
    return tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)


@contextlib.contextmanager
def _evaluating(module: Any) -> Iterator[None]:
    """Put the module into evaluation mode; afterwards every submodule is in the mode that it was in."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings, and send torch's progress lines to stderr: it prints them to stdout."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        yield


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _explain(error: Exception) -> str:
    return (
        f"torch can't express this module in ONNX: {_first_line(error)}; "
        f"export it yourself with torch.onnx.export and pass the .onnx file"
    )
