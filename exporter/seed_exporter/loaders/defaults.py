"""Tell inputs with a default from weights that are listed as inputs.

From IR 4 on, an initializer that is also an input is the input's default, which a caller may replace: thresholds of
detectors, speeds of voices. Before, all initializers had to be listed so, and exporters went on with it for years.
"""

from __future__ import annotations

from typing import Final

import onnx

from seed_exporter.graph.kinds import FLOATS
from seed_exporter.graph.model import storable
from seed_exporter.graph.versions import FIRST_IR
from seed_runtime.format.dtypes import BY_CODE

DEFAULT_MAX: Final = 1 << 20
"""Size up to which an initializer may be a default, which stays in the skeleton [B]."""

_UNFEEDABLE: Final = frozenset(
    dtype.code for dtype in BY_CODE.values() if dtype.bits < 8 or dtype.name.startswith(("bfloat", "float8"))
)
"""Element types that no array has, so that nobody could replace the default."""


def find_defaults(model: onnx.ModelProto) -> tuple[set[str], tuple[str, ...]]:
    """Find the initializers that are defaults of inputs.

    Where all matrices are listed as inputs, an exporter listed the weights: none of them is a default.

    Returns:
        Their names, and notes on the inputs that the seed won't have.
    """
    inputs = {value.name for value in model.graph.input}
    listed = [tensor for tensor in model.graph.initializer if tensor.name in inputs]
    if model.ir_version < FIRST_IR or not listed:
        return set(), ()
    matrices = [tensor.name for tensor in model.graph.initializer if _is_matrix(tensor)]
    if matrices and inputs.issuperset(matrices):
        fixed = listed
    else:
        fixed = [tensor for tensor in listed if _size(tensor) > DEFAULT_MAX or tensor.data_type in _UNFEEDABLE]
    names = {tensor.name for tensor in listed} - {tensor.name for tensor in fixed}
    return names, (_note(fixed),) if fixed else ()


def _note(fixed: list[onnx.TensorProto]) -> str:
    shown = ", ".join(repr(tensor.name[:80]) for tensor in fixed[:3]) + (", ..." if len(fixed) > 3 else "")
    if len(fixed) == 1:
        return f"the input {shown} has a default that is taken for a weight: it can't be fed"
    return f"{len(fixed)} inputs have defaults that are taken for weights ({shown}): they can't be fed"


def _is_matrix(tensor: onnx.TensorProto) -> bool:
    dtype = storable(tensor.data_type)
    return dtype is not None and dtype.name in FLOATS and sum(size > 1 for size in tensor.dims) >= 2


def _size(tensor: onnx.TensorProto) -> int:
    dtype, count = storable(tensor.data_type), 1
    for size in tensor.dims:
        count *= max(0, size)
    return 0 if dtype is None else dtype.size(count)
