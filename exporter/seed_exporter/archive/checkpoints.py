"""Files of checkpoints: models with a graph (`.onnx`), and tensors alone (`.safetensors`, torch's `.pt`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import onnx

from seed_exporter import loaders
from seed_exporter.archive.tensor_names import restore_names
from seed_exporter.archive.weights import Decoded
from seed_exporter.graph.model import Graph
from seed_exporter.loaders import onnx_file, state_dict
from seed_runtime.errors import UsageError
from seed_runtime.skeletons.onnx import MODEL_FILE
from seed_runtime.system.files import atomic_write
from seed_runtime.system.scratch import scratch_folder

_SUFFIXES: Final = (".onnx", *state_dict.SUFFIXES)


def load(path: Path) -> Graph:
    """Load a checkpoint: what `seed-export` reads, or tensors alone."""
    return state_dict.load(path) if path.suffix.lower() in state_dict.SUFFIXES else loaders.load(path)


def check_suffix(path: Path) -> None:
    """Raise UsageError for a file that no checkpoint can be written as."""
    if path.suffix.lower() not in _SUFFIXES:
        raise UsageError(f"{path}: a checkpoint is restored as one of {', '.join(_SUFFIXES)}")


def write(decoded: Decoded, path: Path) -> None:
    """Write a checkpoint as one file, in one step.

    Raises:
        UsageError: a model with a graph is to be written as tensors alone, or the model exceeds what a file holds.
    """
    suffix = path.suffix.lower()
    if suffix in state_dict.SUFFIXES:
        tensors = tensors_of(decoded)
        with atomic_write(path) as file:
            state_dict.write(file, suffix, tensors)
        return
    model = _model(decoded)
    if model.ByteSize() > onnx_file.FILE_MAX:
        raise UsageError(
            f"{path} would exceed the {onnx_file.FILE_MAX:,} bytes of an ONNX file; assemble the seeds of its chain: "
            f"seed-run KEY.seed --apply NEXT.seed --assemble folder"
        )
    with atomic_write(path) as file:
        file.write(model.SerializeToString())


def tensors_of(decoded: Decoded) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Return element type, dimensions and bytes of the tensors of a checkpoint without a graph, by name."""
    return state_dict.tensors_of(_model(decoded))


def _model(decoded: Decoded) -> onnx.ModelProto:
    """Return a checkpoint as a model with all its data in memory."""
    with scratch_folder() as folder:
        model = _named(decoded, folder)
        onnx.load_external_data_for_model(model, str(folder))
    return model


@contextmanager
def graph_of(decoded: Decoded) -> Iterator[Graph]:
    """Give a checkpoint as a graph again, whose weights can be read until the block ends."""
    with scratch_folder() as folder:
        yield onnx_file.from_proto(_named(decoded, folder), folder / MODEL_FILE)


def _named(decoded: Decoded, folder: Path) -> onnx.ModelProto:
    """Assemble a checkpoint into a folder; return its model with the tensors' own names, and its weights outside."""
    model = onnx.load(decoded.write_files(folder), load_external_data=False)
    restore_names(model, decoded.seed.header.holes)
    return model
