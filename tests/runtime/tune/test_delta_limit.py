"""Sizes of deltas that a run allows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import seed_runtime
from seed_runtime.delta import write_delta
from seed_runtime.tune import delta_limit
from seed_runtime.tune.delta_limit import DeltaLimit
from seed_runtime.tune.records import FULL, SMALL, Settings
from tests.support.model_seeds import classifier


@pytest.mark.parametrize("coded_most", [0, 1 << 16])
def test_a_delta_is_allowed_exactly_up_to_its_size_or_about(
    coded_most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delta_limit, "CODED_MOST", coded_most)
    path = tmp_path / "model.seed"
    path.write_bytes(classifier())
    seed, rng = seed_runtime.open(path), np.random.default_rng(0)
    steps = dict.fromkeys(range(len(seed.header.holes)), 0.25)
    with seed.assembled_weights() as weights:
        values = {
            number: weights.read(number, 0, hole.count).reshape(hole.dims)
            + (0.25 * np.rint(2 * rng.standard_normal(hole.dims))).astype(np.float32)
            for number, hole in enumerate(seed.header.holes)
        }
        assert seed.golden is not None
        size = write_delta(
            seed,
            values,
            tmp_path / "d",
            mode=SMALL,
            scores=("accuracy", 0.1, 0.2),
            golden=seed.golden.pack(),
            step=lambda hole, _: steps[hole],
        )
        slack = 0 if coded_most else 700  # header, golden sample, tables and lanes
        for most, allowed in ((size, True), (size - 1 - slack, False)):
            limit = DeltaLimit(seed, weights, Settings(delta_size=most))
            assert limit.allows(SMALL, "accuracy", values, steps) == allowed


def test_deltas_may_take_a_tenth_of_the_seed_or_4_kb_but_those_of_all_weights_any_size(tmp_path: Path) -> None:
    path = tmp_path / "model.seed"
    path.write_bytes(classifier())
    seed = seed_runtime.open(path)
    with seed.assembled_weights() as weights:
        limit = DeltaLimit(seed, weights, Settings())
        assert limit.largest(SMALL) == max(4000, path.stat().st_size // 10)
        assert limit.largest(FULL) is None
        assert DeltaLimit(seed, weights, Settings(delta_size=77)).largest(FULL) == 77
