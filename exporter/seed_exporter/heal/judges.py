"""Inputs that judge states and aren't trained on, with the original's answers; and whether it has answers at all."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

from seed_exporter.heal.batches import grouped, joined
from seed_exporter.heal.interpreter import Interpreter
from seed_exporter.heal.losses import damage
from seed_runtime.backends import Feeds
from seed_runtime.errors import InputError

Answers = dict[str, Tensor]
"""Outputs by name."""
_ENOUGH: Final = 20
"""Batches from which it can be said that most are no use."""


class Judges:
    """Measures the damage of answers on inputs that are held for that.

    Layers' values aren't held: EfficientNet-lite0 has megabytes of them for each of hundreds of inputs.

    Args:
        teacher: the original.
        weights: its weights.
        feeds: inputs of single calls.
        size: inputs of a batch.

    Attributes:
        batches: the inputs, in batches.
        expected: the original's outputs on each.
    """

    def __init__(self, teacher: Interpreter, weights: Mapping[str, Tensor], feeds: Sequence[Feeds], size: int) -> None:
        self.batches: list[Answers] = [
            {name: teacher.tensor(array) for name, array in joined(group[first : first + size]).items()}
            for group in grouped(feeds)
            for first in range(0, len(group), size)
        ]
        self.expected: list[Answers] = []
        for batch in self.batches:
            with torch.no_grad():
                found = teacher.run(batch, weights)
            self.expected.append({name: found[name] for name in teacher.outputs if name in found})

    def damage(
        self,
        answers: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]],
        names: Sequence[str],
        scores: Collection[str] = (),
    ) -> float:
        """Return the mean damage over batches; infinite where answers aren't finite.

        Args:
            answers: computes a candidate's outputs.
            names: outputs to look at.
            scores: those of them whose largest entry is a decision.
        """
        if not self.batches:
            return 0.0
        with torch.no_grad():
            pairs = zip(self.batches, self.expected, strict=True)
            found = [damage(original, answers(batch), names, scores) for batch, original in pairs]
        mean = float(torch.stack(found).mean())
        # No comparison with NaN is true.
        return mean if math.isfinite(mean) else math.inf


class Usable:
    """Counts the batches on which the original answers with numbers; updates are left out on others.

    Args:
        device: where answers are.
    """

    def __init__(self, device: torch.device) -> None:
        # On the device: steps that are recorded count as well, and nothing waits for them.
        self._counts = torch.zeros(2, device=device)

    def add(self, answers: Sequence[Tensor]) -> None:
        """Count a batch."""
        finite = torch.stack([torch.isfinite(answer).all() for answer in answers]).all()
        self._counts += torch.stack([finite, torch.ones_like(finite)])

    def forget(self) -> None:
        """Count from the beginning."""
        self._counts.zero_()

    @property
    def all(self) -> bool:
        """True if there are numbers for all batches so far."""
        usable, count = self._counts.tolist()
        return bool(usable == count)

    def text(self) -> str:
        """Say how many batches were no use; "" if all were."""
        if self.all:
            return ""
        usable, count = (round(each) for each in self._counts.tolist())
        return (
            f"the model answers with NaN or infinity in {count - usable:,} of {count:,} batches of --heal, from which "
            f"nothing was learned; clean the data, or leave these inputs out"
        )

    def check(self) -> None:
        """Refuse data of which most batches are no use.

        Raises:
            InputError: that is so.
        """
        usable, count = self._counts.tolist()
        if count >= _ENOUGH and usable < count / 2:
            raise InputError(self.text())


def usable_feeds(
    teacher: Interpreter, weights: Mapping[str, Tensor], feeds: Sequence[Feeds], names: Sequence[str], size: int
) -> list[Feeds]:
    """Return the inputs on which the original answers with numbers.

    Args:
        teacher: the original.
        weights: its weights.
        feeds: inputs of single calls.
        names: outputs to look at.
        size: inputs of a batch.
    """

    def is_usable(group: Sequence[Feeds]) -> bool:
        with torch.no_grad():
            found = teacher.run({name: teacher.tensor(array) for name, array in joined(group).items()}, weights)
        return all(bool(torch.isfinite(found[name]).all()) for name in names)

    usable: set[int] = set()
    for group in grouped(feeds):
        for first in range(0, len(group), size):
            part = group[first : first + size]
            usable |= {id(feed) for feed in (part if is_usable(part) else filter(lambda each: is_usable([each]), part))}
    return [feed for feed in feeds if id(feed) in usable]


def check_outputs(judged: Sequence[str], expected: Sequence[Answers]) -> None:
    """Raise the error of a model that has no output to follow, or answers with NaN.

    Args:
        judged: outputs that are followed.
        expected: the original's outputs on each batch that judges.
    """
    if not judged:
        raise InputError("the model has no output of floats that healing could be led by; export without --heal")
    for index, original in enumerate(expected):
        for name in judged:
            if not bool(torch.isfinite(original[name]).all()):
                raise InputError(
                    f"the model answers with NaN or infinity in its output {name!r} on inputs of --heal (batch "
                    f"{index + 1} of those that judge); clean the data, or leave these inputs out"
                )
