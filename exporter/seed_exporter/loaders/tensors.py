"""Read the data of an ONNX TensorProto as an array: raw or typed fields, inside the model or in another file."""

from __future__ import annotations

import math
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Final

import numpy as np
import onnx

from seed_exporter.graph.model import storable
from seed_runtime.errors import UnsupportedError
from seed_runtime.format.dtypes import DType
from seed_runtime.system import wrong_files

_UINT64_FIELD: Final = frozenset({onnx.TensorProto.UINT32, onnx.TensorProto.UINT64})
"""Types whose typed field is `uint64_data`."""


def read_tensor(tensor: onnx.TensorProto, model_file: Path | None) -> tuple[DType, np.ndarray] | None:
    """Read the element type and the elements of `tensor`.

    Args:
        tensor: a tensor of the model.
        model_file: the model's file, beside which external data is; None for a model in memory.

    Returns:
        None where the type can't leave the model (strings). 4-bit types are packed, as one axis of bytes.
        External data is mapped, not read.

    Raises:
        UnsupportedError: the data is missing, of another size than the dimensions say, or outside
            the model's folder.
    """
    dtype = storable(tensor.data_type)
    if dtype is None:
        return None
    if any(size < 0 for size in tensor.dims):
        raise UnsupportedError(f"tensor {tensor.name!r} has a negative dimension; export the model again")
    count = math.prod(tensor.dims)
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        flat = _map_external(tensor, dtype, dtype.size(count), model_file)
    elif tensor.HasField("raw_data"):
        flat = _from_raw_data(tensor, dtype)
    else:
        flat = _from_typed_field(tensor, dtype)
    if flat.nbytes != dtype.size(count):
        raise UnsupportedError(
            f"tensor {tensor.name!r} has {flat.nbytes:,} bytes of data where its dimensions "
            f"{list(tensor.dims)} ask for {dtype.size(count):,}; export the model again"
        )
    return dtype, flat if dtype.bits < 8 else flat.reshape(tuple(tensor.dims))


def tensor_without_data(name: str, dtype: DType, shape: tuple[int, ...]) -> onnx.TensorProto:
    """Make an initializer without data: what stays of a weight inside the model."""
    return onnx.TensorProto(name=name, data_type=dtype.code, dims=shape)


def inline_tensor(name: str, dtype: DType, data: np.ndarray, shape: tuple[int, ...]) -> onnx.TensorProto:
    """Make an initializer with its data as raw bytes."""
    return onnx.TensorProto(name=name, data_type=dtype.code, dims=shape, raw_data=data.tobytes())


def _from_raw_data(tensor: onnx.TensorProto, dtype: DType) -> np.ndarray:
    raw = tensor.raw_data
    if len(raw) % dtype.storage.itemsize:
        raise UnsupportedError(f"tensor {tensor.name!r} ends within an element; export the model again")
    return np.frombuffer(raw, dtype.storage)


def _from_typed_field(tensor: onnx.TensorProto, dtype: DType) -> np.ndarray:
    if dtype.code == onnx.TensorProto.FLOAT:
        return np.array(tensor.float_data, dtype.storage)
    if dtype.code == onnx.TensorProto.DOUBLE:
        return np.array(tensor.double_data, dtype.storage)
    if dtype.code == onnx.TensorProto.INT64:
        return np.array(tensor.int64_data, dtype.storage)
    if dtype.code in _UINT64_FIELD:
        return np.array(tensor.uint64_data, np.uint64).astype(dtype.storage)
    values = np.array(tensor.int32_data, np.int32)
    if dtype.code == onnx.TensorProto.FLOAT16:
        return values.astype(np.uint16).view(dtype.storage)  # the field holds bits, not values
    return values.astype(dtype.storage)


def _map_external(tensor: onnx.TensorProto, dtype: DType, size: int, model_file: Path | None) -> np.ndarray:
    """Map the `size` bytes of external data that the tensor refers to."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if model_file is None:
        raise UnsupportedError(
            f"tensor {tensor.name!r} is in the file {location!r}, which a model in memory can't refer to; "
            f"save the model with its data and pass the path"
        )
    path = _beside(model_file, location, tensor.name)
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", size))
    except ValueError:
        offset = length = -1
    with path.open("rb") as file:
        found = wrong_files.recognise(file.read(wrong_files.HEAD_BYTES))
    if found is not None and path.stat().st_size < offset + size:
        raise UnsupportedError(f"tensor {tensor.name!r}: {str(path)!r} is {found.title}; {found.advice}")
    if offset < 0 or length != size or offset + length > path.stat().st_size:
        raise UnsupportedError(
            f"tensor {tensor.name!r}: {location!r} does not hold {size:,} bytes for it at offset {offset:,}; "
            f"the file is cut or of another model, copy both again"
        )
    if not size:
        return np.empty(0, dtype.storage)
    mapped = np.memmap(path, dtype.storage, "r", offset, (size // dtype.storage.itemsize,))
    # A plain view: np.memmap's own class would follow into every result computed from it.
    flat = mapped.view(np.ndarray)
    return flat if flat.flags.aligned else flat.copy()


def _beside(model_file: Path, location: str, name: str) -> Path:
    """Return the path of a data file beside the model; files outside the model's folder are refused."""
    parts = PurePosixPath(location).parts
    windows = PureWindowsPath(location)
    path = model_file.parent / location
    if location and not windows.drive and not windows.root and ".." not in {*parts, *windows.parts}:
        if not path.is_file():
            raise UnsupportedError(f"tensor {name!r} is in {str(path)!r}, which is missing; copy it there")
        # Hub caches link both files into one folder of blobs, so data may also be in the folder of the model
        # that the link points to.
        target = path.resolve()
        for folder in (model_file.parent.resolve(), model_file.resolve().parent):
            if target.is_relative_to(folder):
                return path
    raise UnsupportedError(
        f"tensor {name!r} is in {location!r}, which is not below the model's folder; "
        f"save the model with its data beside it"
    )
