"""The rates that the command line sets, and the times that transfers take at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from seed_devices.cli import show
from seed_runtime.units import size_text


@dataclass(frozen=True)
class Rates:
    """The largest rates of one call, in bytes per second; None for no limit."""

    together: int | None = None
    """The rate of all transfers together."""
    per_device: int | None = None
    """The rate of each device."""
    parallel: int = 1
    """How many devices are worked on at a time."""

    @property
    def of_one(self) -> int | None:
        """Return the rate of a device that is alone."""
        return min((rate for rate in (self.together, self.per_device) if rate is not None), default=None)

    def seconds(self, sizes: Sequence[int]) -> float | None:
        """Return the least time in which devices can be sent these sizes; None without a rate."""
        bounds = []
        if self.together is not None:
            bounds.append(sum(sizes) / self.together)
        if self.per_device is not None:
            bounds.append(max(sizes, default=0) / self.per_device)
            bounds.append(sum(sizes) / (self.per_device * self.parallel))
        return max(bounds, default=None)

    def time_text(self, sizes: Sequence[int]) -> str:
        """Return the time that these sizes take, as the end of a sentence; empty without a rate."""
        seconds = self.seconds(sizes)
        if seconds is None or not any(sizes):
            return ""
        rates = [] if self.together is None else [f"{size_text(self.together)}/s"]
        rates += [] if self.per_device is None else [f"{size_text(self.per_device)}/s per device"]
        return f", which takes {show.duration_text(seconds)} at {' and '.join(rates)}"
