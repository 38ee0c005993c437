"""Assembling on two cores against one: the same seed, with this process kept on one core and on two, in turn.

From the seed file to float weights in theirs, with all digests, `fsync` and renaming, as bench/decode.py measures it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench import decode, measure, synthetic
from bench.measure import Figures, Goal
from seed_exporter.graph.model import Graph


@dataclass(frozen=True)
class Case:
    """Shapes with drawn weights, at about three bits a weight."""

    title: str
    graph: Callable[[], Graph]


CASES = {
    "minilm6": Case("MiniLM-L6's shapes", lambda: synthetic.gpt2(layers=6, width=384, tokens=30522)),
    "resnet50": Case("ResNet-50's shapes", synthetic.resnet50),
}
FACTOR = 1.7


def run(quick: bool = False) -> Figures:
    rows: list[Figures] = []
    for name, case in list(CASES.items())[: 1 if quick else None]:
        with measure.scratch() as folder:
            measure.note(f"{case.title}: drawing, encoding")
            graph = case.graph()
            decode.at_three_bits(graph, folder / "model.seed")
            row = {"case": name, "title": case.title, "weights": graph.parameters}
            child = subprocess.run(
                [sys.executable, "-m", "bench.two_cores", str(folder), "3" if quick else "7"],
                stdout=subprocess.PIPE, check=True, text=True,
            )  # fmt: skip
            rows.append(row | json.loads(child.stdout))
    goals = [Goal(f"{row['title']}: time on one core, of two", row["factor"], FACTOR, "x", least=True) for row in rows]
    return {"rows": rows, "goals": [goal.as_json() for goal in goals]}


def _measured(folder: Path, count: int) -> Figures:
    import seed_runtime

    target, cores = folder / "assembled", sorted(os.sched_getaffinity(0))[:2]

    def on(number: int) -> Callable[[], measure.Spent]:
        def assemble() -> measure.Spent:
            shutil.rmtree(target, ignore_errors=True)
            os.sched_setaffinity(0, set(cores[:number]))
            return measure.spent(lambda: seed_runtime.open(folder / "model.seed").assemble(target))

        return assemble

    on(2)()  # loads code, and isn't counted
    times = measure.rounds({"one": on(1), "two": on(2)}, count)
    return {
        "one_s": measure.rounded(measure.median([spent.wall for spent in times["one"]])),
        "two_s": measure.rounded(measure.median([spent.wall for spent in times["two"]])),
        "factor": measure.rounded(measure.median_ratio(times["one"], times["two"], "wall")),
        "rounds": count,
        "load": measure.load(),
    }


def table(figures: Figures) -> list[str]:
    lines = ["| assembling | weights | one core, s | two cores, s | factor |", "|---|--:|--:|--:|--:|"]
    return lines + [
        f"| {row['title']} | {row['weights'] / 1e6:.1f} M | {row['one_s']:.2f} | {row['two_s']:.2f} "
        f"| **{row['factor']:.2f}** |"
        for row in figures["rows"]
    ]


if __name__ == "__main__":
    print(json.dumps(_measured(Path(sys.argv[1]), int(sys.argv[2]))))
