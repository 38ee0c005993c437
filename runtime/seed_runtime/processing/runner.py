"""Ask a model about samples: items in, the model's calls, answers out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Final

import numpy as np

from seed_runtime.backends import Array, Feeds
from seed_runtime.errors import FormatError, InputError, LimitError
from seed_runtime.limits import FRAME_MAX
from seed_runtime.processing.answers import Facts, SampleAnswer
from seed_runtime.processing.description import Processing
from seed_runtime.processing.items import Item
from seed_runtime.processing.steps import Prepared

Run = Callable[[Feeds], dict[str, Array]]
"""Runs the model once."""
_CALLS_MAX: Final = 1 << 20
"""Largest number of calls of one sample: of speech, some 9 hours."""
_HELD_MAX: Final = 1 << 27
"""Largest size of the outputs of all calls of one sample, which are held until the last one [B]."""


@dataclass(frozen=True)
class Sample:
    """A sample that steps have prepared."""

    facts: Facts
    prepared: tuple[Prepared, ...]
    first: Feeds
    """Arrays like those of the first call, for plans."""

    @property
    def count(self) -> int:
        """Number of times that the model is run for it."""
        return max(each.count for each in self.prepared)

    def calls(self) -> Iterator[dict[str, Array]]:
        """Yield the feeds of each call; steps that make one call are repeated for those that make many."""
        held = [next(each.calls) for each in self.prepared]
        yield _joined(held)
        while True:
            more = [next(each.calls, None) for each in self.prepared]
            if all(feeds is None for feeds in more):
                return
            held = [old if new is None else new for old, new in zip(held, more, strict=True)]
            yield _joined(held)


def prepare(
    processing: Processing, items: tuple[Item, ...], limit: int | None = None, top: int | None = None
) -> Sample:
    """Make the inputs of one sample.

    Args:
        processing: what stands before the model.
        items: one of each medium that it takes.
        limit: of --max-memory; None for none [B].
        top: largest number of labels or boxes in an answer; None for the steps' own.

    Raises:
        InputError: an item can't be used.
        UnsupportedError: a package is missing.
        MemoryBudgetError: it takes too much memory.
    """
    facts = Facts(source=items[0].name, top=top)
    by_medium = {item.medium: item for item in items}
    prepared = tuple(
        step.prepare(by_medium[step.medium] if step.medium else None, facts, processing.specs, limit)
        for step in processing.inputs
    )
    first = _joined([dict(each.first) for each in prepared]) | _start(processing)
    sample = Sample(facts, prepared, first)
    if (count := sample.count) > _CALLS_MAX:
        raise InputError(f"{facts.source} would take {count:,} calls, at most {_CALLS_MAX:,} are made; cut it in parts")
    return sample


def answer(processing: Processing, sample: Sample, run: Run) -> SampleAnswer:
    """Run the model on a prepared sample, and return what the steps behind it say.

    Raises:
        OutputError: outputs aren't of the form that was described.
        InputError: the outputs of its calls are more than are held.
    """
    wanted = {name for step in processing.outputs for name in step.reads.values()}
    state, calls, held = _start(processing), list[dict[str, Array]](), 0
    for feeds in sample.calls():
        outputs = run(feeds | state)
        state = {name: outputs[source] for name, source in processing.state.items()}
        calls.append({name: outputs[name] for name in wanted})
        held += sum(array.nbytes for array in calls[-1].values())
        # Calls are alike, so the first one already tells what a long sound would end with.
        if sample.count > 1 and max(held, held // len(calls) * sample.count) > _HELD_MAX:
            most = _HELD_MAX * len(calls) // held
            raise InputError(
                f"{sample.facts.source} takes {sample.count:,} calls, and the outputs of {most:,} are held; "
                f"cut it in parts"
            )
    # NumPy would warn on stderr of NaN and infinities that a model gives.
    with np.errstate(all="ignore"):
        return SampleAnswer(sample.facts, tuple(step.answer(calls, sample.facts) for step in processing.outputs))


def _start(processing: Processing) -> dict[str, Array]:
    """Return the state before the first call: zeros, a free size being 1."""
    found = {}
    for name in processing.state:
        spec = processing.specs[name]
        if spec.shape is None or spec.dtype == "string":
            raise FormatError("processing, state", f"{spec} has no shape that a state could begin with")
        shape = [size if isinstance(size, int) else 1 for size in spec.shape]
        if prod(shape) > FRAME_MAX:
            raise LimitError("processing, state: elements", prod(shape), FRAME_MAX)
        found[name] = np.zeros(shape, spec.dtype)
    return found


def _joined(parts: list[dict[str, Array]]) -> dict[str, Array]:
    return {name: array for part in parts for name, array in part.items()}
