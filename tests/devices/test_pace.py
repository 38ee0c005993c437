"""The rate of transfers is held by one clock, however many of them share it."""

from __future__ import annotations

import threading

import pytest

from seed_devices.ssh import pace
from seed_devices.ssh.pace import Pace


class Clock:
    """A clock that only waiting moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(pace.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(pace.processes, "pause", self.pause)

    def pause(self, seconds: float) -> None:
        self.now += seconds


def test_bytes_take_the_time_that_the_rate_gives_them(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, held = Clock(monkeypatch), Pace(1000)
    assert held.block == 100
    for _ in range(50):
        held.wait(held.block)
    assert clock.now == pytest.approx(105.0)


def test_a_slow_moment_is_made_up_for_only_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, held = Clock(monkeypatch), Pace(1000)
    clock.now += 60
    held.wait(1000)
    assert clock.now == pytest.approx(160.8)


def test_many_threads_share_one_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(pace.time, "monotonic", lambda: 100.0)
    monkeypatch.setattr(pace.processes, "pause", waited.append)
    held = Pace(1000)
    threads = [threading.Thread(target=held.wait, args=(100,)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(waited) == pytest.approx(2.0)
    assert sorted(waited) == pytest.approx([0.1 * number for number in range(1, 21)])
