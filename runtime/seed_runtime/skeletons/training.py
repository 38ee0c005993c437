"""Training graphs of ONNX skeletons: what a part says of itself, checked before it is joined to the skeleton.

The bytes of a skeleton and of its training graph, one behind the other, are one ModelProto: protobuf merges the two
graphs, whose lists of nodes, inputs and outputs follow each other. The part is as hostile as a skeleton, and so are the
rules (onnx.py); above these it may state nothing of the model but more of its graph, hold no data outside itself, and
define no name that the skeleton defines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from seed_runtime.format.dtypes import BY_NAME
from seed_runtime.format.parts.kind import HoleLike
from seed_runtime.skeletons import onnx, onnx_names
from seed_runtime.skeletons.info import ValueInfo, check_holes, refuse

TARGET: Final = "train.target"
"""Input: what the output is compared with, of the output's shape."""
CROSS_ENTROPY: Final = "train.cross_entropy"
"""Input: factor of the cross-entropy. The axis of the classes follows behind a dot, unless each element decides."""
SQUARED_ERROR: Final = "train.squared_error"
"""Input: factor of the squared error."""
COSINE: Final = "train.cosine"
"""Input: factor of 1 - the cosine of vectors along the last axis."""
LOSS: Final = "train.loss"
"""Output: the sum of the losses, each times its factor."""
FEATURES: Final = "train.features"
"""Output: what the head multiplies."""
HEAD, SMALL, FULL = "train.head", "train.small", "train.full"
LEVELS: Final = (HEAD, SMALL, FULL)
"""Outputs, with the name of a tensor behind a dot: its gradient. Each set holds those before it as well."""
MEAN, VARIANCE = "train.mean", "train.variance"
"""Outputs, with the name of a batch norm's statistic behind a dot: that statistic of the batch."""

_FLOAT: Final = BY_NAME["float32"]


@dataclass(frozen=True)
class TrainedTensor:
    """A tensor that can be trained.

    Attributes:
        name: of the tensor in the joined model, where it is an input with a default.
        hole: its number in the table of holes.
        output: name of its gradient.
        level: index in `LEVELS` of the smallest set that holds it.
    """

    name: str
    hole: int
    output: str
    level: int


@dataclass(frozen=True)
class Statistic:
    """The mean or variance of a batch norm.

    Attributes:
        name: of the tensor in the joined model, where it is an input with a default.
        hole: its number in the table of holes.
        output: name of the output that has it of a batch.
    """

    name: str
    hole: int
    output: str


@dataclass(frozen=True)
class TrainingInfo:
    """What a training graph says of itself.

    Attributes:
        target: the input that the output is compared with.
        cross_entropy: name of the cross-entropy's factor.
        axis: axis of the classes; None where each element is a decision of its own.
        tensors: what can be trained.
        norms: mean and variance of each batch norm, in the order in which a run meets them.
        has_features: whether the scores are linear in the output FEATURES.
    """

    target: ValueInfo
    cross_entropy: str
    axis: int | None
    tensors: tuple[TrainedTensor, ...]
    norms: tuple[tuple[Statistic, Statistic], ...]
    has_features: bool


def scan_training(part: bytes | memoryview, skeleton: bytes | memoryview, holes: Sequence[HoleLike]) -> TrainingInfo:
    """Check a training graph, and return what it says of itself.

    Args:
        part: the training graph, unpacked.
        skeleton: the model that it belongs to.
        holes: of the same seed.

    Raises:
        FormatError: the part is none that our exporter writes, or doesn't belong to the skeleton.
        UnsupportedError: an operator or domain that a seed may not use.
    """
    info = onnx.scan(skeleton)
    numbers = {name: number for number, name in enumerate(check_holes(info, holes))}
    added, known = onnx_names.scan_addition(part), onnx_names.defined_names(skeleton)
    given = {value.name: value for value in added.inputs}
    made = [*given.keys() - numbers.keys(), *added.defined]
    if len(given) < len(added.inputs) or len(set(made)) < len(made):
        refuse("its training graph defines a name twice")
    if twice := known.intersection(made):
        refuse(f"its training graph defines {min(twice)!r}, which the model defines as well")
    for name in given.keys() & numbers.keys():
        hole = holes[numbers[name]]
        if given[name].elem_type != _FLOAT.code or hole.dtype is not _FLOAT or given[name].dims != hole.dims:
            refuse(f"its training graph states another type of {name!r} than its hole has")
    return _info(given, [value.name for value in added.outputs], numbers)


def _info(given: Mapping[str, ValueInfo], outputs: Sequence[str], numbers: Mapping[str, int]) -> TrainingInfo:
    own = [name for name in given if name not in numbers]
    entropies = [name for name in own if name == CROSS_ENTROPY or name.startswith(f"{CROSS_ENTROPY}.")]
    if len(entropies) != 1 or sorted(own) != sorted([TARGET, entropies[0], SQUARED_ERROR, COSINE]):
        refuse(
            f"its training graph needs the inputs {TARGET}, {CROSS_ENTROPY}, {SQUARED_ERROR} and {COSINE}, no others"
        )
    target = given[TARGET]
    axis = entropies[0].removeprefix(CROSS_ENTROPY)[1:]
    if target.elem_type != _FLOAT.code or not target.dims:
        refuse(f"the input {TARGET} of its training graph is no tensor of float32 with axes")
    if axis and not (axis.isascii() and axis.isdigit() and len(axis) < 3 and int(axis) < len(target.dims)):
        refuse(f"the input {entropies[0]!r} of its training graph names no axis of the target")
    tensors: list[TrainedTensor] = []
    statistics: dict[str, list[Statistic]] = {MEAN: [], VARIANCE: []}
    for output in outputs:
        role, _, name = output.rpartition(".")
        if output in (LOSS, FEATURES):
            continue
        if role not in (*LEVELS, *statistics) or name not in numbers or name not in given:
            refuse(f"its training graph has an output {output[:80]!r}, which is nothing of a weight that it takes")
        if role in statistics:
            statistics[role].append(Statistic(name, numbers[name], output))
        else:
            tensors.append(TrainedTensor(name, numbers[name], output, LEVELS.index(role)))
    names = [output.rpartition(".")[2] for output in outputs if output not in (LOSS, FEATURES)]
    if outputs.count(LOSS) != 1 or outputs.count(FEATURES) > 1 or len(set(names)) < len(names) or not tensors:
        refuse("the outputs of its training graph aren't one loss, and one gradient or statistic of each weight")
    if len(statistics[MEAN]) != len(statistics[VARIANCE]):
        refuse("its training graph has another number of means than of variances")
    norms = tuple(zip(statistics[MEAN], statistics[VARIANCE], strict=True))
    return TrainingInfo(target, entropies[0], int(axis) if axis else None, tuple(tensors), norms, FEATURES in outputs)
