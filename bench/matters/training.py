"""Ablations of healing: of the trials, of the small classifier here, and of large models where they were run.

Every record whose name begins with `training` counts: `{"source": ..., "runs": [...]}`, each run with `question` (a key
of QUESTIONS), `model`, `variant`, `bytes` of the whole seed and `quality`, held out; None for what wasn't measured.
`run` writes docs/what-matters/training.json; runs on a GPU go into a file of their own beside it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from bench import chart, measure
from bench.measure import Figures

TITLE = "Ablations of training"
QUESTIONS = {
    "noise or straight-through": "noise in place of straight-through rounding (Quant-Noise)",
    "tables or contexts": "the rate by one table for each matrix, or by factors of rows and columns",
    "schedule": "when the size is reached, and when learning rates fall",
    "start": "the original's weights or random ones",
    "batch norms": "statistics as they run along, or estimated anew",
}

STEPS, SIZE = 600, 24_000
"""Optimizer steps of a run, and bytes of the whole seed [B]."""
MODEL = "100 characters"


def run(quick: bool, data: Path) -> Figures:
    """Heal the classifier of 100 characters with each variant."""
    import torch

    from seed_exporter.heal.settings import HealSettings

    from . import glyphs, parts

    torch.set_num_threads(1)
    task = glyphs.load(data, glyphs.EUROPEAN)
    teacher = glyphs.teacher(task, 20) if quick else glyphs.teacher(task, glyphs.SHORT_STEPS, glyphs.KEPT)
    graph = glyphs.graph_of(teacher)
    plain = HealSettings(steps=10 if quick else STEPS, looks=10, left_out=0.03, estimate=20)
    variants: dict[str, tuple[str, Any, Any]] = {
        "straight-through": ("noise or straight-through", plain, None),
        "a random half is rounded in each step": ("noise or straight-through", plain, _half_rounded),
        "uniform noise in place of rounding": ("noise or straight-through", plain, _uniform_noise),
        "factors of rows, columns and taps": ("tables or contexts", plain, None),
        "one scale for each matrix": ("tables or contexts", plain, _one_scale),
        "size at .5 of the run, rates fall from .5 on": ("schedule", plain, None),
        "size at .65, rates fall from .75 on": ("schedule", replace(plain, descent=0.65, fold=0.65, decay=0.75), None),
    }
    runs: list[Figures] = []
    known: dict[Any, Figures] = {}
    for variant, (question, settings, change) in list(variants.items())[: 2 if quick else None]:
        measure.say(f"training: {variant}")
        key = settings, change
        if key not in known:
            known[key] = healed(graph, task, settings, change)
        runs.append({"question": question, "model": MODEL, "variant": variant, **known[key]})
    size, weights = parts.seed_of(graph, parts.grid_plans(graph, runs[0]["bytes"]))
    rounded = glyphs.quality(glyphs.with_weights(teacher, weights), task)["accuracy"]
    return {
        "source": f"{task.classes} characters, {graph.parameters:,} parameters, {plain.steps} steps of 32 pictures on "
        "a CPU",
        "original": glyphs.quality(teacher, task)["accuracy"],
        "rounded": {"bytes": size, "quality": rounded},
        "runs": runs,
    }


def section(records: dict[str, Figures]) -> list[str]:
    """Write the part of the page."""
    trials = records["trials"]
    runs = [{**run, "of": "trial"} for run in trials["training"]]
    own = {name: record for name, record in records.items() if name.startswith("training")}
    runs += [{**run, "of": "product"} for record in own.values() for run in record["runs"]]
    lines = [
        "Runs of the small classifier differ in the named setting alone; rows of the trials in all that they name.",
        "",
        "| question | model | variant | bytes | quality | measured on |",
        "|---|---|---|--:|--:|---|",
    ]
    for question, about in QUESTIONS.items():
        found = [run for run in runs if run["question"] == question]
        lines += [
            f"| {question} | {run['model']} | {run['variant']} | {_count(run['bytes'])} | {_share(run['quality'])} "
            f"| {run['of']} |"
            for run in found
        ] or [f"| {question} | | {about} | | | not measured yet |"]
    for record in own.values():
        lines += ["", f"The product's runs: {record['source']}."]
        if "rounded" in record:
            lines.append(
                f"The original is right in {100 * record['original']:.1f} %, rounded to nearest without training, in "
                f"{record['rounded']['bytes']:,} bytes, in {100 * record['rounded']['quality']:.1f} %; a standard "
                "error is .5 points. So neither one scale a matrix nor the later schedule is worse here than what "
                "healing does; on larger models neither was tried."
            )
    lines += [
        "",
        "As coders of the same healed integers, tables and contexts were compared on all models [B]:",
        "",
        "| model | one table for each matrix | tables for classes, factors sent | adaptive, nothing sent |",
        "|---|--:|--:|--:|",
        *(
            f"| {row['model']} | {_count(row['one_table'])} | {_count(row['classes'])} | {_count(row['adaptive'])} |"
            for row in trials["coder"]
        ),
        "",
        (
            "Contexts are worth 41 % where megabytes are coded, and nothing at tens of kilobytes, where sending the "
            "factors costs what they save; there the adaptive coder needs none."
        ),
    ]
    return lines


def charts(records: dict[str, Figures]) -> dict[str, str]:
    """Draw the coders, as shares of one table for each matrix."""
    groups = {
        row["model"]: {
            "tables for classes": 100 * row["classes"] / row["one_table"],
            "adaptive": 100 * row["adaptive"] / row["one_table"],
        }
        for row in records["trials"]["coder"]
        if row["adaptive"]
    }
    return {"training-coder": chart.bars("Bytes by coder, of one table for each matrix", groups, "%")}


def _count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def healed(
    graph: Any,
    task: Any,
    settings: Any,
    change: Callable[..., Any] | None = None,
    size: int = SIZE,
    draw: Any | None = None,
) -> Figures:
    """Heal a graph and return the bytes and the held-out accuracy of its seed.

    Args:
        graph: the original.
        task: whose pictures are trained on and judged.
        settings: of healing.
        change: in the place of the quantizer that training uses; None for nothing.
        size: of the seed [B].
        draw: gives the batches, and has the pictures that judge; None for the task's own pictures as they are.
    """
    from bench import seeds
    from bench.public import onnx_run
    from seed_exporter.build import draft
    from seed_exporter.build.streams import encode
    from seed_exporter.graph.fold import fold_batch_norms
    from seed_exporter.heal.healing import Healing
    from seed_exporter.quantize import allocate
    from seed_exporter.quantize.allocate import VECTOR_BITS

    folded = fold_batch_norms(graph)
    model = seeds.model_of("matters", folded)
    feeds = [{"image": picture[None].numpy()} for picture in (task.train[0] if draw is None else draw.judges)]
    others = allocate.uniform(folded, {}, 1.0, VECTOR_BITS[1])

    def built(healed: Any, plans: Any) -> Any:
        return draft.build(healed, encode(healed, plans, jobs=1), model)

    with _changed(change):
        healing = Healing(
            graph, folded, feeds, others, lambda healed, plans: built(healed, plans).size, size,
            scores=frozenset({"logits"}), settings=settings, device="cpu", draw=draw,
        )  # fmt: skip
        healing.run(lambda: False, None)
    best = healing.best
    made = built(best.graph, best.plans)
    with tempfile.TemporaryDirectory() as folder:
        made.assemble(Path(folder))
        session = onnx_run(Path(folder) / "model.onnx", threads=1)
        answers = np.concatenate([session({"image": part.numpy()})[0] for part in task.held[0].split(500)])
    right = float(np.mean(answers.argmax(1) == task.held[1].numpy()))
    return {"bytes": made.size, "quality": measure.rounded(right)}


@contextmanager
def _changed(change: Callable[..., Any] | None) -> Iterator[None]:
    """Put a function in the place of the quantizer that training uses; None for nothing."""
    from seed_exporter.heal import matrices

    if change is None:
        yield
        return
    original = matrices.QuantizedRate.apply

    class Changed:
        @staticmethod
        def apply(*inputs: Any) -> Any:
            return change(original, *inputs)

    with mock.patch.object(matrices, "QuantizedRate", Changed):
        yield


def _half_rounded(quantize: Any, units: Any, growth: Any, *rest: Any) -> Any:
    """Leave a random half of the weights as they are in each step.

    Source: Fan et al., "Training with Quantization Noise for Extreme Model Compression", arXiv:2004.07320.
    """
    import torch

    rounded, *others = quantize(units, growth, *rest)
    if torch.is_grad_enabled():
        left = (units * torch.exp(-growth)[:, None, None, None] - rounded).detach()
        rounded = rounded + left * (torch.rand_like(left) < 0.5)
    return rounded, *others


def _uniform_noise(quantize: Any, units: Any, growth: Any, *rest: Any) -> Any:
    """Add uniform noise of one step in place of rounding."""
    import torch

    rounded, *others = quantize(units, growth, *rest)
    if torch.is_grad_enabled():
        left = (units * torch.exp(-growth)[:, None, None, None] - rounded).detach()
        rounded = rounded + left + torch.rand_like(left) - 0.5
    return rounded, *others


def _one_scale(quantize: Any, units: Any, growth: Any, rows: Any, columns: Any, taps: Any, structure: float) -> Any:
    """Give all elements of a matrix the same scale."""
    means = [part.mean(1, keepdim=True).expand_as(part).contiguous() for part in (rows, columns, taps)]
    return quantize(units, growth, *means, structure)
