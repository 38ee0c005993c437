"""The tier `bn` on models that quantization damaged: channels without variance, statistics that overflow."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from seed_runtime.seed import Seed
from seed_runtime.tune import Settings, TuneResult, tune
from seed_runtime.tune.norms import Statistics
from tests.support.shared import SharedFolder
from tests.support.tuned_model import STILLED, damaged_seed, data


@pytest.fixture(scope="session")
def seed_of(shared_folder: SharedFolder) -> Callable[[str], Seed]:
    return lambda damage: damaged_seed(shared_folder, damage)


def run(seed: Seed) -> TuneResult:
    return tune(seed, {"x": data()["x"]}, Settings(mode="bn", threads=1))


def test_a_channel_that_quantization_stilled_keeps_its_learned_variance(seed_of) -> None:
    found = run(seed_of("stilled"))
    first = [value for value in found.tensors.values() if len(value) == 12 and value.min() > 0.1]
    assert len(first) == 1
    assert first[0][:STILLED] == pytest.approx(1.3)
    assert (abs(first[0][STILLED:] - 1.3) > 0.01).any()


def test_statistics_that_are_no_numbers_end_the_estimate_and_those_before_stay(seed_of, monkeypatch) -> None:
    seen, calls = Statistics._seen, []

    def overflow(self, rows, values):
        calls.append(len(rows))
        found = seen(self, rows, values)
        return {name: value + np.float32(np.inf) for name, value in found.items()} if len(calls) == 3 else found

    monkeypatch.setattr(Statistics, "_seen", overflow)
    found = run(seed_of("bn"))
    assert found.mode == "bn"
    assert all(np.isfinite(value).all() for value in found.tensors.values())
