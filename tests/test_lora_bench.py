"""What the benchmark of adapters says of deltas beside them: frontiers, and the smallest adapter as accurate."""

from __future__ import annotations

import math

from bench import lora

SEED = lora.SEEDS[0]


def point(kind: str, what: str, size: int, right: float, draw: int = 0) -> dict[str, object]:
    return {"seed": SEED, "kind": kind, "what": what, "draw": draw, "bytes": size, "accuracy": right}


ROWS = [
    point(lora.DELTA, lora.DEFAULT, 900, 0.84),
    point(lora.DELTA, lora.DEFAULT, 1100, 0.88, 1),
    point(lora.QLORA, "rank 1, steps of 1", 800, 0.8),
    point(lora.QLORA, "rank 1, steps of 0.5", 1250, 0.87),
    point(lora.QLORA, f"rank 1{lora.VECTORS}, steps of 1", 1500, 0.85),
    point(lora.LORA, "rank 8, steps of 1", 2000, 0.9),
]


def test_a_setting_counts_as_the_mean_of_its_draws() -> None:
    mean = lora.means(ROWS)[0]
    assert (mean["kind"], mean["bytes"], mean["accuracy"]) == (lora.DELTA, 1000, 0.86)


def test_a_frontier_has_no_point_that_takes_more_bytes_for_less() -> None:
    adapters = [row for row in lora.means(ROWS) if row["kind"] == lora.QLORA]
    assert [row["bytes"] for row in lora.frontier(adapters)] == [800, 1250]


def test_a_delta_is_compared_with_the_smallest_adapter_of_its_seed_that_is_as_accurate() -> None:
    points = lora.means(ROWS)
    assert lora.bytes_of_adapter(points, SEED, 0.86) == 1250
    assert lora.bytes_of_adapter(points, SEED, 0.9) == 2000
    assert math.isinf(lora.bytes_of_adapter(points, SEED, 0.95))
    assert math.isinf(lora.bytes_of_adapter(points, lora.SEEDS[1], 0.1))


def test_the_goal_is_the_share_of_that_adapter_and_the_table_names_it() -> None:
    figures = {"original": 0.93, "before": {SEED: 0.4}, "points": lora.means(ROWS)}
    (goal,) = lora.goals(figures)
    assert (goal.value, goal.met) == (0.8, True)
    assert f"| {SEED} | delta, `auto` | 1,000 | 86.0 % | 1,250 |" in lora.table(figures)
    assert list(lora.charts(figures)) == ["lora_0"]
