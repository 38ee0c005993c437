"""The line that a seed's damage has to stay under: what `--quality` asks for, and what the default promises."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from seed_exporter.evaluate.damage import Metric, has_rows, is_probabilities, judged_outputs, metric_of
from seed_exporter.evaluate.mixed import NO_MIXES, Mixed
from seed_exporter.evaluate.user_metric import Calls
from seed_exporter.graph.index import GraphIndex
from seed_exporter.graph.model import Graph
from seed_runtime.backends import Array

DECIDED: Final = 0.995
"""Share of equal decisions that a seed keeps by default, where outputs are scores."""
COSINE: Final = 0.999
"""Mean cosine that a seed keeps by default, where they are not."""
GENERATED_STRICTNESS: Final = 0.01
"""Factor on what cosines may lose by default where inputs were generated, because these mislead. Loss on generated and
on real inputs: PP-OCR's classifier of directions 4.0e-4 and 1.3e-3 at 6x, 5.1e-3 and 2.4e-2 at 9x, its recognition
6.8e-5 and 1.5e-4 at 4.2x, Magika 2.3e-3 and 5.0e-6 at 6x: real inputs lose up to 5 times as much. It was 160 times with
Gaussian numbers in place of smooth pictures, and other models may be excited as badly by what is generated now."""
_FEW: Final = 0.2
"""Most that scores' cosine may lose for each share of decisions that may be lost, where there are almost enough
decisions to show that share; with fewer decisions it is less in proportion. Without it, Magika kept a share of .001 on
16 files at 29x, and lost .03 on 64 others."""
_MANY: Final = 2.0
"""The same where there are enough decisions: it matters only where one score is the largest whatever the input."""
_MIXED: Final = 4.0
"""How many times the loss of the cosine on unseen inputs mixed ones may lose, where few decisions are judged: they lost
4 to 12 times as much on Magika at 6x to 10x, 5 to 9 times on PP-OCR's classifier of directions."""
_LIMIT_LEAST: Final = 1e-10
"""Damage that is never too much: folding batch norms into weights moves outputs by fp32's rounding, a relative error of
1e-6 to 1e-5 or half its square in the cosine. A finite ratio to it also orders what misses a quality of 1."""
_PASSES_ON: Final = frozenset({"Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze"})
_LINEAR: Final = frozenset({"Gemm", "MatMul"})


@dataclass(frozen=True)
class Line:
    """Limits of damage, all of which a seed has to keep.

    Attributes:
        criteria: metrics with the largest damage by each.
        text: what they ask for, for people.
        required: True if the user asked for it. Where the default's line can't be kept, the seed has the largest size
            that the default takes.
        mixed: calls made of the given ones, which are judged beside them.
        mixed_criteria: the same as `criteria` for these.
    """

    criteria: tuple[tuple[Metric, float], ...]
    text: str
    required: bool
    mixed: Mixed = NO_MIXES
    mixed_criteria: tuple[tuple[Metric, float], ...] = ()

    def excess(self, original: Calls, candidate: Calls, feeds: Calls = ()) -> float:
        """Compute the largest ratio of a damage to its limit: at most 1 if all limits are kept.

        Args:
            original: the original's outputs.
            candidate: the candidate's, and behind them those for the mixed calls.
            feeds: the inputs.
        """
        given, others = candidate[: len(original)], candidate[len(original) :]
        ratios = [
            metric.damage(original, given, feeds) / max(limit, _LIMIT_LEAST) for metric, limit in self.criteria
        ] + [
            metric.damage(self.mixed.outputs, others, self.mixed.feeds) / max(limit, _LIMIT_LEAST)
            for metric, limit in self.mixed_criteria
        ]
        return max((math.inf if math.isnan(ratio) else ratio for ratio in ratios), default=0.0)


def line_by_metric(metric: Metric, quality: float) -> Line:
    """Return the line of `--quality` with `--metric`: a damage of at most 1 - quality."""
    return Line(((metric, 1 - quality),), f"a damage of at most {1 - quality:.4g} by {metric.name}", True)


def line_by_outputs(
    original: Calls,
    noisy: Collection[str],
    scores: Collection[str],
    quality: float | None = None,
    strictness: float = 1,
    mixed: Mixed = NO_MIXES,
    least: float | None = None,
) -> Line | None:
    """Return the line of `--quality` alone, or the default's: decisions where there are any, else the cosine.

    Few decisions can't show a share such as .995, so the cosine of their scores has to be high as well: with almost 200
    decisions it may lose .001 by default, with 20 a tenth of that. On mixed calls it may lose .004 however few these
    are, and decisions may change.

    Args:
        original: the original's outputs.
        noisy: outputs that noise decides.
        scores: outputs that the graph says are scores (`score_outputs`); probabilities are found without.
        quality: share of decisions or mean cosine; None for DECIDED and COSINE.
        strictness: factor on what cosines may lose.
        mixed: calls made of the given ones.
        least: share of decisions, and cosine, in place of DECIDED and COSINE.

    Returns:
        None if noise decides all outputs.
    """
    asked_for = least if quality is None else quality
    lost = 1 - (DECIDED if asked_for is None else asked_for)
    lost_cosine = strictness * (1 - (COSINE if asked_for is None else asked_for))
    names = {name for call in original for name in call}
    judged = judged_outputs([{name: array for name, array in call.items() if name not in noisy} for call in original])
    criteria: list[tuple[Metric, float]] = []
    mixed_criteria: list[tuple[Metric, float]] = []
    decides, few = False, math.inf
    for name in judged:
        arrays = [call[name] for call in original if name in call]
        others = names - {name}
        if not has_rows(arrays):
            # 1 - cosine is about half of the squared relative error; texts are equal or not.
            is_text = arrays[0].dtype.kind == "O"
            criteria.append((metric_of("relative", others), lost if is_text else 2 * lost_cosine))
            mixed_criteria.append(criteria[-1])
        elif name in scores or is_probabilities(arrays):
            decides = True
            # Number of decisions that may be lost; below 1, a single lost one is too many.
            shown = _rows(arrays) * lost
            factor = _MANY if shown >= 1 else _FEW * shown
            criteria.append((metric_of("agreement", others), lost))
            criteria.append((metric_of("cosine", others), strictness * lost * factor))
            # Of mixed calls a single lost decision is not too many where they are few: they are harder.
            many = _rows([call[name] for call in mixed.outputs if name in call]) * lost >= 1
            factor = _MANY if many else _MIXED * _FEW
            mixed_criteria.append((metric_of("cosine", others), strictness * lost * factor))
            if many:
                mixed_criteria.append((metric_of("agreement", others), lost))
            few = few if shown >= 1 else min(few, strictness * lost * factor)
        else:
            criteria.append((metric_of("cosine", others), lost_cosine))
            mixed_criteria.append(criteria[-1])
    if not criteria:
        return None
    asked = f"{1 - lost:.4g} of the decisions" if decides else f"a cosine of {1 - lost_cosine:.6g}"
    if few < math.inf:
        asked += f" and, as these are few, a cosine of {1 - few:.10g}"
    if not mixed.feeds:
        return Line(tuple(criteria), asked, quality is not None)
    least = 1 - (strictness * lost * _MIXED * _FEW if decides else lost_cosine)
    asked += f", and on {len(mixed.feeds)} mixes of the inputs a cosine of {least:.6g}"
    return Line(tuple(criteria), asked, quality is not None, mixed, tuple(mixed_criteria))


def score_outputs(graph: Graph) -> frozenset[str]:
    """Return the outputs that a dense layer or a softmax makes: their largest entry is taken for a decision."""
    index = GraphIndex(graph)
    producers = {output: node for node in index.nodes for output in node.output}
    found = set()
    for value in graph.model.graph.output:
        node = producers.get(value.name)
        while node is not None and node.op_type in _PASSES_ON:
            node = producers.get(node.input[0])
        if node is not None and node.op_type == "Add":
            node = next((producers[name] for name in node.input if name in producers), None)
        if node is not None and (
            node.op_type in ("Softmax", "LogSoftmax")
            or (node.op_type in _LINEAR and any(name in graph.weights for name in node.input[:2]))
        ):
            found.add(value.name)
    return frozenset(found)


def _rows(arrays: Sequence[Array]) -> int:
    return sum(array.size // array.shape[-1] for array in arrays)
