"""Inputs and outputs that are more than one tensor: their types, and the arrays that they are made of.

Everything that is run, printed, stored, sent and compared is an array with a name. A sequence `boxes` gives `boxes.0`,
`boxes.1` and so on, a map or a sequence of maps `prob` (scikit-learn's ZipMap) gives `prob.keys` and `prob.values`, one
row of values for each map. An optional value is the value itself, or nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from seed_runtime.backends.tensors import Array, Shape, TensorSpec, shape_of
from seed_runtime.errors import UnsupportedError
from seed_runtime.format.dtypes import BY_CODE, STRING
from seed_runtime.skeletons.info import Form, ValueInfo

KEYS: Final = ".keys"
VALUES: Final = ".values"
ANY: Final = ".*"
"""Stands for the number of an element in the name of a sequence's spec."""

_DTYPES: Final = {"float": "float32", "double": "float64"} | {
    name: name
    for name in ("bool", "float16", "int8", "int16", "int32", "int64", "string", "uint8", "uint16", "uint32", "uint64")
}
"""Names of element types that NumPy has, as ONNX Runtime writes them."""
_OPTIONAL: Final = re.compile(r"optional\((.*)\)")
_FORMS: Final[dict[Form, re.Pattern[str]]] = {
    "tensor": re.compile(r"tensor\((?P<value>\w+)\)"),
    "sequence": re.compile(r"seq\(tensor\((?P<value>\w+)\)\)"),
    "map": re.compile(r"map\((?P<key>\w+),tensor\((?P<value>\w+)\)\)"),
    "maps": re.compile(r"seq\(map\((?P<key>\w+),tensor\((?P<value>\w+)\)\)\)"),
}


@dataclass(frozen=True)
class ValueType:
    """Type of an input or output of a model."""

    name: str
    form: Form
    dtype: str
    """Type of the elements: a name of format/dtypes.py, or "string"."""
    shape: Shape | None
    key: str = ""
    """Type of a map's keys."""

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """Descriptions of the arrays that it is made of."""
        if self.form == "tensor":
            return (TensorSpec(self.name, self.dtype, self.shape),)
        if self.form == "sequence":
            return (TensorSpec(self.name + ANY, self.dtype, self.shape),)
        axes = (None, None) if self.form == "maps" else (None,)
        return (TensorSpec(self.name + KEYS, self.key, (None,)), TensorSpec(self.name + VALUES, self.dtype, axes))

    def arrays(self, value: Any) -> Iterator[tuple[str, Array]]:
        """Yield the arrays of a value as ONNX Runtime gives it, by name; none for an optional one that is missing.

        Raises:
            UnsupportedError: the maps of a sequence have different keys.
        """
        if value is None:
            return
        if self.form == "tensor":
            yield self.name, np.asarray(value)
        elif self.form == "sequence":
            for index, element in enumerate(value):
                yield f"{self.name}.{index}", np.asarray(element)
        else:
            maps = value if self.form == "maps" else [value]
            keys = list(maps[0]) if maps else []
            if any(list(each) != keys for each in maps):
                raise UnsupportedError(
                    f"output {self.name!r} has maps of different keys, which make no table; leave the last ZipMap out "
                    f"of the model (scikit-learn's converter: zipmap=False)"
                )
            yield self.name + KEYS, np.array(keys, array_type(self.key))
            rows = np.array([list(each.values()) for each in maps], array_type(self.dtype))
            yield self.name + VALUES, rows.reshape(len(maps), len(keys)) if self.form == "maps" else rows[0]


def names_of(spec: str, arrays: Mapping[str, Array]) -> list[str]:
    """Return the names of the arrays that an output's spec stands for: the elements of a sequence in their order."""
    if not spec.endswith(ANY):
        return [spec] if spec in arrays else []
    start = spec.removesuffix("*")
    return [name for name in arrays if name.startswith(start) and name.removeprefix(start).isdigit()]


def input_spec(value: ValueInfo) -> TensorSpec:
    """Describe an input of a skeleton; its dtype is "unknown" where it is no tensor of a known type."""
    code = value.elem_type if value.form == "tensor" else None
    return TensorSpec(value.name, _dtype_name(code), shape_of(value.dims))


def output_specs(value: ValueInfo) -> tuple[TensorSpec, ...]:
    """Describe the arrays of an output of a skeleton; a dtype is "unknown" where there is none of such arrays."""
    dtype, key = _dtype_name(value.elem_type), _dtype_name(value.key_type)
    return ValueType(value.name, value.form, dtype, shape_of(value.dims), key).specs


def input_type(name: str, kind: str, shape: Shape | None) -> ValueType:
    """Parse ONNX Runtime's word for the type of an input, such as "tensor(float)".

    Raises:
        UnsupportedError: no array can be one; it says how to export the model instead.
    """
    found = _parsed(name, kind, shape)
    if found is not None and found.form == "tensor":
        return found
    if found is None and _is_tensor(kind):
        raise UnsupportedError(
            f"{_no_type('input', name, kind)}; export the model with a Cast from float32 at this input"
        )
    raise UnsupportedError(
        f"input {name!r} has the type {kind}, and inputs are arrays; export the model with tensors as its inputs, or "
        f"leave the step out of it that takes this one, such as a DictVectorizer"
    )


def output_type(name: str, kind: str, shape: Shape | None) -> ValueType:
    """Parse ONNX Runtime's word for the type of an output.

    Raises:
        UnsupportedError: it can't be made of arrays; it says how to export the model instead.
    """
    found = _parsed(name, kind, shape)
    if found is not None:
        return found
    if kind.startswith("sparse_tensor"):
        raise UnsupportedError(f"output {name!r} is a sparse tensor; export the model with a dense one at this output")
    if _is_tensor(kind):
        raise UnsupportedError(
            f"{_no_type('output', name, kind)}; export the model with a Cast to float at this output"
        )
    raise UnsupportedError(
        f"output {name!r} has the type {kind}; only tensors, sequences of tensors, maps and sequences of maps are "
        f"outputs here, so export the model without the steps that build it"
    )


def check_names(specs: Sequence[TensorSpec]) -> None:
    """Raise UnsupportedError where two outputs would make arrays of one name."""
    names = [spec.name for spec in specs]
    starts = [name.removesuffix("*") for name in names if name.endswith(ANY)]
    if len(set(names)) < len(names) or any(
        name.startswith(start) and name.removeprefix(start).isdigit() for name in names for start in starts
    ):
        raise UnsupportedError(
            f"two outputs of this model make arrays of one name: {', '.join(names)}; rename them in the model"
        )


def _parsed(name: str, kind: str, shape: Shape | None) -> ValueType | None:
    while match := _OPTIONAL.fullmatch(kind):
        kind = match[1]
    for form, pattern in _FORMS.items():
        match = pattern.fullmatch(kind)
        if match is None:
            continue
        words = match.groupdict()
        if words["value"] in _DTYPES and words.get("key", "int64") in _DTYPES:
            # It states no shape of a sequence's elements.
            known = shape if form == "tensor" else None
            return ValueType(name, form, _DTYPES[words["value"]], known, _DTYPES.get(words.get("key", ""), ""))
    return None


def _dtype_name(code: int | None) -> str:
    if code == STRING.code:
        return STRING.name
    return BY_CODE[code].name if code in BY_CODE else "unknown"


def _is_tensor(kind: str) -> bool:
    return re.fullmatch(r"(?:optional\()?(?:seq\()?tensor\(\w+\)+", kind) is not None


def _no_type(what: str, name: str, kind: str) -> str:
    return f"{what} {name!r} has the type {kind}, which NumPy doesn't have"


def array_type(dtype: str) -> np.dtype[Any]:
    """Return NumPy's type of arrays of this type."""
    return np.dtype(object if dtype == "string" else dtype)
