"""Operators that treat each element alone: channels at the same place belong together."""

from __future__ import annotations

from typing import Final

import numpy as np

from seed_exporter.shrink.channels import Channels
from seed_exporter.shrink.reference import computed
from seed_exporter.shrink.registry import Call, rule
from seed_exporter.shrink.values import KNOWN_MAX

_FUNCTIONS: Final = (
    *("Abs", "Acos", "Acosh", "Add", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Celu", "Clip", "Cos", "Cosh", "Div"),
    *("Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log"),
    *("Max", "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu"),
    *("Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Swish", "Tan", "Tanh"),
    "ThresholdedRelu",
)
"""Operators that compute a constant from constants, whatever else their inputs hold."""
_OTHERS: Final = (
    *("And", "BitShift", "Cast", "CastLike", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less"),
    *("LessOrEqual", "Not", "Or", "Where", "Xor"),
)
"""Those whose types an unknown element, NaN, doesn't pass."""


@rule(*_FUNCTIONS)
def _function(c: Call) -> None:
    if c.node.op_type == "Dropout" and c.input(2):
        c.refuse()  # it may be training
    c.give(broadcast(c, range(len(c.node.input))), _computed(c))


@rule(*_OTHERS)
def _other(c: Call) -> None:
    c.give(broadcast(c, range(len(c.node.input))))


def broadcast(c: Call, indices: range, rank: int = 0, skip: int = 0) -> list[Channels | None]:
    """Tie the channels of inputs that are broadcast to each other, and return those of the result.

    Args:
        c: the call.
        indices: the inputs.
        rank: least rank of the result.
        skip: number of last axes that aren't broadcast; the result has none.
    """
    present = [index for index in indices if c.input(index)]
    rank = max([rank, *(c.rank(index) - skip for index in present)])
    result = []
    for place in range(1, rank + 1):
        found: list[Channels | None] = []
        for index in present:
            axis = c.rank(index) - skip - place
            if axis >= 0 and c.shape(c.input(index))[axis] != 1:
                found.append(c.axis(index, axis))
        result.append(c.tie(*found))
    return result[::-1]


def _computed(c: Call) -> np.ndarray | None:
    """Run the operator on what is known of its inputs."""
    known = [c.known(index) for index, name in enumerate(c.node.input) if name]
    if c.node.op_type == "Mul":
        return _product(c, known)
    if any(each is None for each in known):
        return None
    given = [each for each in known if each is not None]
    if max(each.size for each in given) > KNOWN_MAX:
        return None
    names = [name for name in c.node.input if name]
    result = computed(c.node, dict(zip(names, given, strict=True)), c.opset)
    if result is None:
        return None
    # Comparisons inside of an operator make numbers of NaN.
    for each in given:
        result = np.where(np.isnan(each), np.array(np.nan, result.dtype), result)
    return result


def _product(c: Call, known: list[np.ndarray | None]) -> np.ndarray | None:
    """Multiply what is known; 0 times anything is 0."""
    given = [each for each in known if each is not None]
    if not given or max(each.size for each in given) > KNOWN_MAX:
        return None
    rank = max(c.rank(0), c.rank(1))
    first, second = (np.full((1,) * rank, np.nan, given[0].dtype) if each is None else each for each in known)
    with np.errstate(all="ignore"):
        result = first * second
    return np.where((first == 0) | (second == 0), np.zeros((), result.dtype), result)
