"""The clock of a run: from when its limit counts, and the time that a tier still takes."""

from __future__ import annotations

import pytest

from seed_runtime.tune import Progress, Settings, progress
from seed_runtime.tune.progress import RunProgress


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: found[0])
    return found


def test_a_limit_counts_from_where_the_command_began(now: list[float]) -> None:
    clocks = RunProgress(Settings(time_limit=10)), RunProgress(Settings(time_limit=10, started=95.0))
    now[0] = 105
    assert [clock.is_over for clock in clocks] == [False, True]
    now[0] = 110
    assert clocks[0].is_over


def test_the_time_left_is_by_the_steps_of_this_process(now: list[float]) -> None:
    reports: list[Progress] = []
    clock = RunProgress(Settings(progress=reports.append))
    clock.begin("small")
    clock.first_step = 100
    now[0] += 10
    clock.report(105, 120)
    assert reports[0].seconds_left == pytest.approx(30)
    clock.begin("full")
    now[0] += 10
    clock.report(5, 10)
    assert reports[1].seconds_left == pytest.approx(10)
