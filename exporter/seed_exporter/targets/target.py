"""Interface of a target: what the device holds of a planned model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx

from seed_exporter.codecs.base import Plan
from seed_exporter.codecs.raw import RawPlan
from seed_exporter.graph.edit import FreshNames, drop_initializers, drop_unused, rename_uses
from seed_exporter.graph.index import with_uses
from seed_exporter.graph.messages import copy_of
from seed_exporter.graph.model import INLINE_MAX, Graph, Weight
from seed_exporter.targets.grids import Rounding
from seed_exporter.targets.ranges import Ranges
from seed_runtime.format.dtypes import BY_CODE

MICROSOFT = "com.microsoft"
"""Domain of ONNX Runtime's own operators."""

Plans = Mapping[str, Plan]


@dataclass(frozen=True)
class Lowered:
    """A planned model as the device holds it, and the plans of its weights."""

    graph: Graph
    plans: Plans


@dataclass(frozen=True)
class Measured:
    """What calibration inputs told of a model.

    Attributes:
        ranges: of values that convolutions read and make, in which they are rounded; none where convolutions get
            floats.
        rounding: rounds weights in blocks; None for to nearest.
    """

    ranges: Ranges = field(default_factory=dict)
    rounding: Rounding | None = None


@dataclass(frozen=True)
class Target:
    """One word of `--dtype`.

    Attributes:
        name: the word.
        lower: rewrites a planned graph to what the device runs; None where the device runs the graph as it is.
        restricted: what an export may not do for fewer bytes, by the names of `Effort`'s fields: the target's grids
            have no place for it.
        is_exact: True if the device computes in floats with what was planned, so that outputs are those of the plans.
        decided: share of equal decisions, and cosine, that a seed keeps where no goal is given; None for what a seed of
            floats keeps.
        rounds: names of the values between nodes that a graph's convolutions would round; None where none do.
        blocks: True if weights are rounded in blocks, for which covariances of their inputs are measured at any effort.
        measured: what calibration inputs told.
        fallback: word of the target that computes in floats, for models that lose too much; None for none.
    """

    name: str
    lower: Callable[[Graph, Plans, Measured], Lowered] | None = None
    restricted: frozenset[str] = frozenset()
    is_exact: bool = True
    decided: float | None = None
    rounds: Callable[[Graph], Sequence[str]] | None = None
    blocks: bool = False
    measured: Measured = field(default_factory=Measured)
    fallback: str | None = None

    def lowered(self, graph: Graph, plans: Plans) -> Lowered:
        """Return a planned model as the device holds it."""
        return Lowered(graph, plans) if self.lower is None else self.lower(graph, plans, self.measured)


class Rewriting:
    """Collects what changes in a graph's nodes and weights, and makes the new graph.

    Args:
        graph: the graph; it isn't changed.
        plans: of its weights.
    """

    def __init__(self, graph: Graph, plans: Plans) -> None:
        self.graph = graph
        self.names = FreshNames(graph)
        self._weights, self._plans = dict(graph.weights), dict(plans)
        self._replaced: dict[str, list[onnx.NodeProto]] = {}
        self._first: list[onnx.NodeProto] = []
        self._small: list[onnx.TensorProto] = []
        self._shared: dict[tuple[bytes, str, tuple[int, ...]], str] = {}
        self._renamed: dict[str, str] = {}
        self._inputs: dict[tuple[str, int], str] = {}
        self._behind: dict[str, list[onnx.NodeProto]] = {}

    def replace_weight(self, name: str, weight: Weight, plan: Plan) -> None:
        """Put another weight in the place of one, under a name of its own."""
        self._weights = {
            each.name: each for old, own in self._weights.items() for each in (weight if old == name else own,)
        }
        self._plans = {**{old: each for old, each in self._plans.items() if old != name}, weight.name: plan}

    def add_weight(self, weight: Weight, plan: Plan) -> None:
        """Add a weight."""
        self._weights[weight.name], self._plans[weight.name] = weight, plan

    def constant(self, wanted: str, array: np.ndarray) -> str:
        """Add a constant, a weight of its own where it is large; return its name."""
        array = np.asarray(array, order="C")  # a scalar has no axis, as operators ask
        tensor = onnx.numpy_helper.from_array(array)
        key = array.tobytes(), str(array.dtype), array.shape
        if key in self._shared:
            return self._shared[key]
        name = self._shared[key] = self.names.take(wanted)
        if array.nbytes >= INLINE_MAX:
            self.add_weight(Weight(name, BY_CODE[tensor.data_type], array.shape, array), RawPlan())
        else:
            tensor.name = name
            self._small.append(tensor)
        return name

    def prepend(self, *nodes: onnx.NodeProto) -> None:
        """Add nodes that read weights and constants alone, before all others."""
        self._first += nodes

    def replace_node(self, node: onnx.NodeProto, *nodes: onnx.NodeProto) -> None:
        """Put other nodes in the place of one of the main graph, which is known by its first result."""
        self._replaced[node.output[0]] = list(nodes)

    def append_behind(self, node: onnx.NodeProto, *nodes: onnx.NodeProto) -> None:
        """Add nodes behind one of the main graph."""
        self._behind.setdefault(node.output[0], []).extend(nodes)

    def rename_readers(self, name: str, new: str) -> None:
        """Make all nodes of the old graph, and what takes their place, read another value."""
        self._renamed[name] = new

    def replace_input(self, node: onnx.NodeProto, place: int, name: str) -> None:
        """Make one node of the main graph read another value at one place, which may be the next behind its last."""
        self._inputs[node.output[0], place] = name

    def lowered(self) -> Lowered:
        """Make the new graph and its plans."""
        old = rename_uses(self.graph.model.graph, self._renamed)
        nodes = list(self._first)
        for node in old.node:
            out = node.output[0] if node.output else ""
            for own in self._replaced.get(out, [node]):
                changed = onnx.NodeProto()
                changed.CopyFrom(own)
                for place, name in enumerate(own.input):
                    changed.input[place] = self._inputs.get((out, place), self._renamed.get(name, name))
                if (added := self._inputs.get((out, len(own.input)))) is not None:
                    changed.input.append(added)
                nodes.append(changed)
            nodes += self._behind.get(out, [])
        tensors = [
            onnx.TensorProto(name=weight.name, data_type=weight.dtype.code, dims=weight.shape)
            for weight in self._weights.values()
            if weight.name not in self.graph.weights
        ]
        gone = self.graph.weights.keys() - self._weights.keys()
        main = drop_unused(
            copy_of(
                drop_initializers(old, gone),
                node=nodes,
                initializer=[
                    *(tensor for tensor in old.initializer if tensor.name not in gone), *tensors, *self._small
                ],
            )
        )  # fmt: skip
        model = onnx.ModelProto()
        model.CopyFrom(self.graph.model)
        model.graph.CopyFrom(main)
        domains = {each.domain for each in model.opset_import}
        if MICROSOFT not in domains and any(node.domain == MICROSOFT for node in nodes):
            model.opset_import.add(domain=MICROSOFT, version=1)
        held = {tensor.name for tensor in main.initializer}
        weights = {name: weight for name, weight in self._weights.items() if name in held}
        graph = with_uses(replace(self.graph, model=model, weights=weights))
        return Lowered(graph, {name: self._plans[name] for name in graph.weights})
