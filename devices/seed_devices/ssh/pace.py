"""Limit the rate of transfers, of one or of many at a time."""

from __future__ import annotations

import threading
import time
from typing import Final

from seed_devices.ssh import processes

_BURST_S: Final = 0.2
"""Seconds of a delay that may be made up for: a slow moment of the link isn't followed by more than the rate."""
_BLOCK_S: Final = 0.1
"""Seconds that a block takes at the rate."""


class Pace:
    """The largest rate of all transfers that wait for it, each in its own thread: they share it block by block.

    Args:
        rate: in bytes per second.
    """

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.block = max(1, int(rate * _BLOCK_S))
        """Most bytes that one transfer should send at once."""
        self._lock = threading.Lock()
        self._due = time.monotonic()

    def wait(self, size: int) -> None:
        """Wait until `size` bytes more may be sent, or children are stopped."""
        with self._lock:
            now = time.monotonic()
            self._due = max(self._due, now - _BURST_S) + size / self.rate
            wait_s = self._due - now
        if wait_s > 0:
            processes.pause(wait_s)
