"""Tables and goals of the benchmark of sizes, from results written by hand."""

from __future__ import annotations

from typing import Any

import pytest

from bench.size_table import charts, goals, means, table


def row(method: str, size: float, **more: Any) -> dict[str, Any]:
    points = [{"size": int(size) + 5, "damage": 0.02}, {"size": int(size) - 5, "damage": 0.04}]
    return {
        "method": method,
        "bytes": size,
        "bound": "",
        "score": 0.9,
        "score_lost": 0.0,
        "agreement": 0.98,
        "points": points,
        **more,
    }


def model(name: str, nncodec: float, data_free: float, calibrated: float, **more: Any) -> dict[str, Any]:
    rows = [row("NNCodec", nncodec), row("seed, no data", data_free), row("seed, calibrated", calibrated)]
    return {
        "model": name,
        "damage": "KL",
        "line": 0.03,
        "original": 0.91,
        "rows": rows,
        "draws": [],
        "fixed": [],
        "frontier": [],
        "ablations": {},
        **more,
    }


def test_means_are_geometric_and_leave_untuned_models_apart() -> None:
    found = means([model("magika", 100, 80, 50), model("pprec", 100, 125, 80), model("ppcls", 100, 70, 60)])
    assert found["seed, no data"] == {"public": 1.0, "untuned": 0.7}
    assert found["seed, calibrated"] == {"public": pytest.approx(0.4**0.5, rel=1e-3), "untuned": 0.6}
    assert "seed, highest effort" not in found


def test_calibrated_bytes_are_the_mean_over_all_draws() -> None:
    drawn = [model("magika", 100, 80, 50, draws=[50, 60, 72]), model("pprec", 100, 125, 60)]
    assert means(drawn)["seed, calibrated"]["public"] == pytest.approx(0.6)
    assert {each.text: each.value for each in goals(drawn)}["magika: bytes, of NNCodec's, calibrated"] == pytest.approx(
        0.6
    )
    assert "| magika | 0.500 | 0.600 | 0.720 | **0.600** |" in table({"models": drawn, "means": {}})


def test_goals_are_the_means_and_every_model_alone() -> None:
    measured = {each.text: each for each in goals([model("magika", 100, 80, 50), model("pprec", 100, 125, 110)])}
    assert measured["seed, no data: bytes, of NNCodec's, geometric mean"].value == pytest.approx(1.0)
    assert not measured["seed, no data: bytes, of NNCodec's, geometric mean"].met
    assert measured["magika: bytes, of NNCodec's, calibrated"].met
    assert not measured["pprec: bytes, of NNCodec's, calibrated"].met


def test_a_peer_of_fixed_bits_is_a_goal_where_it_could_be_measured() -> None:
    fixed = [
        {"method": "ORT 4 bits", "point": {"size": 200, "damage": 0.01}, "own_bytes": 120, "own_least_damage": 0.005},
        {"method": "NNCF int8", "point": {"size": 90, "damage": 1e-4}, "own_bytes": None, "own_least_damage": 0.005},
        {"method": "NNCF 4 bits", "reason": "it fails | on this model"},
    ]
    measured = {each.text: each for each in goals([model("magika", 100, 80, 50, fixed=fixed)])}
    assert measured["magika: bytes without more damage, of ORT 4 bits's"].value == pytest.approx(0.6)
    assert not measured["magika: bytes without more damage, of NNCF int8's"].met
    assert not [text for text in measured if "NNCF 4 bits" in text]
    shown = "\n".join(table({"models": [model("magika", 100, 80, 50, fixed=fixed)], "means": {}}))
    assert "none; least damage 0.005" in shown
    assert "it fails / on this model" in shown


def test_a_peer_that_makes_the_file_of_another_one_is_no_goal_of_its_own() -> None:
    point = {"size": 200, "damage": 0.01}
    fixed = [{"method": name, "point": point, "own_bytes": 120} for name in ("NNCF int8", "NNCF 4 bits")]
    made = model("magika", 100, 80, 50, fixed=fixed)
    assert not [each.text for each in goals([made]) if "NNCF 4 bits" in each.text]
    assert "| magika | NNCF 4 bits | | | it makes the same file as NNCF int8 |" in table(
        {"models": [made], "means": {}}
    )


def test_damage_that_falls_towards_a_higher_ratio_misses_a_goal() -> None:
    frontier = [{"ratio": ratio, "size": 100, "damage": damage} for ratio, damage in ((4, 0.1), (6, 0.3), (8, 0.2))]
    made = model("magika", 100, 80, 50, frontier=frontier)
    (goal,) = [each for each in goals([made]) if "ratio" in each.text]
    assert (goal.value, goal.met) == (1, False)
    assert "| magika, KL | 0.1 | 0.3 | 0.2 |" in table({"models": [made], "means": {}})


def test_ablations_show_each_part_draw_by_draw() -> None:
    ablations = {"rounding": [100.0, 110.0, 121.0], "+ feedback": [90.0, 88.0, 121.0]}
    shown = "\n".join(table({"models": [model("magika", 100, 80, 50, ablations=ablations)], "means": {}}))
    assert "| rounding | 110 | 100, 121 |  |" in shown
    assert "| 88, 121 | 0.900, 0.800, 1.000 |" in shown


def test_every_model_has_a_chart_with_its_points() -> None:
    drawn = charts({"models": [model("magika", 100, 80, 50)]})
    assert drawn["size-magika"].count("<circle") == 6
