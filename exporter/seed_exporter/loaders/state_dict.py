"""Load tensors without a graph: `.safetensors` files and torch's state dicts, and write them again.

Their graph has one Identity for each tensor, whose output is named as the tensor: equal tensors become one weight, and
can be told apart again.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import IO, Any, Final

import numpy as np
import onnx
from onnx import helper

from seed_exporter.graph.model import Graph
from seed_exporter.loaders import onnx_file
from seed_exporter.loaders.tensors import read_tensor
from seed_runtime.errors import UnsupportedError, UsageError
from seed_runtime.format.dtypes import BY_NAME

SUFFIXES: Final = (".safetensors", ".pt", ".pth")
"""Endings of files that hold tensors alone."""
_PREFIX: Final = "tensor:"
"""What stands before a tensor's name in that of the initializer; longer where a name begins with it itself."""
_OPSET: Final = 21
"""Opset whose Identity takes all types; older ones suffice for most and are not worth a second way."""
_KEYS_SHOWN: Final = 6
"""Number of keys of a file that a message names."""
_WITHIN: Final = ("state_dict", "model_state_dict", "model")
"""Keys below which training loops put the state dict in a file."""


def load(path: Path, within: str | None = None) -> Graph:
    """Load the tensors of a file.

    Args:
        path: the file.
        within: key of the state dict in a file that holds more, which is left out.

    Raises:
        UsageError: a package is missing, or there is no such file.
        UnsupportedError: the file holds something else than tensors by name, or more than a state dict.
    """
    return graph_of(_read(path, within))


def graph_of(tensors: Mapping[str, tuple[str, tuple[int, ...], bytes]]) -> Graph:
    """Make a graph of tensors: element type, dimensions and bytes by name."""
    initializers, nodes, outputs = [], [], []
    prefix = _PREFIX
    # An initializer that is named as an output of another one's Identity would be taken for it.
    while any(name.startswith(prefix) for name in tensors):
        prefix += ":"
    # In one order, whatever order a file has them in: equal graphs are shared.
    for name, (dtype, shape, data) in sorted(tensors.items()):
        code = BY_NAME[dtype].code
        initializers.append(onnx.TensorProto(name=prefix + name, data_type=code, dims=shape, raw_data=data))
        nodes.append(helper.make_node("Identity", [prefix + name], [name]))
        outputs.append(helper.make_tensor_value_info(name, code, shape))
    graph = helper.make_graph(nodes, "tensors", [], outputs, initializers)
    return onnx_file.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=10))


def tensors_of(model: onnx.ModelProto) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Return the tensors of a model that `graph_of` made, whose data is in memory.

    Raises:
        UsageError: the model has a graph of its own.
    """
    data = {tensor.name: tensor for tensor in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        tensor = data.get(node.input[0]) if node.op_type == "Identity" and len(node.input) == 1 else None
        if tensor is None or (read := read_tensor(tensor, None)) is None:
            raise UsageError("this checkpoint is a model with a graph, not tensors alone; restore it as .onnx")
        dtype, values = read
        found[node.output[0]] = dtype.name, tuple(tensor.dims), values.tobytes()
    return found


def read_arrays(data: bytes, path: Path) -> dict[str, np.ndarray]:
    """Return the tensors of a file in memory as arrays by name; `path` is its name, for its ending and for messages."""
    return {
        name: np.frombuffer(content, BY_NAME[dtype].storage).reshape(shape)
        for name, (dtype, shape, content) in _parsed(path, data, None).items()
    }


def write(file: IO[bytes], suffix: str, tensors: Mapping[str, tuple[str, tuple[int, ...], bytes]]) -> None:
    """Write tensors as a file of this ending.

    Args:
        file: open for writing.
        suffix: one of SUFFIXES.
        tensors: as of `tensors_of`.
    """
    torch = _torch()
    made = {}
    for name, (dtype, shape, data) in tensors.items():
        kind = getattr(torch, dtype.replace("float8", "float8_"))
        flat = torch.frombuffer(bytearray(data), dtype=kind) if data else torch.empty(0, dtype=kind)
        made[name] = flat.reshape(shape)
    if suffix == ".safetensors":
        file.write(_safetensors().save(made))
    else:
        torch.save(made, file)


def _read(path: Path, within: str | None) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}; check the path") from None
    return _parsed(path, data, within)


def _parsed(path: Path, data: bytes, within: str | None) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    torch = _torch()
    safe = _safetensors() if path.suffix == ".safetensors" else None
    try:
        found = safe.load(data) if safe else torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        # Whatever they raise of a file that is damaged, or that would run code.
        raise UnsupportedError(
            f"{path} can't be read as tensors ({type(error).__name__}: {str(error).splitlines()[0][:200]}); "
            f"save the model's state dict again"
        ) from None
    if isinstance(found, Mapping):
        found = _state_dict(path, found, within)
    return {name: _tensor(path, name, value) for name, value in _named(path, found)}


def _state_dict(path: Path, found: Mapping[Any, Any], within: str | None) -> Any:
    """Return the state dict in a file: what `within` names, what is under the only key, or all of it."""
    if within is not None:
        if not isinstance(found.get(within), Mapping):
            raise UnsupportedError(f"{path} holds no state dict under {within}, but {_keys(found)}; name one of these")
        return found[within]
    key = next((key for key in _WITHIN if isinstance(found.get(key), Mapping)), None)
    if key is None:
        return found
    if len(found) > 1:
        raise UnsupportedError(
            f"{path} holds {_keys(other for other in found if other != key)} beside {key}, which an archive doesn't "
            f"hold; to leave that out and archive the tensors of {key} alone, add --tensors-of {key}"
        )
    return found[key]


def _keys(keys: Iterable[Any]) -> str:
    shown = [str(key)[:80] for key in keys]
    return ", ".join(shown[:_KEYS_SHOWN]) + (f" and {len(shown) - _KEYS_SHOWN} more" if shown[_KEYS_SHOWN:] else "")


def _named(path: Path, found: Any) -> list[tuple[str, Any]]:
    if not isinstance(found, Mapping) or not found or not all(isinstance(name, str) for name in found):
        raise UnsupportedError(f"{path} holds no tensors by name; save the model's state dict: {_EXAMPLE}")
    return list(found.items())


def _tensor(path: Path, name: str, value: Any) -> tuple[str, tuple[int, ...], bytes]:
    torch = _torch()
    dtype = str(getattr(value, "dtype", "")).removeprefix("torch.").replace("_", "")
    if not isinstance(value, torch.Tensor) or value.layout is not torch.strided or dtype not in BY_NAME:
        raise UnsupportedError(f"{path}: {name} is no plain tensor of a type that seeds hold; save {_EXAMPLE}")
    flat = value.detach().contiguous().reshape(-1)
    data = flat.view(torch.uint8).numpy() if flat.numel() else np.empty(0, np.uint8)
    return dtype, tuple(value.shape), data.tobytes()


_EXAMPLE: Final = "torch.save(model.state_dict(), path)"


def _torch() -> ModuleType:
    return _package("torch")


def _safetensors() -> ModuleType:
    return _package("safetensors.torch")


def _package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        package = name.partition(".")[0]
        raise UsageError(
            f"tensors without a graph need the package {package}: pip install 'seed-runtime[torch]'"
        ) from None
