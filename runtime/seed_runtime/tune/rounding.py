"""New values as a delta will hold them: differences to the seed's own tensors, in whole quantization steps.

A score of values that aren't rounded says nothing of what a device applies: variances of batch norms from 20 to 400
became negative in steps that suited their mean difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from seed_runtime.backends import Array
from seed_runtime.codecs.arrays import WINDOW
from seed_runtime.codecs.encode.delta import rounded_step
from seed_runtime.codecs.encode.grid import round_to_nearest
from seed_runtime.tune.records import Score

SHARES: Final = (1 / 4, 1 / 16, 1 / 64, 1 / 1024)
"""Steps that are tried, as shares of a tensor's root mean square difference: some 4, 6, 8 and 12 bits an element."""
_LOSS_SLACK: Final = 0.02
"""Share by which rounding may make the loss larger, where decisions stay."""

Rounded = tuple[dict[str, Array], dict[str, float]]
"""Values, and the step of each tensor."""


def round_differences(stored: Callable[[str], Array], values: Mapping[str, Array], share: float) -> Rounded:
    """Round differences to steps that are a share of their root mean square, as a decoder adds them: in float32.

    Memory: the values once more, and one window.
    """
    found, steps = {}, {}
    for name, value in values.items():
        found[name] = stored(name)
        old, new = found[name].reshape(-1), value.reshape(-1)
        windows = [slice(start, start + WINDOW) for start in range(0, len(old), WINDOW)]
        squares = sum(float(np.sum(np.square(new[each] - old[each], dtype=np.float64))) for each in windows)
        step = steps[name] = rounded_step(share * math.sqrt(squares / len(old)))
        for each in windows:
            integers = round_to_nearest((new[each] - old[each]).reshape(1, -1), step).integers.reshape(-1)
            old[each] += integers.astype(np.float32) * np.float32(step)
    return found, steps


def round_for_score(
    stored: Callable[[str], Array],
    values: Mapping[str, Array],
    wanted: Score,
    score: Callable[[Mapping[str, Array]], Score],
) -> tuple[Score, Rounded]:
    """Round as coarsely as the score allows; the last try counts where all are worse.

    Memory: the values once more.

    Args:
        stored: reads a tensor of the seed, float32; each time into a new array.
        values: their new values, with `wanted` as score.
        wanted: what rounded values should reach.
        score: computes the score of values.

    Returns:
        The score of the rounded values, and these.
    """
    least = Score(wanted.value, wanted.loss + _LOSS_SLACK * abs(wanted.loss))
    reached, found = wanted, (dict(values), dict[str, float]())
    for share in SHARES:
        found = round_differences(stored, values, share)
        reached = score(found[0])
        if not least > reached:
            break
    return reached, found
