"""Interfaces of steps before and behind a model, and checks of the tensors that they name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from seed_runtime.backends import Array, Feeds, TensorSpec
from seed_runtime.errors import FormatError, OutputError
from seed_runtime.processing.answers import Answer, Facts
from seed_runtime.processing.items import Item

Specs = Mapping[str, TensorSpec]
"""Inputs or outputs of a model by name."""
Outputs = Mapping[str, Array]


@dataclass(frozen=True)
class Prepared:
    """The calls that a step makes of one item: most make one, sound a call a frame."""

    calls: Iterator[dict[str, Array]]
    first: Feeds
    """Arrays like those of the first call, for plans."""
    count: int = 1
    """Number of the calls."""


class InputStep(Protocol):
    """A step before the model: fills inputs with what it makes of an item."""

    @property
    def kind(self) -> str:
        """Kind of the step."""
        ...

    @property
    def medium(self) -> str:
        """Medium of the items that it takes; "" where it takes none."""
        ...

    @property
    def fills(self) -> Mapping[str, str]:
        """Names of the model's inputs by their roles."""
        ...

    def check(self, inputs: Specs) -> None:
        """Raise FormatError if the inputs that it fills aren't those that it makes."""
        ...

    def prepare(self, item: Item | None, facts: Facts, inputs: Specs, limit: int | None) -> Prepared:
        """Make the inputs of one item.

        Args:
            item: what the model is asked about; None for a step that takes none.
            facts: what it notes for the steps behind the model.
            inputs: of the model.
            limit: of --max-memory; None for none [B].

        Raises:
            InputError: the item can't be used.
            UnsupportedError: a package is missing.
            MemoryBudgetError: it takes too much memory.
        """
        ...


class OutputStep(Protocol):
    """A step behind the model: makes an answer of outputs."""

    @property
    def kind(self) -> str:
        """Kind of the step."""
        ...

    @property
    def reads(self) -> Mapping[str, str]:
        """Names of the model's outputs by their roles."""
        ...

    def answer(self, calls: Sequence[Outputs], facts: Facts) -> Answer:
        """Make an answer.

        Args:
            calls: the outputs that it reads of each call, in their order.
            facts: what the steps before the model noted.

        Raises:
            OutputError: the outputs aren't of the form that was described.
            FormatError: no step before the model notes what this one needs.
            InputError: the sound is too long.
        """
        ...


def one_call(feeds: dict[str, Array]) -> Prepared:
    """Return the calls of a step that makes one."""
    return Prepared(iter((feeds,)), feeds)


def check_input(where: str, spec: TensorSpec, dtypes: Sequence[str], shape: Sequence[int | None]) -> None:
    """Raise FormatError unless an input has one of some dtypes and allows a shape.

    Args:
        where: names the step.
        spec: the input.
        dtypes: that the step can make.
        shape: that it makes; None for a size that is only known later.
    """
    if spec.dtype not in dtypes:
        raise FormatError(where, f"it can't make input {spec}")
    if spec.shape is None:
        return
    fits = len(spec.shape) == len(shape) and all(
        not isinstance(have, int) or want is None or have == want for have, want in zip(spec.shape, shape, strict=True)
    )
    if not fits:
        made = ", ".join("?" if size is None else str(size) for size in shape)
        raise FormatError(where, f"it makes [{made}], and the model takes {spec}")


def one_row(where: str, array: Array, axes: int) -> Array:
    """Return an output of numbers without its first axis, which must be a batch of 1; OutputError otherwise."""
    if array.dtype.kind not in "fiub" or array.ndim != axes or array.shape[0] != 1:
        given = f"{array.dtype}{list(array.shape)}"
        raise OutputError(where, f"an output of {axes} axes, the first of size 1, is needed; the model gave {given}")
    row: Array = array[0]
    return row
