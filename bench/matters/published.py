"""The parts of the published method, with and without its fine-tune, on a classifier of 100 characters.

Each start gets the same fine-tune, by labels; so do random weights and the original. What the fine-tune learns isn't
in the seed: it happens on the device, which needs the labelled pictures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bench import chart, measure
from bench.measure import Figures

TITLE = "The published method, part by part"
COMPONENTS = (20, 15, 10, 5, 2)
"""The sweep that was published."""
KEPT = 10
"""Components of the ablation."""
PRUNED = 0.5
"""Share of the weights that is 0 in the original whose sparsity is kept."""
CHOICES = {
    "components": {"noise": False, "sparsity": False},
    "components, noise": {"noise": True, "sparsity": False},
    "components, sparsity": {"noise": False, "sparsity": True},
    "components, noise, sparsity: as published": {"noise": True, "sparsity": True},
}


def run(quick: bool, data: Path) -> Figures:
    """Train the original, reduce it, fine-tune all starts."""
    import torch

    from . import glyphs, parts

    torch.set_num_threads(1)
    teach, tune = (20, 4) if quick else (glyphs.TEACHER_STEPS, glyphs.TUNE_STEPS)
    task = glyphs.load(data, glyphs.EUROPEAN)
    teacher = glyphs.teacher(task, teach)
    answers = glyphs.logits(teacher, task)
    graph = glyphs.graph_of(teacher)

    def row(title: str, model: Any, size: int | None = None, **more: Any) -> Figures:
        measure.say(f"published: {title}")
        before, after = glyphs.quality(model, task, answers), glyphs.tuned(model, task, tune)
        return {"title": title, "bytes": size, "before": before, "after": glyphs.quality(after, task, answers)} | more

    def of(source: Any, **choice: Any) -> Any:
        return glyphs.with_weights(teacher, parts.reduced(source, **choice))

    size = parts.seed_of(graph, parts.moments_plans(graph, KEPT))[0]
    controls = [
        row("the original", teacher, 4 * graph.parameters),
        row("random weights", glyphs.network(task.classes, rng_seed=7)),
        row("the original's vectors, matrices of noise alone", of(graph, components=0)),
    ]
    ablation = [
        row(title, of(graph, components=KEPT, **choice), size) for title, choice in list(CHOICES.items())[:2]
    ]  # fmt: skip
    pruned = glyphs.graph_with(graph, _pruned(parts.units_of(graph), graph))
    sparse = [row("the original", glyphs.with_weights(teacher, _pruned(parts.units_of(graph), graph)))]
    size = parts.seed_of(pruned, parts.moments_plans(pruned, KEPT))[0]
    sparse += [row(title, of(pruned, components=KEPT, **choice), size) for title, choice in CHOICES.items()]
    sweep, storage = [], []
    for count in COMPONENTS[::4] if quick else COMPONENTS:
        made, weights = parts.seed_of(graph, parts.moments_plans(graph, count))
        sweep.append(row(f"{count} components", glyphs.with_weights(teacher, weights), made, components=count))
        smaller, weights = parts.seed_of(graph, parts.factor_plans(graph, count))
        factors = row(f"{count} components, quantized", glyphs.with_weights(teacher, weights), smaller)
        same, weights = parts.seed_of(graph, parts.grid_plans(graph, smaller))
        integers = row(f"integers in the bytes of {count}", glyphs.with_weights(teacher, weights), same)
        storage.append({"components": count, "float16": made, "factors": factors, "integers": integers})
    return {
        "classes": task.classes, "held": len(task.held[1]), "parameters": graph.parameters, "tune_steps": tune,
        "controls": controls, "ablation": ablation, "sparse": sparse, "sweep": sweep, "storage": storage,
    }  # fmt: skip


def section(records: dict[str, Figures]) -> list[str]:
    """Write the part of the page."""
    found = records["published"]
    lines = [
        (f"A classifier of {found['classes']} Latin, Greek and Cyrillic characters with {found['parameters']:,} "
        f"parameters, judged on {found['held']:,} pictures in fonts of other packages: its standard error is "
        f"{_error(found):.1f} points."),
        (f"Fine-tuned are all weights, for {found['tune_steps']} steps of 128 labelled pictures; what that learns "
        "isn't in the seed."),
        "",
        "| start | whole seed [B] | accuracy | agreement | KL | after the fine-tune | agreement | KL |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
        *(_line(row) for row in found["controls"]),
        *(_line(row, f"{KEPT} components of each matrix: ") for row in found["ablation"]),
        *(_line(row, "half of the weights pruned: ") for row in found["sparse"]),
        "",
        *_reading(found),
        "",
        "The sweep of components:",
        "",
        "| components | whole seed [B] | accuracy | agreement | KL | after the fine-tune | agreement | KL |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
        *(_line(row) for row in found["sweep"]),
        _line(found["controls"][1]),
        "",
        "### Quantized storage of published seeds",
        "",
        "Published components are float16 numbers.",
        ("Quantized to integers under entropy coding, at 1.1 times their squared error, they take fewer bytes; beside "
        "them the network's own weights, quantized with one step for all until they take as many."),
        "",
        ("| components | float16 [B] | quantized [B] | accuracy | after the fine-tune "
        "| integers [B] | accuracy | after the fine-tune |"),
        "|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]  # fmt: skip
    for row in found["storage"]:
        factors, integers = row["factors"], row["integers"]
        lines.append(
            f"| {row['components']} | {row['float16']:,} | {factors['bytes']:,} | {_share(factors, 'before')} "
            f"| {_share(factors, 'after')} | {integers['bytes']:,} | {_share(integers, 'before')} "
            f"| {_share(integers, 'after')} |"
        )
    few, many = found["storage"][-1], found["storage"][0]
    lines += [
        "",
        (
            f"Quantizing makes {many['components']} components {many['float16'] / many['factors']['bytes']:.1f} times "
            "smaller and loses nothing; where few are left, the same error hits what the fine-tune would start from "
            f"({few['components']} components: {_share(few['factors'], 'after')}, integers of the weights in as many "
            f"bytes {_share(few['integers'], 'after')})."
        ),
    ]
    return lines


def charts(records: dict[str, Figures]) -> dict[str, str]:
    """Draw the parts, and the sweep over the bytes of whole seeds."""
    found = records["published"]
    rows = [*found["controls"], *found["ablation"]]
    titles = {"the original's vectors, matrices of noise alone": "noise alone"}
    groups = {
        titles.get(row["title"], row["title"]): {
            "as assembled": 100 * row["before"]["accuracy"],
            "after the fine-tune": 100 * row["after"]["accuracy"],
        }
        for row in rows
    }
    across = chart.Axis("bytes of the whole seed [KB]", logarithmic=True, show="{:g}".format)
    up = chart.Axis("held-out accuracy [%]", show="{:.0f}".format)

    def curve(rows: list[Figures], when: str) -> list[tuple[float, float]]:
        return sorted((row["bytes"] / 1000, 100 * row[when]["accuracy"]) for row in rows)

    ends = [curve(found["sweep"], "before")[0][0], curve(found["sweep"], "before")[-1][0]]
    integers = [row["integers"] for row in found["storage"]]
    series = {
        "published": curve(found["sweep"], "before"),
        "published, fine-tuned": curve(found["sweep"], "after"),
        "quantized weights": curve(integers, "before"),
        "quantized weights, fine-tuned": curve(integers, "after"),
        "random weights, fine-tuned": [(end, 100 * found["controls"][1]["after"]["accuracy"]) for end in ends],
    }
    return {
        "published-parts": chart.bars("Held-out accuracy by parts of the published method", groups, "%"),
        "published-sweep": chart.lines("20, 15, 10, 5 and 2 components", series, across, up),
    }


def _pruned(units: dict[str, float], graph: Any) -> dict[str, np.ndarray]:
    found = {}
    for name in units:
        data = np.array(graph.weights[name].data)
        data[np.abs(data) <= np.quantile(np.abs(data), PRUNED)] = 0
        found[name] = data
    return found


def _reading(found: Figures) -> list[str]:
    """Say what the ablation shows."""
    dense, sparse = found["ablation"], found["sparse"][1:]
    assembled = [100 * row["before"]["accuracy"] for row in [*dense, *sparse, *found["sweep"]]]
    ends = [[100 * row["after"]["accuracy"] for row in rows] for rows in (dense, sparse)]
    gain = ends[0][0] - 100 * found["controls"][1]["after"]["accuracy"]
    return [
        f"As it is assembled, no variant is right in more than {max(assembled):.1f} %, and most are near chance.",
        f"{KEPT} components are worth {gain:.0f} points to a fine-tune as brief as this one, beside random weights.",
        (
            f"Noise changes what it ends with by {ends[0][1] - ends[0][0]:+.1f} and {ends[1][1] - ends[1][0]:+.1f} "
            f"points, sparsity by {ends[1][2] - ends[1][0]:+.1f}; a standard error is .5."
        ),
    ]


def _error(found: Figures) -> float:
    share = found["controls"][0]["before"]["accuracy"]
    return float(100 * np.sqrt(share * (1 - share) / found["held"]))


def _share(row: Figures, when: str) -> str:
    return f"{100 * row[when]['accuracy']:.1f} %"


def _line(row: Figures, before: str = "") -> str:
    size = f"{row['bytes']:,}" if row["bytes"] else ""
    cells = [before + row["title"], size]
    for when in ("before", "after"):
        found = row[when]
        cells += [_share(row, when), f"{found['agreement']:.3f}", f"{found['kl']:.3g}"]
    return f"| {' | '.join(cells)} |"
