"""How far the outputs move with each weight, by gradients and without a framework that trains."""

from __future__ import annotations

from typing import Final

import numpy as np

from seed_exporter.calibrate.statistic import Statistic, Subject
from seed_exporter.evaluate.model_files import write_model_files
from seed_exporter.gradients import gradient_graph, gradient_name, missing_rules
from seed_exporter.graph.index import GraphIndex
from seed_exporter.graph.kinds import FLOATS
from seed_runtime import backends
from seed_runtime.backends import Array
from seed_runtime.format.dtypes import BY_CODE
from seed_runtime.system.scratch import scratch_folder

_RNG_SEED: Final = 0
"""Random state of the directions, one for each feed: the same inputs give the same values."""


def _measure(subject: Subject) -> dict[str, float]:
    graph = subject.graph
    types = GraphIndex(graph).types
    outputs = [value.name for value in graph.model.graph.output if _is_float(types[value.name].tensor_type.elem_type)]
    wrt = [weight.name for weight in graph.weights.values() if weight.dtype.name in FLOATS]
    if not outputs or not wrt or not subject.feeds or missing_rules(graph, outputs, wrt):
        return {}
    rng = np.random.default_rng(_RNG_SEED)
    totals = dict.fromkeys(wrt, 0.0)
    built = gradient_graph(graph, outputs, wrt, keep_outputs=False)
    with scratch_folder(subject.folder) as forward_folder, scratch_folder(subject.folder) as folder:
        write_model_files(graph, forward_folder)
        write_model_files(built, folder)
        forward = backends.get().open(forward_folder, "fast", subject.jobs)
        backward = backends.get().open(folder, "fast", subject.jobs)
        try:
            for feeds in subject.feeds:
                found = forward.run(feeds, outputs)
                seeds = {gradient_name(name): _direction(found[name], rng) for name in outputs}
                slopes = backward.run({**feeds, **seeds})
                for name in wrt:
                    totals[name] += float(np.square(slopes[gradient_name(name)], dtype=np.float64).sum())
        finally:
            forward.close()
            backward.close()
    return {name: total / len(subject.feeds) for name, total in totals.items()}


def _direction(output: Array, rng: np.random.Generator) -> Array:
    """Return random signs over the output's norm, so that all outputs count equally."""
    norm = float(np.linalg.norm(output.astype(np.float64).reshape(-1)))
    return (rng.choice([-1.0, 1.0], output.shape) / (norm or 1.0)).astype(output.dtype)


def _is_float(code: int) -> bool:
    return code in BY_CODE and BY_CODE[code].name in FLOATS


SENSITIVITIES: Final = Statistic("the outputs' sensitivity to weights", _measure)
"""Squared relative error of the outputs that independent errors of variance 1 in all elements of a weight cause.

To first order, averaged over the inputs, and estimated from one random direction for each input.
None where there are no inputs, or an operator has no rule (`gradients.missing_rules`): measure by forward runs there.
Gradients of all weights are in memory at once, for one input at a time.
Source: Hutchinson, "A stochastic estimator of the trace of the influence matrix" (1990).
"""
