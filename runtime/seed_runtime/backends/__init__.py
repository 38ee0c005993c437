"""Backends: libraries that run an assembled model, behind one small interface.

A backend is one file here and one line in `_MODULES`. Its module makes one `BACKEND`, and imports the
library that does the work only when a runner is opened: the plan, the checks and the assembly need none.
"""

from __future__ import annotations

import importlib
from typing import Final

from seed_runtime.backends.dimensions import Dims, dims_at, dims_of, free_axes, key_of, point_of
from seed_runtime.backends.interface import Backend, Runner, WritingRunner, usable_cores
from seed_runtime.backends.tensors import Array, Feeds, TensorSpec, check_feeds, expectation
from seed_runtime.backends.values import array_type, input_spec, names_of, output_specs
from seed_runtime.errors import UnsupportedError

__all__ = [
    "Array",
    "Backend",
    "Dims",
    "Feeds",
    "Runner",
    "TensorSpec",
    "WritingRunner",
    "array_type",
    "check_feeds",
    "dims_at",
    "dims_of",
    "expectation",
    "free_axes",
    "get",
    "input_spec",
    "key_of",
    "names_of",
    "output_specs",
    "point_of",
    "usable_cores",
]

_MODULES: Final = {
    "onnxruntime": "seed_runtime.backends.onnxruntime",
    "litert": "seed_runtime.backends.litert",
}


def get(name: str = "onnxruntime") -> Backend:
    """Return the backend of that name.

    Raises:
        UnsupportedError: this runtime knows none.
    """
    if name not in _MODULES:
        raise UnsupportedError(f"no backend is called {name!r}; use one of {', '.join(_MODULES)}")
    backend: Backend = importlib.import_module(_MODULES[name]).BACKEND
    return backend
