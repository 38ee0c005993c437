"""Seeds and meta-learned weights as starts for another task: from European characters to ideographs.

All starts get the same new classifier and the same fine-tune. The meta-learned start has seen the European classes in
tasks of 20, by Reptile, for as many batches as the other starts were trained.

Source: Nichol, Achiam, Schulman, "On First-Order Meta-Learning Algorithms", arXiv:1803.02999.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from bench import chart, measure
from bench.measure import Figures

TITLE = "Cross-domain transfer, and a meta-learned start"
INNER_STEPS, TASK_CLASSES, TOWARDS = 10, 20, 0.3
TUNED = (50, 200)
"""Steps of the fine-tune."""
COMPONENTS = 10
RANDOM, SEED, META = "random weights", "European seed, quantized", "meta-learned on European characters"


def run(quick: bool, data: Path) -> Figures:
    """Train the starts, and fine-tune all of them to ideographs."""
    import torch

    from . import glyphs, parts

    torch.set_num_threads(1)
    steps, tuned = (20, (2, 4)) if quick else (glyphs.SHORT_STEPS, TUNED)
    source, target = glyphs.load(data, glyphs.EUROPEAN), glyphs.load(data, glyphs.IDEOGRAPHS)
    measure.say("transfer: training on European characters")
    trained = glyphs.teacher(source, steps, None if quick else glyphs.KEPT)
    graph = glyphs.graph_of(trained)
    published, reduced = parts.seed_of(graph, parts.moments_plans(graph, COMPONENTS))
    size, integers = parts.seed_of(graph, parts.grid_plans(graph, published))
    starts: dict[str, tuple[Any, int | None]] = {
        RANDOM: (glyphs.network(source.classes, rng_seed=7), None),
        "European weights": (trained, 4 * graph.parameters),
        SEED: (glyphs.with_weights(trained, integers), size),
        "European seed, as published": (glyphs.with_weights(trained, reduced), published),
    }
    measure.say("transfer: meta-learning")
    starts[META] = _reptile(glyphs.network(source.classes, rng_seed=7), source, steps), 4 * graph.parameters
    rows = []
    for title, (start, weight) in starts.items():
        measure.say(f"transfer: {title}")
        begun = _with_head(start, target.classes)
        accuracy = {str(count): glyphs.quality(glyphs.tuned(begun, target, count), target) for count in tuned}
        rows.append({"title": title, "bytes": weight, "accuracy": {k: v["accuracy"] for k, v in accuracy.items()}})
    measure.say("transfer: training on ideographs")
    own = glyphs.teacher(target, steps)
    return {
        "classes": target.classes, "held": len(target.held[1]), "steps": steps, "rows": rows,
        "own": glyphs.quality(own, target)["accuracy"],
    }  # fmt: skip


def section(records: dict[str, Figures]) -> list[str]:
    """Write the part of the page."""
    found = records["transfer"]
    tuned = list(found["rows"][0]["accuracy"])
    lines = [
        f"Starts for a classifier of {found['classes']} ideographs, {found['held']:,} held-out pictures.",
        (
            f"Each was trained on European characters for {found['steps']} batches, gets a new classifier, and is "
            "fine-tuned with labels; random weights get the same fine-tune, and a network trained on ideographs for "
            f"{found['steps']} batches reaches {100 * found['own']:.1f} %."
        ),
        "",
        f"| start | bytes of the start | {' | '.join(f'after {count} steps' for count in tuned)} |",
        f"|---|--:|{'--:|' * len(tuned)}",
    ]
    for row in found["rows"]:
        shares = [f"{100 * row['accuracy'][count]:.1f} %" for count in tuned]
        lines.append(f"| {row['title']} | {row['bytes'] or 0:,} | {' | '.join(shares)} |")
    of = {row["title"]: row["accuracy"][tuned[-1]] for row in found["rows"]}
    gain = 100 * (of[META] - max(of["European weights"], of[SEED]))
    verdict = "declined" if gain < 1 else "worth another look"
    lines += [
        "",
        (
            f"A meta-learned start was tried, and is {verdict}: it ends {abs(gain):.1f} points "
            f"{'above' if gain > 0 else 'below'} the best start that was trained as usual."
        ),
        (
            "A start that all devices hold is a decoder's size that no seed counts: it would have to be pushed to each "
            "of them once, for each architecture."
        ),
        (
            "What it promises, a version against weights that are there already, are differences to a base seed, and "
            "any trained model can be that base."
        ),
    ]
    return lines


def charts(records: dict[str, Figures]) -> dict[str, str]:
    """Draw the accuracy of all starts."""
    groups = {
        row["title"].replace(" on European characters", ""): {
            f"after {count} steps": 100 * share for count, share in row["accuracy"].items()
        }
        for row in records["transfer"]["rows"]
    }
    return {"transfer": chart.bars("Ideographs: held-out accuracy by start", groups, "%")}


def _with_head(start: Any, classes: int) -> Any:
    """Return the network with a new classifier, the same one for every start."""
    from . import glyphs

    begun = copy.deepcopy(start)
    begun[-1] = glyphs.network(classes, rng_seed=11)[-1]
    return begun


def _reptile(model: Any, task: Any, steps: int) -> Any:
    """Move the weights towards those of tasks with some of the classes, and return the network."""
    import torch

    from . import glyphs

    rng = torch.Generator().manual_seed(0)
    count = min(TASK_CLASSES, task.classes)
    for index in range(max(1, steps // INNER_STEPS)):
        some = torch.randperm(task.classes, generator=rng)[:count].sort().values
        inner = _with_head(model, count)
        glyphs.train(inner, task, INNER_STEPS, glyphs.TEACHER_RATE, rng_seed=index, only=some)
        with torch.no_grad():
            learned = inner[:-1].state_dict()
            for name, values in model[:-1].state_dict().items():
                if values.is_floating_point():
                    values += TOWARDS * (learned[name] - values)
    return model
