"""Inputs that judge states and aren't trained on, with the original's answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from seed_exporter.heal.batches import grouped, joined
from seed_exporter.heal.interpreter import Interpreter
from seed_exporter.heal.losses import damage
from seed_runtime.backends import Feeds

Answers = dict[str, Tensor]
"""Outputs by name."""


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

    def damage(self, answers: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]], names: Sequence[str]) -> float:
        """Return the mean damage over batches; infinite where answers aren't finite.

        Args:
            answers: computes a candidate's outputs.
            names: outputs to look at.
        """
        if not self.batches:
            return 0.0
        with torch.no_grad():
            pairs = zip(self.batches, self.expected, strict=True)
            found = [damage(original, answers(batch), names) for batch, original in pairs]
        mean = float(torch.stack(found).mean())
        # No comparison with NaN is true.
        return mean if math.isfinite(mean) else math.inf
