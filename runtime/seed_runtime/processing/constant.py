"""Step "constant": an input that has the same number in every call, such as a sampling rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from seed_runtime.errors import FormatError
from seed_runtime.processing.answers import Facts
from seed_runtime.processing.fields import Fields
from seed_runtime.processing.items import Item
from seed_runtime.processing.sources import Sources
from seed_runtime.processing.steps import InputStep, Prepared, Specs, check_input, one_call

_DTYPES: Final = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")


@dataclass(frozen=True)
class ConstantStep:
    """Fills one input with numbers."""

    where: str
    fills: Mapping[str, str]
    value: tuple[float, ...]
    shape: tuple[int, ...]
    kind: str = "constant"
    medium: str = ""

    def check(self, inputs: Specs) -> None:
        """Raise FormatError if the input is of another shape (see `InputStep`)."""
        check_input(self.where, inputs[self.fills["value"]], _DTYPES, self.shape)

    def prepare(self, item: Item | None, facts: Facts, inputs: Specs, limit: int | None) -> Prepared:
        """Make the input (see `InputStep`)."""
        name = self.fills["value"]
        return one_call({name: np.array(self.value).reshape(self.shape).astype(inputs[name].dtype)})


def read(fields: Fields, sources: Sources) -> InputStep:
    """Read a step of this kind."""
    value = fields.numbers("value", 1, 64)
    shape = fields.integers("shape", (0, 8), 1, 64, ())
    if np.prod(shape, dtype=int) != len(value):
        raise FormatError(fields.where, f"{len(value)} numbers don't fill the shape {list(shape)}")
    return ConstantStep(fields.where, fields.names("fills", ["value"]), value, shape)
