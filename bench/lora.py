"""Compare deltas of the tuner with low-rank adapters (LoRA, QLoRA) of the same samples, by bytes and accuracy.

The classifier of bench/matters/glyphs.py and its seeds of 26 and 32 KB are those of bench/finetune.py, and so are
samples and pictures that judge. Adapters of each rank are trained in torch over the seed's own weights (QLoRA), or over
the original's and then added to the seed's (LoRA); each file is coded like a delta. Rates are chosen by the validation
part of the first draw. Of adapters each quantization step and rank counts that turns out best on what judges, which is
in their favour; a delta has the steps that the tuner chose.

It needs torch, and the pictures that `python -m bench.claims.data glyphs --out build/claims` draws.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import seed_exporter
import seed_runtime
from bench import chart, measure
from bench.finetune import STARTS
from bench.finetune_runs import accuracy, drawn, judging, tuned
from bench.measure import Figures, Goal
from seed_exporter.results import Options
from seed_runtime.assembly.cache import ModelCache
from seed_runtime.seed import Seed
from seed_runtime.tune.samples import Samples, split

if TYPE_CHECKING:
    from bench.lora_adapters import Adapter, Trainer

TITLE = "Adapters of low rank"
DATA = Path("build/claims")
SEEDS = ("--size 26KB --effort 1", "--size 32KB --effort 1")
"""Of `STARTS`."""
DELTAS = (("auto", None), ("bn", None), ("head", None), ("small", None), ("auto", 1_000), ("auto", 16_000))
"""Modes of the tuner, and limits of the delta; None for the default [B]."""
DEFAULT = "`auto`"
DELTA, QLORA, LORA = "delta", "QLoRA", "LoRA"
"""Kinds of files: ours, and adapters that were trained over the seed's weights and over the original's."""
VECTORS = ", scales and biases"
"""Behind the rank of adapters with which these were trained."""
ORIGINAL, WHOLE = "the original", Options(method="lossless", finetune_graph=True)
RANKS, RATES, SHARES, DRAWS = (1, 2, 4, 8), (3e-3, 1e-2), (1.0, 0.5), 3
"""Ranks; rates to choose from; steps of factors as shares of their root mean square; draws of the samples."""
CACHE_BYTES = 1 << 30


def run(*, quick: bool = False) -> Figures:
    """Tune and train on each draw, or with `quick` on one draw of one seed at one rank.

    Raises:
        FileNotFoundError: the pictures aren't there (`python -m bench.claims.data glyphs --out build/claims`).
    """
    import torch

    from bench import lora_adapters as adapters
    from bench.matters import glyphs

    torch.set_num_threads(1)
    task = glyphs.load(DATA, glyphs.EUROPEAN)
    network = glyphs.teacher(task, 20 if quick else glyphs.SHORT_STEPS, None if quick else glyphs.KEPT)
    rows: list[Figures] = []
    with measure.scratch() as folder:
        model, cache = glyphs.write_onnx(network, folder / "model.onnx"), ModelCache(folder / "cache", CACHE_BYTES)
        original, before = accuracy(model, task), {}
        judged = dict(zip(("image", "labels"), judging(task), strict=True))
        seeds: dict[str, list[Trainer]] = {}
        draws = range(1 if quick else DRAWS)
        for number, name in enumerate([*SEEDS[: 1 if quick else None], ORIGINAL]):
            path = folder / f"{number}.seed"
            seed_exporter.export(model, output=path, options=STARTS.get(name, WHOLE))
            deltas = () if name == ORIGINAL else DELTAS[: 1 if quick else None]
            for (mode, limit), draw in itertools.product(deltas, draws):
                measure.note(f"lora: {name}, {mode}, draw {draw}")
                found = tuned(path, task, draw, original, cache, mode, limit)
                before[name] = found["before"]
                what = f"`{mode}`" + ("" if limit is None else f", at most {limit:,} B")
                rows.append(_row(name, DELTA, what, draw, found["delta"], found["after"]))
            seed = seed_runtime.open(path)
            trainers = [_trainer(seed, task, draw, cache) for draw in draws]
            kinds = [(rank, False) for rank in RANKS] + [(rank, True) for rank in (0, *RANKS) if name != ORIGINAL]
            for rank, with_vectors in kinds[: 1 if quick else None]:
                measure.note(f"lora: {name}, rank {rank}")
                for draw, share, adapter in _adapters(trainers, rank, with_vectors):
                    size, decoded = adapters.quantized(adapter, share, seed)
                    kind = LORA if name == ORIGINAL else QLORA
                    what = f"rank {rank}{VECTORS * with_vectors}, steps of {share:g}"
                    rows.append(_row(name, kind, what, draw, size, trainers[draw].accuracy(decoded, judged)))
                    for other, over in seeds.items() if name == ORIGINAL else ():
                        right = over[draw].accuracy(over[draw].of_shapes(decoded), judged)
                        rows.append(_row(other, kind, what, draw, size, right))
            seeds[name] = trainers
    figures = {"original": measure.rounded(original), "before": before, "points": means(rows), "rows": rows}
    return figures | {"goals": [goal.as_json() for goal in goals(figures)]}


def _trainer(seed: Seed, task: Any, draw: int, cache: ModelCache) -> Trainer:
    """Return what trains adapters on a draw's samples, which are divided as the tuner divides them."""
    from bench.lora_adapters import Trainer

    samples = drawn(task, draw)
    labels = samples["labels"]
    parts = split(Samples({}, labels, len(labels), None, ""), labels, np.random.default_rng(draw))
    return Trainer(seed, samples, parts, cache)


def _adapters(trainers: Sequence[Trainer], rank: int, with_vectors: bool) -> Iterator[tuple[int, float, Adapter]]:
    """Yield draws, steps and adapters of a rank; the rate is chosen by the validation part of the first draw."""
    first = [(rate, trainers[0].train(rank, rate, with_vectors, 0)) for rate in RATES]
    rate, best = max(first, key=lambda pair: (pair[1].score.value, -pair[1].score.loss))
    for draw, trainer in enumerate(trainers):
        found = trainer.train(rank, rate, with_vectors, draw) if draw else best
        yield from ((draw, share, found) for share in (SHARES if rank else SHARES[-1:]))


def _row(seed: str, kind: str, what: str, draw: int, size: int, right: float) -> Figures:
    found = {
        "seed": seed, "kind": kind, "what": what, "draw": draw, "bytes": size, "accuracy": measure.rounded(right)
    }  # fmt: skip
    measure.say(str(found))
    return found


def means(rows: Sequence[Figures]) -> list[Figures]:
    """Return bytes and accuracy of each setting, means over draws."""
    groups = defaultdict(list)
    for row in rows:
        groups[row["seed"], row["kind"], row["what"]].append(row)
    return [
        {
            "seed": seed, "kind": kind, "what": what, "bytes": round(np.mean([row["bytes"] for row in group])),
            "accuracy": measure.rounded(float(np.mean([row["accuracy"] for row in group]))),
        }
        for (seed, kind, what), group in groups.items()
    ]  # fmt: skip


def frontier(points: Sequence[Figures]) -> list[Figures]:
    """Return the points that are more often right than all that take as few bytes, in the order of bytes."""
    found: list[Figures] = []
    for point in sorted(points, key=lambda point: (point["bytes"], -point["accuracy"])):
        if not found or point["accuracy"] > found[-1]["accuracy"]:
            found.append(point)
    return found


def bytes_of_adapter(points: Sequence[Figures], seed: str, right: float) -> float:
    """Return the bytes of the smallest adapters that are as often right; infinite where none are."""
    fit = [point["bytes"] for point in points if _is_adapter_of(point, seed) and point["accuracy"] >= right]
    return float(min(fit, default=math.inf))


def _is_adapter_of(point: Figures, seed: str) -> bool:
    return bool(point["seed"] == seed and point["kind"] != DELTA)


def goals(figures: Figures) -> list[Goal]:
    """Return how the default deltas compare."""
    deltas = [point for point in figures["points"] if point["kind"] == DELTA and point["what"] == DEFAULT]
    return [
        Goal(
            f"{point['seed']}: delta of `auto`, of the smallest adapter as accurate",
            point["bytes"] / bytes_of_adapter(figures["points"], point["seed"], point["accuracy"]),
            1,
            "",
        )
        for point in deltas
    ]


def table(figures: Figures) -> list[str]:
    """Return a line for each delta, and each adapter of the frontiers."""
    lines = ["| seed | what | file [B] | right | smallest adapter as accurate [B] |", "|---|---|--:|--:|--:|"]
    points = figures["points"]
    for seed in [*figures["before"], ORIGINAL]:
        mine = [point for point in points if point["seed"] == seed]
        if seed in figures["before"]:
            lines.append(f"| {seed} | the seed alone | 0 | {100 * figures['before'][seed]:.1f} % | |")
        else:
            lines.append(f"| {seed} | alone | 0 | {100 * figures['original']:.1f} % | |")
        for point in mine:
            if point["kind"] == DELTA:
                beside = bytes_of_adapter(points, seed, point["accuracy"])
                shown = "none" if math.isinf(beside) else f"{beside:,.0f}"
                lines.append(f"| {seed} | delta, {_cells(point)} | {shown} |")
        for kind in (QLORA, LORA):
            best = frontier([point for point in mine if point["kind"] == kind])
            lines += [f"| {seed} | {kind}, {_cells(point)} | |" for point in best]
    return lines


def _cells(point: Figures) -> str:
    return f"{point['what']} | {point['bytes']:,} | {100 * point['accuracy']:.1f} %"


def charts(figures: Figures) -> dict[str, str]:
    """Draw deltas and the frontiers of adapters for each seed."""
    across = chart.Axis("bytes of the file", True, "{:,.0f}".format)
    up = chart.Axis("right answers", False, "{:.0%}".format)
    found = {}
    for number, seed in enumerate(figures["before"]):
        mine = [point for point in figures["points"] if point["seed"] == seed]
        adapters = [point for point in mine if point["kind"] == QLORA]
        series = {
            "deltas": [point for point in mine if point["kind"] == DELTA],
            "QLoRA": [point for point in adapters if VECTORS not in point["what"]],
            "QLoRA with scales and biases": [point for point in adapters if VECTORS in point["what"]],
        }
        places = {
            name: [(point["bytes"], point["accuracy"]) for point in frontier(points)] for name, points in series.items()
        }
        found[f"lora_{number}"] = chart.lines(f"{seed}: means of {DRAWS} draws", places, across, up)
    return found
