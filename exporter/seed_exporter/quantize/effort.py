"""Effort: which of the slower ways to fewer bytes an export takes (`--effort 1..9`)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final


@dataclass(frozen=True)
class Effort:
    """What an export does for fewer bytes at the same damage, beyond rounding to nearest at steps by weight scales.

    Attributes:
        probes: tensors' steps follow the damage that each does to the outputs alone.
        feedback: rounding errors are compensated by weights that are not rounded yet, by the covariance of inputs.
        input_steps: inputs of a matrix have steps of their own, by the pivots of that covariance.
        table_rows: rows of a table have steps by how often they are read.
        rate: weight of the rate against the squared error, in squared steps a bit, when an integer is chosen.
        trellis: integers are the best paths through a trellis, which takes turns between two grids.
        shifts: biases give channels the original's means again.
        tunes: biases, norms and other vectors are trained on the original's answers.
        factors: matrices may be products of two smaller ones.
        distills: steps, scales and rounding are trained on the calibration inputs (needs torch).
    """

    probes: bool = False
    feedback: bool = False
    input_steps: bool = False
    table_rows: bool = False
    rate: float = 0.0
    trellis: bool = False
    shifts: bool = False
    tunes: bool = False
    distills: bool = False
    factors: bool = True


_WITHOUT_TRAINING: Final = Effort(
    probes=True, feedback=True, input_steps=True, table_rows=True, rate=0.1, trellis=True, shifts=True
)
EFFORTS: Final = {
    1: Effort(),
    2: Effort(probes=True),
    3: Effort(probes=True, feedback=True),
    4: Effort(probes=True, feedback=True, input_steps=True, table_rows=True),
    5: _WITHOUT_TRAINING,
    **dict.fromkeys(range(6, 9), replace(_WITHOUT_TRAINING, tunes=True)),
    9: replace(_WITHOUT_TRAINING, tunes=True, distills=True),
}
"""What each level of `--effort` does; 6 to 8 do the same (docs/adr/0026)."""
WITHOUT_DATA: Final = dict.fromkeys(("feedback", "input_steps", "table_rows", "shifts", "tunes", "distills"), False)
"""What no effort does where inputs were generated: their covariances and counts are not those of real ones."""
WITHOUT_GRADIENTS: Final = dict.fromkeys(("shifts", "tunes", "distills"), False)
"""What no effort does with a model that can't be differentiated or edited, such as a TFLite file."""
DEFAULT: Final = 5
"""Level of `--effort` where none is given."""
