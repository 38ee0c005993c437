"""Tables, charts and goals of the benchmark of sizes (bench/size.py)."""

from __future__ import annotations

from itertools import pairwise

from bench import measure
from bench.equal_damage import geometric_mean
from bench.measure import Figures, Goal
from seed_exporter.report import frontier

PEER = "NNCodec"
UNTUNED = ("ppcls", "basicpitch")
"""Models on which nothing was tried before; they are not in the geometric means of the goals."""
CALIBRATED = "seed, calibrated"
GOALS = {"seed, no data": 0.95, CALIBRATED: 0.70, "seed, highest effort": 0.55}
"""Largest geometric mean of the ratios to NNCodec's bytes."""
LOSS = 0.01
"""Largest share of the original's score that a seed at the line may lose."""
INPUTS = 64
"""Calibration inputs of one draw."""
DRAWS = 3
"""Draws of calibration inputs that the ablations are repeated on."""


def _ratio(model: Figures, method: str) -> float | None:
    """Compute a method's bytes over NNCodec's at the line."""
    sizes = {row["method"]: row["bytes"] for row in model["rows"]}
    return sizes[method] / sizes[PEER] if method in sizes else None


def _mean_ratio(model: Figures, method: str) -> float | None:
    """Compute it as the geometric mean over the draws of calibration inputs, where several were measured."""
    ratios = _draw_ratios(model) if method == CALIBRATED else []
    return geometric_mean(ratios) if ratios else _ratio(model, method)


def _draw_ratios(model: Figures) -> list[float]:
    """Compute the calibrated bytes over NNCodec's at the line for each draw of calibration inputs."""
    sizes = {row["method"]: row["bytes"] for row in model["rows"]}
    return [size / sizes[PEER] for size in model["draws"]]


def means(models: list[Figures]) -> Figures:
    """Compute geometric means of the ratios to NNCodec: of the models of the goals, and of the others."""
    found_means: Figures = {}
    for method in GOALS:
        for group, inside in (("public", False), ("untuned", True)):
            found = [_mean_ratio(model, method) for model in models if (model["model"] in UNTUNED) is inside]
            ratios = [ratio for ratio in found if ratio is not None]
            if ratios:
                found_means.setdefault(method, {})[group] = measure.rounded(geometric_mean(ratios))
    return found_means


def goals(models: list[Figures]) -> list[Goal]:
    mean_of = means(models)
    found = [
        Goal(f"{method}: bytes, of NNCodec's, geometric mean", mean_of[method]["public"], limit, "x")
        for method, limit in GOALS.items()
        if "public" in mean_of.get(method, {})
    ]
    for model in models:
        ratio = _mean_ratio(model, CALIBRATED)
        if ratio is not None:
            found.append(Goal(f"{model['model']}: bytes, of NNCodec's, calibrated", ratio, 1, "x"))
        found += [
            Goal(f"{model['model']}: score lost at the line, {row['method']}", row["score_lost"], LOSS, "")
            for row in model["rows"]
            if row["method"] in GOALS
        ]
        damages = [point["damage"] for point in model["frontier"]]
        if damages:
            falls = sum(b < a for a, b in pairwise(damages))
            found.append(Goal(f"{model['model']}: steps to a higher ratio at which damage falls", falls, 0, ""))
        for row in _distinct(model["fixed"]):
            if "point" in row:
                size = row["own_bytes"] or float("inf")
                text = f"{model['model']}: bytes without more damage, of {row['method']}'s"
                found.append(Goal(text, size / row["point"]["size"], 1, "x"))
    return found


def _distinct(rows: list[Figures]) -> list[Figures]:
    """Return the rows of peers, with `same_as` in place of `point` where a peer made the file of another one.

    NNCF's 4 bits leave convolutions and last layers at 8, which is all that some models have.
    """
    found: list[Figures] = []
    for row in rows:
        same = [each["method"] for each in found if "point" in row and each.get("point") == row["point"]]
        found.append({"method": row["method"], "same_as": same[0]} if same else row)
    return found


def table(figures: Figures) -> list[str]:
    lines = [
        "| model, at | method | bytes | of NNCodec's | score | of the original | agreement | measured points |",
        "|---|---|--:|--:|--:|--:|--:|---|",
    ]
    for model in figures["models"]:
        for row in model["rows"]:
            ratio = _ratio(model, row["method"])
            points = "; ".join(f"{point['size']:,} at {point['damage']:.4g}" for point in row["points"])
            lines.append(
                f"| {model['model']}, {model['damage']} {model['line']:g} | {row['method']} "
                f"| {row['bound']} {row['bytes']:,.0f} "
                f"| **{ratio:.3f}** | {row['score']:.4f} | {model['original']:.4f} "
                f"| {row['agreement']:.3f} | {points} |"
            )
    if any(model["fixed"] for model in figures["models"]):
        lines += ["", "| model | fixed bits, xz | bytes | damage | seed without more damage |", "|---|---|--:|--:|--:|"]
    for model in figures["models"]:
        for row in _distinct(model["fixed"]):
            if "same_as" in row:
                lines.append(f"| {model['model']} | {row['method']} | | | it makes the same file as {row['same_as']} |")
                continue
            if "point" not in row:
                lines.append(f"| {model['model']} | {row['method']} | | | {row['reason'].replace('|', '/')} |")
                continue
            own = f"{row['own_bytes']:,}" if row["own_bytes"] else f"none; least damage {row['own_least_damage']:.4g}"
            point = row["point"]
            lines.append(f"| {model['model']} | {row['method']} | {point['size']:,} | {point['damage']:.4g} | {own} |")
    if figures["means"]:
        lines += ["", "| geometric mean, of NNCodec's | of the goals' models | of the others |", "|---|--:|--:|"]
    for method, mean in figures["means"].items():
        lines.append(f"| {method} | {mean.get('public', '')} | {mean.get('untuned', '')} |")
    return (
        lines
        + _draws_table(figures["models"])
        + _frontier_table(figures["models"])
        + _ablation_table(figures["models"])
    )


def _draws_table(models: list[Figures]) -> list[str]:
    found = [(model["model"], _draw_ratios(model)) for model in models if model["draws"]]
    if not found:
        return []
    draws = [f"draw {draw + 1}" for draw in range(max(len(ratios) for _, ratios in found))]
    lines = ["", f"| calibrated, of NNCodec's | {' | '.join(draws)} | mean |", f"|---|{'--:|' * (len(draws) + 1)}"]
    for name, ratios in found:
        shown = [f"{ratio:.3f}" for ratio in ratios] + [""] * (len(draws) - len(ratios))
        lines.append(f"| {name} | {' | '.join(shown)} | **{geometric_mean(ratios):.3f}** |")
    return lines


def _frontier_table(models: list[Figures]) -> list[str]:
    found = [model for model in models if model["frontier"]]
    if not found:
        return []
    ratios = [f"{point['ratio']}x" for point in found[0]["frontier"]]
    lines = ["", f"| damage at | {' | '.join(ratios)} |", f"|---|{'--:|' * len(ratios)}"]
    for model in found:
        shown = [f"{point['damage']:.3g}" for point in model["frontier"]]
        lines.append(f"| {model['model']}, {model['damage']} | {' | '.join(shown)} |")
    return lines


def _ablation_table(models: list[Figures]) -> list[str]:
    lines = []
    for model in models:
        if model["ablations"]:
            lines += ["", f"{model['model']}, {DRAWS} draws of {INPUTS} calibration inputs:", ""]
            lines += ["| effort | bytes at the line, mean | least and most | of the row above, draw by draw |"]
            lines += ["|---|--:|--:|---|"]
        above: list[float] | None = None
        for title, sizes in model["ablations"].items():
            change = [f"{a / b:.3f}" for a, b in zip(sizes, above, strict=True)] if above else []
            lines.append(
                f"| {title} | {geometric_mean(sizes):,.0f} | {min(sizes):,.0f}, {max(sizes):,.0f} "
                f"| {', '.join(change)} |"
            )
            above = sizes
    return lines


def charts(figures: Figures) -> dict[str, str]:
    """Draw all points of each model."""
    drawn = {}
    for model in figures["models"]:
        points = [
            frontier.Point(row["method"], point["size"], point["damage"])
            for row in model["rows"]
            for point in row["points"]
        ]
        points += [
            frontier.Point(row["method"], row["point"]["size"], row["point"]["damage"])
            for row in model["fixed"]
            if "point" in row
        ]
        drawn[f"size-{model['model']}"] = frontier.frontier(points, measure=model["damage"])
    return drawn
