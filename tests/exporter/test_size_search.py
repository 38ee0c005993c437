"""Finding the coarseness for a size, with few sizes and whatever the estimate says."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from seed_exporter.build.streams import encode
from seed_exporter.quantize.rate import COARSEST, FINEST, RateModel
from seed_exporter.quantize.size_search import fit
from tests.exporter.support.exporting import graph_of, uniform, units_of

ELEMENTS = 1 << 20


class Estimate(RateModel):
    """Of a Gaussian model, without one."""

    def __init__(self) -> None:
        self.elements = ELEMENTS
        self._samples = [(ELEMENTS, np.random.default_rng(0).standard_normal(4096).astype(np.float32))]


class Seed:
    """Sizes of imagined seeds: the estimate times `factor`, plus `rest`; notes what was asked."""

    def __init__(self, factor: float = 1.0, rest: int = 0, wobble: Callable[[float], float] = lambda _: 0.0) -> None:
        self.factor, self.rest, self.wobble = factor, rest, wobble
        self.asked: list[float] = []

    def size_at(self, coarseness: float) -> int:
        self.asked.append(coarseness)
        return int(Estimate().bytes_at(coarseness) * self.factor + self.rest + self.wobble(coarseness))


@pytest.mark.parametrize("goal", [40_000, 100_000, 300_000, 900_000])
@pytest.mark.parametrize(("factor", "rest"), [(1.0, 0), (0.7, 0), (1.3, 0), (0.9, 30_000)])
def test_the_goal_is_kept_and_used_whatever_the_estimate_leaves_out(goal: int, factor: float, rest: int) -> None:
    seed = Seed(factor, rest)
    found = fit(Estimate(), goal, seed.size_at)
    assert found.met
    assert 0.97 * goal <= seed.size_at(found.coarseness) <= goal
    assert len(seed.asked) <= 8


def test_a_goal_beyond_reach_says_so_and_gives_the_coarsest() -> None:
    seed = Seed(rest=50_000)
    found = fit(Estimate(), 40_000, seed.size_at)
    assert (found.coarseness, found.met) == (COARSEST, False)


def test_a_goal_larger_than_the_finest_gives_the_finest() -> None:
    seed = Seed()
    found = fit(Estimate(), 1 << 40, seed.size_at)
    assert (found.coarseness, found.met) == (FINEST, True)
    assert len(seed.asked) <= 2


def test_sizes_that_stay_just_above_the_goal_end_near_it_and_not_at_nothing() -> None:
    # Each answer is 2 % above the goal until the step has grown by a half: no estimate foresees that.
    goal = 300_000
    start = Estimate().coarseness_for(goal)
    sizes: list[int] = []

    def size_at(coarseness: float) -> int:
        sizes.append(int(goal * (1.02 if coarseness < 1.5 * start else 0.5)))
        return sizes[-1]

    found = fit(Estimate(), goal, size_at)
    assert found.met
    assert found.coarseness < 2.5 * start
    assert len(sizes) <= 12


def test_an_uneven_size_still_keeps_the_goal() -> None:
    seed = Seed(wobble=lambda coarseness: 3000 * math.sin(1000 * coarseness))
    found = fit(Estimate(), 300_000, seed.size_at)
    assert found.met
    assert seed.size_at(found.coarseness) <= 300_000


def test_the_estimate_is_near_the_coded_size_of_gaussian_weights(rng: np.random.Generator) -> None:
    graph = graph_of(w=rng.standard_normal((256, 256)).astype(np.float32))
    model = RateModel(graph, units_of(graph))
    assert model.elements == 1 << 16
    for coarseness in (0.05, 0.3, 1.0):
        coded = encode(graph, uniform(graph, coarseness, 23), jobs=1)[0].size
        assert model.bytes_at(coarseness) == pytest.approx(coded, rel=0.05, abs=600)


def test_coarseness_for_a_size_undoes_bytes_at() -> None:
    model = Estimate()
    for size in (50_000, 500_000):
        assert model.bytes_at(model.coarseness_for(size)) == pytest.approx(size, rel=0.01)
