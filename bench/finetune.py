"""`python -m bench.finetune`: what a fine-tune on the device wins back of what quantization cost a classifier.

The classifier of bench/matters/glyphs.py becomes seeds; five labelled pictures a class, of training fonts, tune each
by `--mode auto` at its defaults. Original, seed, and seed with the written delta applied are judged on every second
picture in held-out fonts. Nothing is chosen by these: sizes and settings are constants. Beside them are steps of
the tiers `small` and `full`, each with torch's eager step of the same tensors in turn.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import seed_exporter
from bench import measure
from bench.finetune_runs import accuracy, judging, paired_steps, tuned
from bench.measure import Figures
from seed_exporter.results import Options
from seed_runtime.assembly.cache import ModelCache
from seed_runtime.tune.records import FULL, SMALL

RANDOM = "random weights, every bit"
STARTS = {
    "--size 26KB --effort 1": Options(size=26_000, effort=1, finetune_graph=True),
    "--size 32KB --effort 1": Options(size=32_000, effort=1, finetune_graph=True),
    "--method moments --size 32KB": Options(method="moments", size=32_000, finetune_graph=True),
    RANDOM: Options(method="lossless", finetune_graph=True),
}
"""Options of each seed; the last one's network was never trained."""
DRAWS = 3
"""Draws of pictures for each seed."""
CACHE_BYTES = 1 << 30
DATA_ERROR = 3  # exit code: data or a module are missing


def main(arguments: list[str] | None = None) -> int:
    """Measure all seeds, print the table."""
    options = _parser().parse_args(arguments)
    try:
        figures = measured(options.quick, options.data)
    except (FileNotFoundError, ModuleNotFoundError) as error:
        print(f"error: {error}; python -m bench.finetune --help says what is needed", file=sys.stderr)
        return DATA_ERROR
    print(json.dumps(figures) if options.json else "\n".join(table(figures)))
    return 0


def measured(quick: bool, data: Path) -> Figures:
    """Tune each seed on each draw, or with `quick` the first one once.

    Raises:
        FileNotFoundError: the pictures aren't in the folder.
        ModuleNotFoundError: torch isn't installed.
    """
    import torch

    from bench.matters import glyphs

    before, start = measure.load(), time.perf_counter()
    torch.set_num_threads(1)
    task = glyphs.load(data, glyphs.EUROPEAN)
    steps = 20 if quick else glyphs.SHORT_STEPS
    measure.say(f"a classifier of {task.classes} characters, {steps} steps")
    teacher = glyphs.teacher(task, steps, None if quick else glyphs.KEPT)
    with measure.scratch() as folder:
        paths = {
            kind: glyphs.write_onnx(model, folder / f"{kind}.onnx")
            for kind, model in (("trained", teacher), ("random", glyphs.network(task.classes)))
        }
        original = accuracy(paths["trained"], task)
        rows, cache = [], ModelCache(folder / "cache", CACHE_BYTES)
        for name, options in list(STARTS.items())[: 1 if quick else None]:
            measure.say(name)
            path = folder / f"{len(rows)}.seed"
            seed_exporter.export(paths["random" if name == RANDOM else "trained"], output=path, options=options)
            rows += [
                {"start": name, **tuned(path, task, draw, original, cache)} for draw in range(1 if quick else DRAWS)
            ]
        steps_beside = [paired_steps(folder / "0.seed", teacher, task, cache, tier) for tier in (SMALL, FULL)]
    return {
        "classes": task.classes, "parameters": sum(each.numel() for each in teacher.parameters()), "steps": steps,
        "judged": len(judging(task)[1]), "original": measure.rounded(original), "rows": rows,
        "steps_beside": steps_beside, "seconds": round(time.perf_counter() - start), "machine": measure.machine(),
        "load_before": before, "load_after": measure.load(),
    }  # fmt: skip


def table(figures: Figures) -> list[str]:
    """Return a line for each draw of each seed, and below what they are compared with."""
    lines = [
        "| start | whole seed [B] | before | after `auto` | loss won back | delta [B] | steps | seconds | kept |",
        "|---|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    for row in figures["rows"]:
        won = "" if row["won_back"] is None else f"{100 * row['won_back']:.0f} %"
        lines.append(
            f"| {row['start']} | {row['bytes']:,} | {100 * row['before']:.1f} % | {100 * row['after']:.1f} % | {won} "
            f"| {row['delta']:,} | {row['steps']} | {row['seconds']:.0f} | {', '.join(row['kept'])} |"
        )
    steps = figures["steps_beside"]
    return [
        *lines,
        "",
        f"The original is right in {100 * figures['original']:.1f} % of {figures['judged']:,} pictures.",
        f"The training graph takes {steps[0]['graph']:,} B.",
        *(
            f"Steps of `{step['tier']}` take {step['ratio']:.2f} times torch's: {1000 * step['seconds']:.1f} ms and "
            f"{1000 * step['torch']:.1f} ms of one thread; on the clock {step['ratio_on_the_clock']:.2f} times "
            f"(medians of {step['pairs']} pairs)."
            for step in steps
        ),
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.finetune",
        description="Measure what a fine-tune on the device wins back; some minutes.",
        epilog="The pictures are made by `python -m bench.claims.data glyphs --out build/claims`.",
    )
    parser.add_argument("--data", type=Path, default=Path("build/claims"), help="folder of the pictures")
    parser.add_argument("--quick", action="store_true", help="one draw of one seed: shows that everything works")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
