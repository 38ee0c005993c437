"""How many samples are computed at once: as many as the limit of memory allows, measured before the first step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from seed_runtime.memory.cgroup import CgroupLimit
from seed_runtime.memory.plan import SLACK, check_budget
from seed_runtime.memory.process import baseline, peak_rss, reset_peak
from seed_runtime.tune.samples import Rows

AT_ONCE: Final = 512
"""Most samples that are computed at once, also without a limit: there may be more of them than fit into memory."""
UNMEASURED: Final = 8
"""Samples at once under a limit where the system can't measure one batch's peak."""
FORWARD_BYTES: Final = 4 << 20
"""Memory of samples at once, beyond the first one's, under a limit where no gradients are taken [B].

More made nothing faster: of EfficientNet-lite0 and MobileNetV2 at 96 px, on one thread, a sample took 12.0 to 14.9 and
8.1 to 9.0 ms of processor time with 1 to 64 samples at once, the least of six.
"""
_GROWTH_LEAST: Final = 64 << 10
"""Least memory that one more sample counts for: a page here and there says nothing [B]."""
_MARGIN: Final = 2 << 20
"""Memory by which later runs of one size may differ: 0.9 MiB was seen [B]."""
_SECOND: Final = 1.5
"""Most memory that a second sample adds, as a share of what the first one took: 1.24 was seen."""
_USED: Final = 0.9
"""Share of the room that is used: allocators round up."""


class Budget:
    """Limits of the process's memory.

    Args:
        limit: of --max-memory; None for none [B].
        cgroup: limit of the process's control groups; None for none.
    """

    def __init__(self, limit: int | None, cgroup: CgroupLimit | None) -> None:
        self._limit, self._cgroup = limit, cgroup
        rooms = [room for room in (limit, None if cgroup is None else cgroup.room) if room is not None]
        self.room = min(rooms, default=None)
        """The smaller one; None for none [B]."""
        self._highest = 0

    @property
    def peak(self) -> int:
        """The highest resident size of this process so far, whatever was measured between [B]."""
        return max(self._highest, peak_rss())

    def _begin(self) -> bool:
        """Make the kernel count the peak from now on; return False where it can't."""
        self._highest = self.peak
        return reset_peak()

    def check(self, what: str, more: int) -> None:
        """Raise MemoryBudgetError if `more` bytes beyond what the process holds exceed a limit."""
        check_budget(what, baseline().resident + more, self._limit, self._cgroup)

    def largest(
        self, what: str, most: int, run: Callable[[int], object], later: int = 0, useful: int | None = None
    ) -> int:
        """Return how many samples can be computed at once.

        One sample is run, and two where they can't take too much: what the second one added is taken for each further
        one.

        Args:
            what: what is run, for messages.
            most: samples that are of use at once.
            run: runs so many samples.
            later: memory that will be needed besides, and isn't held yet [B].
            useful: memory that samples beyond the first one may take under a limit; None for all there is [B].

        Raises:
            MemoryBudgetError: one sample is too many.
        """
        most = min(most, AT_ONCE)
        if self.room is None:
            return most
        if not self._begin():
            return min(most, UNMEASURED)
        held = baseline().resident
        run(1)
        first = peak_rss() + later + _MARGIN
        check_budget(what, first, self._limit, self._cgroup)
        if most < 2 or first + _SECOND * (first - held - later) > self.room:
            return 1
        self._begin()
        run(2)
        second = peak_rss() + later + _MARGIN
        growth = max(second - first, _GROWTH_LEAST)
        more = _USED * (self.room - SLACK - first)
        return max(1, min(most, 1 + int((more if useful is None else min(more, useful)) / growth)))


def pieces(rows: Rows, size: int) -> Iterator[Rows]:
    """Yield rows in pieces of a size, the last one smaller."""
    return (rows[start : start + size] for start in range(0, len(rows), size))
