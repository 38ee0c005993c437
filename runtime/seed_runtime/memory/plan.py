"""Memory plans: what the process will need, decided before anything is allocated for it.

All figures are peaks of the whole process (VmHWM, see process.py). Weights mapped from a file could be taken back by
the kernel, but they count while they are resident, and what was taken back is read again at the card's speed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from seed_runtime.backends import Backend, usable_cores
from seed_runtime.errors import MemoryBudgetError, UnsupportedError
from seed_runtime.memory.cgroup import CgroupLimit
from seed_runtime.memory.footprint import Footprint
from seed_runtime.memory.process import Usage, baseline

SLACK: Final = 1 << 20
"""Memory that a plan announces beyond what it insists on [B].

Between two runs of one command the size of Python itself differs by some 0.2 MB, and a limit that is set to the plan's
own figure must be enough the second time.
"""
FEW_RUNS: Final = 2
"""Number of runs up to which opening a session soonest counts more than fast runs: docs/adr/0030-cold-start.md."""
THREADS_MEASURED: Final = 2
"""Threads that footprints are measured with."""
THREAD_BYTES: Final = 1 << 19
"""Stack and heap of each thread beyond those [B]. From 2 to 8 threads, sessions grew by 0.05 to 0.2 MB each."""

_UNMEASURED: Final = (
    "this seed holds no memory measurements, so --max-memory can't be enforced for its session; "
    "run it without --max-memory, or make it again with seed-export on Linux"
)


@dataclass(frozen=True)
class Plan:
    """Plan of the memory that a process needs under `limit` [B]."""

    needed_bytes: int | None
    """The peak that the process will stay below; as --max-memory it passes the same plan.

    None where it is not known, which only a plan without a limit may say.
    """
    limit: int | None
    """Limit of --max-memory; None for none [B]."""


@dataclass(frozen=True)
class AssemblyPlan(Plan):
    """Plan of how a seed is to be assembled."""

    cores: int = 1
    """How many decoding may use; the processes of all of them are planned for."""


def plan_assembly(working: int, beside: int, limit: int | None, cgroup: CgroupLimit | None, cores: int) -> AssemblyPlan:
    """Choose to assemble on several cores where that fits into both limits, else on one.

    Args:
        working: what assembling needs beyond what the process has [B].
        beside: what it needs beyond that on more than one core; 0 where it takes but one [B].
        limit: --max-memory, None for none [B].
        cgroup: limit of this process's control groups; None for none.
        cores: how many may be used.

    Raises:
        MemoryBudgetError: it doesn't fit on one core.
    """
    usage = baseline()
    alone = max(usage.peak, usage.resident + working)
    check_budget("assembling this seed", alone, limit, cgroup)
    both = max(usage.peak, usage.resident + working) + beside
    bounds = [size for size in (limit, None if cgroup is None else cgroup.room) if size is not None]
    if beside and cores > 1 and all(both <= bound for bound in bounds):
        return AssemblyPlan(both + SLACK, limit, cores)
    return AssemblyPlan(alone + SLACK, limit)


def check_budget(what: str, needed: int, limit: int | None, cgroup: CgroupLimit | None) -> None:
    """Check a peak against both limits.

    Args:
        what: what the memory is for.
        needed: the peak of this process, without SLACK [B].
        limit: --max-memory, None for none [B].
        cgroup: limit of the process's control groups; None for none, and for plans of other processes.

    Raises:
        MemoryBudgetError: it doesn't fit; of both limits the smaller one is named.
    """
    if cgroup is not None and needed > cgroup.room and (limit is None or cgroup.room < limit):
        raise MemoryBudgetError(what, needed + SLACK, cgroup.room, cgroup.group, cgroup.others)
    if limit is not None and needed > limit:
        raise MemoryBudgetError(what, needed + SLACK, limit)


@dataclass(frozen=True)
class SessionPlan(Plan):
    """Plan of how a session is to be opened, and of the inputs that it may then be given."""

    mode: str
    threads: int
    footprint: Footprint | None
    base: int
    """Memory of the process with the library imported and no session open [B]."""
    cgroup: CgroupLimit | None = None
    """Limit of the process's control groups, as it was planned for."""

    def admit(self, dims: Mapping[str, int], beside: int = 0) -> None:
        """Check an input of other sizes than the plan's, before it runs in the open session.

        Args:
            dims: its sizes.
            beside: memory that is held beside it and wasn't planned [B].

        Raises:
            MemoryBudgetError: it doesn't fit into the limit, or into the control group.
            InputError: it is larger than what was measured, and there is a limit.
        """
        if self.footprint is None or (self.limit is None and not self.footprint.covers(dims)):
            return
        needed = self.base + beside + self.footprint.predict(self.mode, dims)
        check_budget("this input", needed, self.limit, self.cgroup)


def plan_session(
    footprint: Footprint | None,
    dims: Mapping[str, int],
    limit: int | None,
    *,
    backend: Backend,
    weights_size: int,
    threads: int | None = None,
    held: int = 0,
    usage: Usage | None = None,
    cgroup: CgroupLimit | None = None,
    runs: int | None = None,
) -> SessionPlan:
    """Choose the fastest of the backend's modes that fits into both limits. Nothing is imported or allocated.

    For up to FEW_RUNS runs that is the one that opens and answers soonest.

    Args:
        footprint: what the seed holds, None for nothing.
        dims: sizes of the free dimensions (`footprint.dims(feeds)`), the largest that will be run.
        limit: --max-memory, None for none [B].
        backend: what will run the model.
        weights_size: of the assembled weights file [B].
        threads: None for as many as there are cores.
        held: what the process will hold beyond today by the time the session opens [B].
        usage: `baseline()`, taken by the caller or here.
        cgroup: limit of this process's control groups; None for none, and for a plan of another process. What isn't
            known to exceed it is planned.
        runs: how many there will be; None for many.

    Raises:
        MemoryBudgetError: nothing fits; it holds the least that would do.
        InputError: the input is beyond what was measured.
        UnsupportedError: the seed holds no measurement, so a limit could not be enforced.
    """
    usage = usage or baseline()
    count = threads if threads is not None else usable_cores()
    base = usage.resident + held + backend.import_bytes() + max(0, count - THREADS_MEASURED) * THREAD_BYTES
    measured = {entry.name for entry in footprint.modes} if footprint else set()
    wanted = backend.quick_modes if runs is not None and runs <= FEW_RUNS else backend.modes
    modes = [mode for mode in wanted if mode in measured]
    if footprint is None or not modes:
        # Whatever the activations are, the weights are resident once.
        check_budget("the session", base + weights_size, limit, cgroup)
        if limit is not None:
            raise UnsupportedError(_UNMEASURED)
        return SessionPlan(None, None, wanted[0], count, None, base, cgroup)
    if limit is None and not footprint.covers(dims):
        return SessionPlan(None, None, wanted[0], count, footprint, base, cgroup)
    needs = {mode: max(usage.peak, base + footprint.predict(mode, dims)) for mode in modes}
    check_budget("the session", min(needs.values()), limit, cgroup)
    bounds = [size for size in (limit, None if cgroup is None else cgroup.room) if size is not None]
    mode = next(mode for mode in modes if all(needs[mode] <= bound for bound in bounds))
    return SessionPlan(needs[mode] + SLACK, limit, mode, count, footprint, base, cgroup)
