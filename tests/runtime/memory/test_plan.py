"""Plans: which mode, how much, and the refusals before anything is allocated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from seed_runtime import backends
from seed_runtime.backends import Backend
from seed_runtime.errors import InputError, MemoryBudgetError, UnsupportedError
from seed_runtime.memory.cgroup import CgroupLimit
from seed_runtime.memory.footprint import Footprint, ModeFootprint
from seed_runtime.memory.plan import SLACK, THREAD_BYTES, THREADS_MEASURED, SessionPlan, plan_assembly, plan_session
from seed_runtime.memory.process import Usage

MIB = 1 << 20
NOW = Usage(resident=30 * MIB, peak=40 * MIB)

# At sequence 256: fast 16 + 4, lean 4 + 8, small 4 + 4 MiB.
FOOTPRINT = Footprint(
    (("ids", 1),),
    ((16,), (256,)),
    (
        ModeFootprint("fast", 320, 256, (32, 64)),
        ModeFootprint("lean", 16, 64, (32, 128)),
        ModeFootprint("small", 16, 64, (16, 64)),
    ),
)
LONG = {"ids:1": 256}
SHORT = {"ids:1": 16}


class Library:
    """A backend that costs 10 MiB to import, and is never opened by a plan."""

    name = "test"
    modes = ("fast", "lean", "small")
    quick_modes = ("lean", "fast", "small")

    def available(self) -> bool:
        return True

    def import_bytes(self) -> int:
        return 10 * MIB

    def load(self) -> None:
        raise AssertionError("a plan imported the library")

    def open(self, folder: Path, mode: str, threads: int | None = None) -> backends.Runner:
        raise AssertionError("a plan opened a model")


def plan(
    limit: int | None,
    dims: dict[str, int] = LONG,
    footprint: Footprint | None = FOOTPRINT,
    threads: int = THREADS_MEASURED,
    cgroup: CgroupLimit | None = None,
    **options: int,
) -> SessionPlan:
    library: Backend = Library()
    return plan_session(
        footprint,
        dims,
        limit,
        backend=library,
        weights_size=16 * MIB,
        threads=threads,
        usage=NOW,
        cgroup=cgroup,
        **options,  # type: ignore[arg-type]
    )


def test_without_a_limit_the_fastest_mode_is_taken() -> None:
    chosen = plan(None)
    assert (chosen.mode, chosen.needed_bytes) == ("fast", 60 * MIB + SLACK)


@pytest.mark.parametrize(("limit", "mode"), [(60, "fast"), (59, "lean"), (52, "lean"), (51, "small"), (48, "small")])
def test_the_fastest_mode_that_fits_is_taken(limit: int, mode: str) -> None:
    assert plan(limit * MIB).mode == mode


@pytest.mark.parametrize(("runs", "mode"), [(0, "lean"), (1, "lean"), (2, "lean"), (3, "fast")])
def test_a_run_or_two_are_planned_in_the_mode_that_answers_soonest(runs: int, mode: str) -> None:
    assert plan(None, runs=runs).mode == mode
    assert plan(None, runs=runs, footprint=None).mode == mode


def test_runs_that_are_few_keep_the_limit_as_well() -> None:
    assert plan(51 * MIB, runs=1).mode == "small"
    with pytest.raises(MemoryBudgetError) as caught:
        plan(47 * MIB, runs=1)
    assert caught.value.needed == 48 * MIB + SLACK


def test_a_limit_at_the_plans_own_figure_passes_even_if_python_grew_a_little() -> None:
    needed = plan(48 * MIB).needed_bytes
    assert needed is not None
    assert plan(needed, held=SLACK).mode == "small"


def test_a_limit_that_is_too_small_says_the_least_that_would_do() -> None:
    with pytest.raises(MemoryBudgetError) as caught:
        plan(47 * MIB)
    assert (caught.value.needed, caught.value.limit) == (48 * MIB + SLACK, 47 * MIB)
    assert caught.value.exit_code == 14
    assert plan(caught.value.needed).mode == "small"


def test_a_peak_of_the_past_counts() -> None:
    assert plan(None, {"ids:1": 1}, held=-25 * MIB).needed_bytes == NOW.peak + SLACK


def test_what_the_process_will_hold_counts() -> None:
    assert plan(60 * MIB, held=MIB).mode == "lean"


def test_threads_beyond_the_measured_ones_count() -> None:
    few, many = plan(None), plan(None, threads=THREADS_MEASURED + 4)
    assert (many.needed_bytes or 0) - (few.needed_bytes or 0) == 4 * THREAD_BYTES


def test_an_input_beyond_the_measured_sizes_is_refused_under_a_limit_only() -> None:
    with pytest.raises(InputError, match="measured up to 256"):
        plan(1 << 40, {"ids:1": 257})
    assert plan(None, {"ids:1": 257}).needed_bytes is None


def test_a_seed_without_measurements_is_refused_under_a_limit_only() -> None:
    with pytest.raises(UnsupportedError, match="no memory measurements"):
        plan(1 << 40, footprint=None)
    with pytest.raises(MemoryBudgetError):
        plan(50 * MIB, footprint=None)
    assert plan(None, footprint=None).mode == "fast"


def test_modes_that_this_backend_does_not_have_are_as_good_as_none() -> None:
    strange = Footprint((), ((),), (ModeFootprint("warp", 1, 1, (1,)),))
    with pytest.raises(UnsupportedError, match="no memory measurements"):
        plan(1 << 40, {}, strange)


def test_a_later_input_is_admitted_or_refused_by_the_same_limit() -> None:
    chosen = plan(56 * MIB, SHORT)
    assert chosen.mode == "lean"
    chosen.admit(SHORT)
    tight = plan(47 * MIB, SHORT)
    with pytest.raises(MemoryBudgetError, match="this input"):
        tight.admit(LONG)
    with pytest.raises(InputError, match="measured up to"):
        tight.admit({"ids:1": 300})


def test_what_is_held_beside_a_later_input_counts() -> None:
    chosen = plan(56 * MIB, SHORT)
    assert chosen.needed_bytes is not None
    room = 56 * MIB + SLACK - chosen.needed_bytes
    chosen.admit(SHORT, room)
    with pytest.raises(MemoryBudgetError, match="this input"):
        chosen.admit(SHORT, room + 1)


def test_without_a_limit_every_input_is_admitted() -> None:
    plan(None).admit({"ids:1": 10**6})


def test_assembly_uses_several_cores_where_both_limits_leave_room_for_it() -> None:
    whole = plan_assembly(40 * MIB, 20 * MIB, None, None, 2)
    assert whole.cores == 2
    needed = whole.needed_bytes or 0
    alone = plan_assembly(40 * MIB, 20 * MIB, None, None, 1)
    assert (alone.cores, alone.needed_bytes) == (1, needed - 20 * MIB)
    for limit, room, cores in (
        (needed, None, 2),
        (needed - MIB - SLACK, None, 1),
        (None, needed, 2),
        (needed, needed - MIB - SLACK, 1),
    ):
        group = None if room is None else CgroupLimit("/a", room, 0)
        assert plan_assembly(40 * MIB, 20 * MIB, limit, group, 2).cores == cores
    assert plan_assembly(40 * MIB, 0, None, None, 2).cores == 1
    with pytest.raises(MemoryBudgetError):
        plan_assembly(40 * MIB, 20 * MIB, needed - 22 * MIB, None, 2)


def test_a_control_group_limits_a_plan_like_max_memory() -> None:
    whole = plan(None)
    assert (whole.mode, whole.needed_bytes) == ("fast", 60 * MIB + SLACK)
    assert plan(None, cgroup=CgroupLimit("/a", 60 * MIB, 0)) == replace(whole, cgroup=CgroupLimit("/a", 60 * MIB, 0))
    least = plan(None, cgroup=CgroupLimit("/a", 70 * MIB, 22 * MIB))
    assert (least.mode, least.limit) == ("small", None)
    with pytest.raises(MemoryBudgetError) as caught:
        plan(None, cgroup=CgroupLimit("/system.slice/x.service", 64 * MIB, 22 * MIB))
    assert str(caught.value) == (
        "the session needs 49 MiB and the memory limit of the container or service (cgroup /system.slice/x.service) is "
        "64.0 MiB, of which other processes hold 22.0 MiB; raise it to at least 71 MiB, or use a smaller input"
    )


@pytest.mark.parametrize(
    ("limit", "room", "named"), [(30, 20, "cgroup /a"), (20, 30, "--max-memory"), (20, 99, "--max")]
)
def test_of_both_limits_the_smaller_one_is_named(limit: int, room: int, named: str) -> None:
    with pytest.raises(MemoryBudgetError, match=named):
        plan(limit * MIB, cgroup=CgroupLimit("/a", room * MIB, 0))


def test_in_a_control_group_what_is_not_known_is_run_and_what_is_known_is_checked() -> None:
    group = CgroupLimit("/a", 60 * MIB, 0)
    # Larger than what was measured, which only --max-memory refuses; and a seed without measurements.
    assert plan(None, {"ids:1": 4000}, cgroup=group).needed_bytes is None
    assert plan(None, footprint=None, cgroup=group).needed_bytes is None
    with pytest.raises(MemoryBudgetError, match="cgroup /a"):
        plan(None, footprint=None, cgroup=CgroupLimit("/a", 50 * MIB, 0))
    opened = plan(None, SHORT, cgroup=CgroupLimit("/a", 59 * MIB, 0))
    assert opened.mode == "lean"
    opened.admit({"ids:1": 4000})
    opened.admit(SHORT)
    with pytest.raises(MemoryBudgetError, match="this input needs"):
        replace(opened, mode="fast").admit(LONG)
