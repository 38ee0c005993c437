"""Description that a skeleton of any kind gives of itself, and its comparison with the seed's table of holes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NoReturn

from seed_runtime.errors import FormatError
from seed_runtime.format.dtypes import DType
from seed_runtime.format.parts.kind import HoleLike

Form = Literal["tensor", "sequence", "map", "maps"]
"""A tensor, a sequence of tensors, a map from numbers or texts to numbers, or a sequence of such maps."""

MISSING_OPERATORS: Final = frozenset(
    {"IsNaN", "Imputer", "LabelEncoder", "TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor"}
)
"""Operators that take NaN for a missing value: a model that has one is given NaN as it is."""
BREAKING_OPERATORS: Final = frozenset({"Einsum", "GRU", "LSTM", "RNN"})
"""Operators that divide by a size or throw where nothing catches, in ONNX Runtime 1.32, if a tensor is empty."""


@dataclass(frozen=True, slots=True)
class ExternalTensor:
    """A tensor whose data are in the weights file, or in a range of the model file (layout.py)."""

    name: str
    dtype: DType
    dims: tuple[int, ...]
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class ValueInfo:
    """An input or output. A dimension is a number, a name, or None if nothing is known.

    `elem_type` is that of a tensor, of the tensors of a sequence, or of a map's values; None for what is none of
    these. `dims` is None where not even the number of axes is stated.
    """

    name: str
    elem_type: int | None
    dims: tuple[int | str | None, ...] | None
    form: Form = "tensor"
    key_type: int | None = None
    """Type of a map's keys."""


@dataclass(frozen=True, slots=True)
class SkeletonInfo:
    """Description that a skeleton gives of itself."""

    ir_version: int
    opsets: dict[str, int]
    inputs: tuple[ValueInfo, ...]
    """Inputs that every run must give."""
    outputs: tuple[ValueInfo, ...]
    tensors: tuple[ExternalTensor, ...]
    """Tensors whose data are outside the skeleton, in the order of its initializers."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Texts for the programs that use the model, by key."""
    optional_inputs: tuple[ValueInfo, ...] = ()
    """Inputs that have a default, which a run may give."""
    operators: frozenset[str] = frozenset()
    """Operators that decide what the model may be given, wherever in it they occur."""
    custom_operators: tuple[str, ...] = ()
    """Names of operators that only programs of the model's maker have."""

    @property
    def takes_missing(self) -> bool:
        """True if an operator takes NaN for a missing value."""
        return bool(self.operators & MISSING_OPERATORS)

    @property
    def breaks_on_empty(self) -> bool:
        """True if an operator may end the process that gives it an empty tensor."""
        return bool(self.operators & BREAKING_OPERATORS)


def check_holes(info: SkeletonInfo, holes: Sequence[HoleLike]) -> tuple[str, ...]:
    """Return the name of each hole's tensor, after checking that holes and references are the same set.

    Raises:
        FormatError: a reference without a hole, a hole without a reference, or two that differ.
    """
    if len(holes) != len(info.tensors):
        refuse(f"it refers to {len(info.tensors):,} tensors and the table of holes has {len(holes):,}")
    by_offset = {tensor.offset: tensor for tensor in info.tensors}
    names = []
    for index, hole in enumerate(holes):
        # Removed, so that two holes can't share one reference.
        tensor = by_offset.pop(hole.offset, None)
        if tensor is None:
            refuse(f"nothing in it refers to hole {index} at offset {hole.offset:,}")
        same_tensor(index, hole, tensor)
        names.append(tensor.name)
    return tuple(names)


def same_tensor(index: int, hole: HoleLike, tensor: ExternalTensor) -> None:
    """Raise FormatError unless hole number `index` and the skeleton's tensor agree in dtype, dimensions and size."""
    for what in ("dtype", "dims", "size"):
        ours, theirs = getattr(hole, what), getattr(tensor, what)
        if ours != theirs:
            refuse(f"tensor {tensor.name!r} differs in {what} from hole {index}: {theirs} and {ours}")


def refuse(problem: str) -> NoReturn:
    """Raise FormatError for a skeleton that is not as it has to be."""
    # One line even where a name of kilobytes stands in it.
    raise FormatError("skeleton", problem if len(problem) <= 300 else problem[:300] + "...")
