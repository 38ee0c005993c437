"""Files of checkpoints: models with a graph (`.onnx`), and tensors alone (`.safetensors`, torch's `.pt`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx

from seed_exporter import loaders
from seed_exporter.archive.tensor_names import restore_names
from seed_exporter.archive.weights import Decoded
from seed_exporter.graph.model import Graph
from seed_exporter.loaders import onnx_file, state_dict
from seed_exporter.loaders.tensors import read_tensor
from seed_runtime.errors import UsageError
from seed_runtime.skeletons.onnx import MODEL_FILE
from seed_runtime.system.files import atomic_write
from seed_runtime.system.scratch import scratch_folder

_SUFFIXES: Final = (".onnx", *state_dict.SUFFIXES)


def load(path: Path, tensors_of: str | None = None) -> Graph:
    """Load a checkpoint: what `seed-export` reads but TFLite models, or tensors alone, see `state_dict.load`."""
    if has_tensors_alone(path):
        return state_dict.load(path, tensors_of)
    graph = loaders.load(path)
    if graph.file is not None:
        raise UsageError(f"{path} is a TFLite model, which is no checkpoint; make a seed of it: seed-export {path}")
    return graph


def has_tensors_alone(path: Path) -> bool:
    """Return whether a file holds tensors without a graph, by its name."""
    return path.suffix.lower() in state_dict.SUFFIXES


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


_Tensors = dict[str, tuple[int, tuple[int, ...], npt.NDArray[np.uint8]]]
"""Element type, dimensions and bytes of tensors by name."""


def count(graph: Graph) -> int:
    """Return the number of tensors of a checkpoint."""
    return len(graph.model.graph.output if _is_tensors_alone(graph.model) else graph.model.graph.initializer)


def gives(decoded: Decoded, graph: Graph) -> bool:
    """Return whether a checkpoint gives all tensors of a graph, by their names."""
    model, found = _contents(decoded)
    expected = _tensors(graph.model, {name: weight.data for name, weight in graph.weights.items()})
    weights = {name: expected[name] for name in graph.weights}
    named = weights.keys() & found.keys()
    right = all(_equal(weights[name], found[name]) for name in named)
    # Where there was no room for names, tensors have those of the skeleton.
    others = [each for name, each in found.items() if name not in named]
    right = right and all(any(_equal(weights[name], each) for each in others) for name in weights.keys() - named)
    if right and _is_tensors_alone(graph.model):
        own, restored = _outputs(graph.model, expected), _outputs(model, found)
        right = own.keys() == restored.keys() and all(_equal(own[name], restored[name]) for name in own)
    return right


def same(one: Decoded, other: Decoded) -> bool:
    """Return whether two seeds give the same model with the same tensors, in whatever order they hold them."""
    (model, tensors), (other_model, others) = _contents(one), _contents(other)
    for each in (model, other_model):
        del each.graph.initializer[:]
    return (
        model == other_model
        and tensors.keys() == others.keys()
        and all(_equal(tensors[name], others[name]) for name in tensors)
    )


def _contents(decoded: Decoded) -> tuple[onnx.ModelProto, _Tensors]:
    """Return a checkpoint's model with the tensors' own names, and the tensors; none of their data is copied."""
    model = onnx.load_model_from_string(bytes(decoded.seed.skeleton_bytes()))
    restore_names(model, decoded.seed.header.holes)
    outside = [tensor.name for tensor in model.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    return model, _tensors(model, {name: decoded.bytes_of(hole) for hole, name in enumerate(outside)})


def _tensors(model: onnx.ModelProto, weights: Mapping[str, npt.NDArray[Any]]) -> _Tensors:
    found: _Tensors = {}
    for tensor in model.graph.initializer:
        data = weights.get(tensor.name)
        if data is None and (read := read_tensor(tensor, None)) is not None:
            data = read[1]
        if data is not None:
            flat = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
            found[tensor.name] = tensor.data_type, tuple(tensor.dims), flat
    return found


def _equal(one: tuple[int, tuple[int, ...], Any], other: tuple[int, tuple[int, ...], Any]) -> bool:
    return one[:2] == other[:2] and np.array_equal(one[2], other[2])


def _is_tensors_alone(model: onnx.ModelProto) -> bool:
    return not model.graph.input and all(node.op_type == "Identity" for node in model.graph.node)


def _outputs(model: onnx.ModelProto, tensors: _Tensors) -> _Tensors:
    return {node.output[0]: tensors[node.input[0]] for node in model.graph.node if node.input[0] in tensors}
