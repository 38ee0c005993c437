"""Computing the peak of a large batch from smaller points."""

from __future__ import annotations

import pytest

from seed_exporter.evaluate.footprint_growth import plan_growth
from seed_exporter.evaluate.footprint_sizes import size_families
from seed_runtime.backends import Dims, TensorSpec

IDS = TensorSpec("ids", "int64", ("batch", "sequence"))
ROWS = TensorSpec("x", "float32", ("batch", 8))
MIB = 1 << 20


def sorted_points(spec: TensorSpec) -> list[Dims]:
    return sorted(
        size_families([spec])[0], key=lambda dims: (dims.get("ids:0", 1) * dims.get("ids:1", 1), *dims.values())
    )


def memory(dims: Dims) -> int:
    """What a transformer takes: a constant, and per input a linear and a quadratic part [B]."""
    batch, length = dims.get("ids:0", dims.get("x:0", 1)), dims.get("ids:1", 8)
    return 20 * MIB + batch * (length * 30_000 + length**2 * 100)


@pytest.mark.parametrize("spec", [IDS, ROWS])
def test_the_costliest_point_is_bounded_closely_from_cheaper_ones(spec: TensorSpec) -> None:
    points = sorted_points(spec)
    plan = plan_growth([spec], points)
    assert plan is not None
    wanted = points[:-1] + ([plan.probe] if plan.probe else [])
    peaks = {(len(points) if dims == plan.probe else number): memory(dims) for number, dims in enumerate(wanted)}
    assert plan.holds(peaks)
    needed = {number: peaks[number] for number in plan.needed}
    truth = memory(points[-1])
    assert truth <= plan.computed.bound(needed) <= 1.1 * truth


def test_memory_that_grows_faster_than_the_batch_is_measured() -> None:
    points = sorted_points(IDS)
    plan = plan_growth([IDS], points)
    assert plan is not None
    assert plan.probe is not None
    wanted = dict(enumerate(points[:-1])) | {len(points): plan.probe}
    peaks = {number: 20 * MIB + (dims["ids:0"] * dims["ids:1"]) ** 2 * 1000 for number, dims in wanted.items()}
    assert not plan.holds(peaks)


def test_without_one_of_the_points_nothing_is_computed() -> None:
    points = sorted_points(ROWS)
    plan = plan_growth([ROWS], points)
    assert plan is not None
    assert not plan.holds({0: 5, 2: 9})


def test_sums_of_dimensions_and_single_points_are_measured() -> None:
    sums = [TensorSpec("x", "float32", ("batch", "n")), TensorSpec("y", "float32", ("2*batch", "n"))]
    assert plan_growth(sums, size_families(sums)[0]) is None
    assert plan_growth([TensorSpec("x", "float32", (1, 8))], [{}]) is None
