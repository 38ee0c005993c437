"""A graph while it is healed: its matrices, vectors and batch norms, how it is run, and the plans that it ends in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from seed_exporter.codecs.base import Plan
from seed_exporter.codecs.exact import ExactPlan
from seed_exporter.codecs.grid import GridPlan
from seed_exporter.graph.fold import fold_batch_norms
from seed_exporter.graph.kinds import FLOATS, MATRIX_MIN, Kind, kind_of
from seed_exporter.graph.linear import is_linear
from seed_exporter.graph.matrix import as_float32, coded_view, fits_a_stream
from seed_exporter.graph.model import Graph, Weight
from seed_exporter.heal import vectors
from seed_exporter.heal.batch_norms import BatchNorms, find_pairs, with_constants
from seed_exporter.heal.cuts import CutDead, CutStudent, Of, cut_matrices, inline_arrays, places_of
from seed_exporter.heal.gates import Gates
from seed_exporter.heal.interpreter import Interpreter
from seed_exporter.heal.matrices import Rate, TrainedMatrices, row_matrix
from seed_exporter.heal.starts import decoded, grids_of, stays
from seed_exporter.heal.vectors import TrainedVector
from seed_exporter.shrink.places import Places
from seed_runtime.codecs.encode.grid import QuantizedMatrix
from seed_runtime.codecs.symbols import STEP_LEAST

_SMALL_MATRIX = MATRIX_MIN // 16
"""Elements from which a weight that multiplies inputs is trained as a matrix: kernels of depthwise convolutions."""
_RANGED = frozenset({"DequantizeLinear", "QuantizeLinear", "Pow", "Sqrt", "Log", "Reciprocal", "Div"})
"""Operators whose inputs must stay in a range."""


class StudentGraph:
    """What is trained, first with its batch norms where they learn from batches, then folded.

    Args:
        graph: the original.
        folded: the same without the batch norms behind convolutions; its weights are what a seed holds.
        kept: names of values between nodes that `run` returns beside the outputs, in both graphs.
        batch_norms: whether batches are large enough for batch norms to learn from.
        step: quantization step at the start, in standard deviations of a matrix.
        device: where it is computed.
        plans: of the folded graph's weights, to start from instead; no batch norm and no table is trained then, and
            rows of zeros keep their biases.
    """

    def __init__(
        self,
        graph: Graph,
        folded: Graph,
        kept: Sequence[str],
        batch_norms: bool,
        step: float,
        device: torch.device,
        plans: Mapping[str, Plan] | None = None,
    ) -> None:
        self._folded, self._kept, self.device = folded, kept, device
        with_norms = fold_batch_norms(graph, {"ConvTranspose"})
        pairs = find_pairs(with_norms, folded) if batch_norms and plans is None else []
        self.norms = BatchNorms(pairs, device) if pairs else None
        start = with_norms if pairs else folded
        paired = {pair.weight for pair in pairs}
        grids = {} if plans is None else grids_of(folded, plans)
        trained = [each for each in start.weights.values() if plans is None or not stays(each)]
        if plans is not None:
            # Factors and integers on a trellis stay as they are.
            trained = [each for each in trained if each.name in grids or isinstance(plans[each.name], ExactPlan)]
        # What a search kept as floats, such as small kernels, is trained on a fine grid, as vectors are.
        matrices = [
            each
            for each in trained
            if each.name in paired or (_is_matrix(each) and (plans is None or each.name in grids))
        ]
        self.matrices = TrainedMatrices(matrices, step, device, grids)
        held = self.matrices.names
        self.vectors = {
            each.name: TrainedVector(as_float32(each), device, plan=grids.get(each.name), fine=plans is not None)
            for each in trained
            if each.name not in held and vectors.is_trainable(each) and not self._of_norm(start, each.name)
        }
        self._interpreter = Interpreter(
            start, device=device, kept=kept, replaced=self.norms.operators() if self.norms else None
        )
        self._others = self._interpreter.weights()
        if plans is not None:
            left = decoded(folded, plans, folded.weights.keys() - held - self.vectors.keys())
            self._others |= {name: self._interpreter.tensor(array) for name, array in left.items()}
        self._paired = paired
        self._gates = Gates(folded, held, paired)
        self._biases: dict[str, str] = {}
        if plans is None:
            # Beside a search's rows of zeros they matter: without them MiniLM-L6's damage rose from .115 to .123.
            self._biases = {bias: owner for bias, owner in self._gates.biases.items() if bias in self.vectors}
        self.rounds_vectors = plans is not None

    @property
    def is_folded(self) -> bool:
        """True where no batch norm learns (any more)."""
        return self.norms is None

    def parameters(self) -> dict[str, list[Tensor]]:
        """Return what is trained, by kind."""
        found = self.matrices.parameters()
        found["vectors"] = [vector.units for vector in self.vectors.values()]
        found["norms"] = self.norms.parameters() if self.norms else []
        return found

    def weights(self) -> tuple[dict[str, Tensor], Rate]:
        """Return all weights of the graph as it is now, differentiable, and the rate of its matrices."""
        found, rate = self.matrices.weights()
        living = self._gates.living(found, rate.living)
        if self.norms is not None:
            self.norms.living = living
        shaped = {}
        for name, vector in self.vectors.items():
            values = vector.values(self.rounds_vectors)
            if (owner := self._biases.get(name)) is not None:
                values = values * living[owner]
            shaped[name] = values.view(self._shape(name))
        return self._others | found | shaped, rate

    def run(self, feed: Mapping[str, Tensor], weights: Mapping[str, Tensor], learn: bool = False) -> dict[str, Tensor]:
        """Compute outputs, and the values that were to be kept.

        Args:
            feed: inputs.
            weights: of `weights`.
            learn: let batch norms use and learn the statistics of this batch.
        """
        if self.norms is not None:
            self.norms.learn = learn
        return self._interpreter.run(feed, weights)

    def fold(self, batches: Sequence[Mapping[str, Tensor]]) -> None:
        """Estimate statistics with the quantized weights, and fold batch norms into rows' steps and biases.

        From here on vectors are rounded.

        Args:
            batches: inputs to estimate on.
        """
        self.rounds_vectors = True
        if self.norms is None:
            return
        with torch.no_grad():
            weights, _ = self.weights()
            for number, feed in enumerate(batches):
                self.norms.start_estimate(number)
                self.run(feed, weights, learn=True)
            self.norms.end_estimate()
        living = self.norms.living
        for pair in self.norms.pairs:
            factor, shift = self.norms.folded(pair)
            alive = living[pair.weight].cpu().numpy() > 0
            self.matrices.turn_rows(pair.weight, factor)
            size = np.maximum(np.abs(factor), 1e-30)
            if alive.any():
                # Dead rows must not choose the grid of the others.
                size[~alive] = size[alive].mean()
                shift[~alive] = shift[alive].mean()
            self.matrices.set_row_codes(pair.weight, size)
            least = 1e-3 * float(np.abs(shift).max(initial=0))
            self.vectors[pair.bias] = TrainedVector(shift, self.device, least)
            self._biases[pair.bias] = pair.weight
        self.norms = None
        self._interpreter = Interpreter(self._folded, device=self.device, kept=self._kept)
        self._others = self._interpreter.weights()

    def cut(self, others: Mapping[str, Plan], cut_dead: CutDead) -> CutStudent | None:
        """Go on without what is dead; what is left computes the same, and goes on from where it is.

        A bias that takes up a constant isn't trained any more. Rows' own steps, which a cut may not lay out along rows
        of what is left, and batch norms that aren't folded yet are reasons to leave everything as it is.

        Args:
            others: plans of the weights that aren't trained.
            cut_dead: cuts a graph and its plans.

        Returns:
            What was cut; None where nothing was.
        """
        if not self.is_folded:
            return None
        whole, places = self.finished(), Places()
        plans = {name: each for name, each in (dict(others) | self.plans()).items() if name in whole.weights}
        graph, left = cut_dead(whole, plans, places)
        if graph is whole:
            return None
        kept = [each for name, each in graph.weights.items() if name in self.matrices.names]
        found = cut_matrices(self.matrices, whole.weights, kept, places)
        if found is None:
            return None
        with torch.no_grad():
            decoded, _ = self.weights()
        interpreter = Interpreter(graph, device=self.device, kept=self._kept)
        matrices, follow_matrices = found
        before, arrays = self.vectors, inline_arrays(graph)
        arrays |= {name: as_float32(each) for name, each in graph.weights.items() if name in before}
        left_vectors: dict[str, TrainedVector] = {}
        for name, vector in before.items():
            if name not in arrays:
                continue
            values, units = (places_of(each, self._shape(name), name, places) for each in (decoded[name], vector.units))
            # Else it takes up a constant.
            if np.array_equal(values.numpy(), arrays[name].reshape(-1)):
                left_vectors[name] = vector.cut(units)
        shapes = {name: self._shape(name) for name in before}
        # From here on nothing fails: a student is cut whole, or not at all.
        self.matrices, self.vectors = matrices, left_vectors
        self._folded, self._interpreter = graph, interpreter
        self._others = self._interpreter.weights()
        self._paired |= set(self._biases.values())
        self._gates = Gates(graph, self.matrices.names, self._paired)
        gated = self._biases.keys() & self._gates.biases.keys() & self.vectors.keys()
        self._biases = {bias: self._gates.biases[bias] for bias in sorted(gated)}

        def follow(of: Of) -> dict[Tensor, Tensor]:
            moved = follow_matrices(of)
            for name, vector in self.vectors.items():
                belonging = of(before[name].units)
                if belonging is not None:
                    moved[vector.units] = places_of(belonging, shapes[name], name, places)
            return moved

        return CutStudent(left, follow)

    def snapshot(self) -> dict[str, np.ndarray]:
        """Return a copy of all that is trained, and of what its grids are."""
        held = self._tensors()
        found = {name: tensor.detach().cpu().numpy().copy() for name, tensor in held.items()}
        found["steps"] = np.array([vector.step for vector in self.vectors.values()], np.float64)
        return found | {"is_folded": np.array(self.is_folded), "rounds": np.array(self.rounds_vectors)}

    def rounded_snapshot(self) -> dict[str, np.ndarray]:
        """Return the same with matrices rounded: all that plans need, and mostly zeros."""
        rounded = {f"units/{index}": each.cpu().numpy() for index, each in enumerate(self.matrices.rounded())}
        return self.snapshot() | rounded

    def restore(self, snapshot: Mapping[str, np.ndarray]) -> None:
        """Go on to a state that `snapshot` gave of the same graph, of this time or later.

        Raises:
            ValueError: it is of another graph.
        """
        if snapshot["rounds"] and not self.rounds_vectors:
            self.fold([])
        held = self._tensors()
        if any(name not in snapshot or snapshot[name].shape != tuple(each.shape) for name, each in held.items()):
            raise ValueError("arrays are missing, or have other shapes")
        with torch.no_grad():
            for name, tensor in held.items():
                tensor.copy_(torch.from_numpy(snapshot[name]))
        for vector, step in zip(self.vectors.values(), snapshot["steps"], strict=True):
            vector.step = float(step)

    def _tensors(self) -> dict[str, Tensor]:
        found = {
            f"{kind}/{index}": tensor
            for kind, tensors in self.parameters().items()
            for index, tensor in enumerate(tensors)
        }
        found |= {f"starts/{index}": steps for index, steps in enumerate(self.matrices.starts())}
        statistics = self.norms.statistics() if self.norms else []
        return found | {f"statistics/{index}": tensor for index, tensor in enumerate(statistics)}

    def plans(self) -> dict[str, Plan]:
        """Plan to code what is trained as it is now, in the folded graph."""
        matrices = self.matrices.quantized()
        alive = self._gates.living_of(matrices)
        found = {}
        for name, vector in self.vectors.items():
            if name in self._folded.weights:
                found[name] = self._gated(name, vector, alive)
        if self.norms is not None:
            for pair in self.norms.pairs:
                factor, shift = self.norms.folded(pair)
                matrices[pair.weight] = row_matrix(matrices[pair.weight], factor)
                if pair.bias in self._folded.weights:
                    weight = self._folded.weights[pair.bias]
                    vector = TrainedVector(shift * alive[pair.weight], torch.device("cpu"))
                    found[pair.bias] = vector.quantized(coded_view(weight))
        return {name: GridPlan.of_narrow(matrix) for name, matrix in (matrices | found).items()}

    def finished(self) -> Graph:
        """Return the folded graph, with what is trained of it but isn't among its weights."""
        inline: dict[str, np.ndarray] = {}
        pairs = [] if self.norms is None else [p for p in self.norms.pairs if p.bias not in self._folded.weights]
        names = [name for name in self.vectors if name not in self._folded.weights]
        if pairs or names:
            with torch.no_grad():
                weights, _ = self.weights()
            inline = {name: weights[name].cpu().numpy() for name in names}
        for pair in pairs:
            assert self.norms is not None
            inline[pair.bias] = self.norms.folded(pair)[1] * self.norms.living[pair.weight].cpu().numpy()
        return with_constants(self._folded, inline)

    def _gated(self, name: str, vector: TrainedVector, alive: Mapping[str, np.ndarray]) -> QuantizedMatrix:
        matrix = vector.quantized(coded_view(self._folded.weights[name]))
        owner = self._biases.get(name)
        if owner is None:
            return matrix
        return QuantizedMatrix(matrix.integers * alive[owner].reshape(matrix.integers.shape), matrix.step)

    def _shape(self, name: str) -> tuple[int, ...]:
        weight = self._folded.weights.get(name)
        return (-1,) if weight is None else weight.shape

    def _of_norm(self, graph: Graph, name: str) -> bool:
        """Return whether a vector is one of a batch norm that is trained beside, or the bias before it."""
        return self.norms is not None and name not in self._folded.weights


def _is_matrix(weight: Weight) -> bool:
    axes = sum(size > 1 for size in weight.shape)
    if weight.dtype.name not in FLOATS or axes < 2 or weight.count < _SMALL_MATRIX or not fits_a_stream(weight):
        return False
    if kind_of(weight) is not Kind.MATRIX and not any(is_linear(use) for use in weight.uses):
        return False
    if any(use.op in _RANGED for use in weight.uses):
        return False
    spread = float(as_float32(weight).std(dtype=np.float64))
    return np.isfinite(spread) and spread > STEP_LEAST
