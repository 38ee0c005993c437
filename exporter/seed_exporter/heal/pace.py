"""How fast steps are: the number of threads, and the size of batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Final

import torch

BATCH_MOST: Final = 256
"""Largest batch that is chosen for a GPU."""
BATCH_LEAST: Final = 8
"""Samples of a batch from which on batch norms can learn from it; smaller ones aren't chosen."""
_WORTH: Final = 1.5
"""Most that a batch of twice the size may take longer on a GPU to be worth it in any case."""
_STEPS_MANY: Final = 10_000
"""Steps from which on larger batches are worth more than more steps."""
_STEPS_ENOUGH: Final = 1000
"""Steps below which batches are made smaller to have more of them in the time that there is."""
_TRIALS: Final = 6
"""Steps on a GPU whose median is taken: batches may be of several lengths."""


class Pace:
    """Measures steps before they are taken.

    Args:
        trial: computes the gradient of a batch of a size.
        device: where.

    Attributes:
        seconds: time of a step.
    """

    def __init__(self, trial: Callable[[int], None], device: torch.device) -> None:
        self._trial, self._device = trial, device
        self._before = self._threads = torch.get_num_threads()
        self.seconds = 0.0

    def measure(self, size: int) -> None:
        """Measure a step, and change nothing."""
        self.seconds = self._time(size)

    def choose(self, size: int, most: int, limit: float) -> int:
        """Choose what is fastest; return the size of batches.

        On a CPU with other work, threads that wait for each other take several times as long as one. On a GPU a batch
        is doubled while it takes little more time, or many steps fit into the time. Where few do, batches are halved.

        Args:
            size: of a batch on a CPU; 1 for a model that takes no batches.
            most: number of inputs that there are.
            limit: time that there is [s].
        """
        if self._device.type == "cpu":
            self._choose_threads(size)
        else:
            size = self._largest(size, most, limit)
        while limit / self.seconds < _STEPS_ENOUGH and size >= 2 * BATCH_LEAST:
            size //= 2
            self.seconds /= 2
        return size

    def _choose_threads(self, size: int) -> None:
        times = {}
        for threads in sorted({1, self._before}):
            torch.set_num_threads(threads)
            times[threads] = self._time(size)
        self._threads = min(times, key=lambda threads: times[threads])
        self.seconds = times[self._threads]

    def _largest(self, size: int, most: int, limit: float) -> int:
        if size > 1:
            size = min(size, BATCH_LEAST)
        self.seconds = self._time(size)
        while size > 1 and 2 * size <= min(most, BATCH_MOST):
            try:
                seconds = self._time(2 * size)
            except torch.OutOfMemoryError:
                break
            if seconds > _WORTH * self.seconds and limit / seconds < _STEPS_MANY:
                break
            size, self.seconds = 2 * size, seconds
        torch.cuda.empty_cache()
        return size

    @contextmanager
    def threads(self) -> Iterator[None]:
        """Compute with the number of threads that was fastest."""
        torch.set_num_threads(self._threads)
        try:
            yield
        finally:
            torch.set_num_threads(self._before)

    def _time(self, size: int) -> float:
        times = []
        for _ in range(2 if self._device.type == "cpu" else 1 + _TRIALS):
            self._wait()
            began = time.monotonic()
            self._trial(size)
            self._wait()
            times.append(time.monotonic() - began)
        return median(times[1:])  # the first step of all allocates

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
