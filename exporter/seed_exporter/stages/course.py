"""Tell the user how far a training is, on the terminal and to those who watch it."""

from __future__ import annotations

import time
from typing import Final

from seed_exporter.heal.looks import Look, Training
from seed_exporter.quantize.trail import Trail
from seed_exporter.records import Work

UNITS: Final = 1000
"""Units of work that training counts as in the progress."""
_STEPS_LEAST: Final = 100
"""Steps below which a run is over before the size has come down: rounding does no worse."""


class Course:
    """The course of one training.

    Args:
        model_id: of the model.
        goal: largest size [B].
        trail: gets the looks.
        work: what all stages share.
    """

    def __init__(self, model_id: str, goal: int, trail: Trail, work: Work) -> None:
        self._model_id, self._goal, self._trail, self._work = model_id, goal, trail, work
        self._where, self._steps, self._pace = "", 0, 0.0
        self._began = self._first = 0.0

    def start(self, pace: float, steps: int, on_gpu: bool, first: float) -> None:
        """Say where it is healed, and how long that takes.

        Args:
            pace: time of a step [s].
            steps: of the run, where there is no time limit.
            on_gpu: where it is trained.
            first: share of the run that was done before.
        """
        self._where = "on a GPU" if on_gpu else "on the CPU, as torch finds no GPU"
        self._pace, self._first, self._began = pace, first, time.monotonic()
        limit = self._work.deadline
        left = self._seconds_left(first, steps)
        self._steps = steps if limit is None else max(1, round(left / pace))
        done = f"goes on at {100 * first:.0f} %, " if first else ""
        if limit is not None:
            text = f"{pace:.2g} s a step, {left / pace:,.0f} steps until the time limit"
            if left / pace < _STEPS_LEAST:
                text += ", too few to heal anything; give it more time"
            self._work.say(f"healing {self._where}: {done}{text}")
        else:
            count = round((1 - first) * steps)
            text = f"about {left / 60:,.0f} minutes, {count:,} steps of {pace:.2g} s; --time-limit ends it earlier"
            self._work.say(f"healing {self._where}: {done}{text}")
        self._work.watch(self._training(first))

    def look(self, look: Look) -> None:
        """Tell what a look found."""
        self._trail.looks.append(look)
        reached = f"{look.size / 1e3:,.1f} KB, damage {look.damage:.3g}"
        self._work.progress(f"heal: {reached}", round(look.share * UNITS), UNITS)
        if self._where:
            self._work.watch(self._training(look.share))

    def _training(self, share: float) -> Training:
        left = self._seconds_left(share, self._steps)
        looks = tuple(self._trail.looks)
        return Training(self._model_id, self._goal, self._where, looks, self._steps, self._pace, left)

    def _seconds_left(self, share: float, steps: int) -> float:
        if self._work.deadline is not None:
            return max(0.0, self._work.deadline - time.monotonic())
        done = share - self._first
        # The first steps are the slowest ones, and later ones say more.
        whole = steps * self._pace if done <= 0 else (time.monotonic() - self._began) / done
        return (1 - share) * whole
