"""How many samples are computed at once under a limit."""

from __future__ import annotations

import numpy as np
import pytest

from seed_runtime.errors import MemoryBudgetError
from seed_runtime.memory.cgroup import CgroupLimit
from seed_runtime.memory.process import Usage
from seed_runtime.tune import micro_batches
from seed_runtime.tune.micro_batches import Budget, pieces

MB = 1_000_000


class Peaks(list[int]):
    """Sizes of runs, of which n samples peak at 100 MB + n * 10 MB."""

    since = 0

    def reset(self) -> bool:
        self.since = len(self)
        return True

    def peak(self) -> int:
        return 100 * MB + 10 * MB * max(self[self.since :], default=0)


@pytest.fixture
def peaks(monkeypatch: pytest.MonkeyPatch) -> Peaks:
    ran = Peaks()
    monkeypatch.setattr(micro_batches, "reset_peak", ran.reset)
    monkeypatch.setattr(micro_batches, "peak_rss", ran.peak)
    monkeypatch.setattr(micro_batches, "baseline", lambda: Usage(100 * MB, 100 * MB))
    return ran


def test_without_a_limit_all_samples_are_computed_at_once(peaks: Peaks) -> None:
    assert Budget(None, None).largest("training", 32, peaks.append) == 32
    assert peaks == []


def test_what_the_second_sample_adds_is_taken_for_each_further_one(peaks: Peaks) -> None:
    size = Budget(200 * MB, None).largest("training", 32, peaks.append)
    assert peaks == [1, 2]
    assert 5 <= size <= 9
    assert Budget(1000 * MB, None).largest("training", 32, peaks.append) == 32


def test_samples_take_no_more_memory_than_what_is_of_use(peaks: Peaks) -> None:
    budget = Budget(1000 * MB, None)
    assert budget.largest("scoring", 32, peaks.append, useful=35 * MB) == 4
    assert budget.largest("scoring", 32, peaks.append, useful=0) == 1
    assert Budget(200 * MB, None).largest("scoring", 32, peaks.append, useful=900 * MB) <= 9


def test_the_peak_is_that_of_all_that_was_measured(peaks: Peaks) -> None:
    budget = Budget(1000 * MB, None)
    peaks.append(5)
    budget.largest("training", 32, peaks.append)
    assert peaks.peak() == 120 * MB
    assert budget.peak == 150 * MB


def test_the_limit_of_a_container_counts_as_well(peaks: Peaks) -> None:
    cgroup = CgroupLimit("/box", 200 * MB, 50 * MB)
    assert Budget(None, cgroup).largest("training", 32, peaks.append) < 5


def test_a_second_sample_is_not_tried_where_it_could_take_too_much(peaks: Peaks) -> None:
    # It adds up to half more than the first one took, as was seen once in four runs of one command.
    assert Budget(125 * MB, None).largest("training", 32, peaks.append) == 1
    assert peaks == [1]


def test_memory_that_is_needed_later_counts(peaks: Peaks) -> None:
    with pytest.raises(MemoryBudgetError):
        Budget(200 * MB, None).largest("training", 32, peaks.append, later=100 * MB)


def test_a_limit_below_one_sample_is_refused(peaks: Peaks) -> None:
    with pytest.raises(MemoryBudgetError, match="training small needs"):
        Budget(105 * MB, None).largest("training small", 32, peaks.append)
    assert peaks == [1]


def test_a_system_that_measures_no_peak_computes_few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(micro_batches, "reset_peak", lambda: False)
    assert Budget(200 * MB, None).largest("training", 32, lambda count: None) == 8


def test_pieces_hold_all_rows_in_order() -> None:
    assert [list(piece) for piece in pieces(np.arange(5), 2)] == [[0, 1], [2, 3], [4]]
