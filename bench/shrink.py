"""What `--shrink` is worth: time of a call on one core, before and after, of models whose channels are dead.

Of ResNet-50 and MobileNetV2, whole rows are set to 0 in the shares that healing left in a trial: of ResNet-50 8 of 64
in the stem, then 54, 80, 92 and 93 % by stage; of MobileNetV2 68 % of all, most from block 3 on. Which rows of a
residual stream are dead is drawn for each layer that writes to it alone, which is the worst case (a channel goes only
if none of them has it), and once for a whole stage, which is the best one. Healing lies in between.
Of public models, the half of the neurons and heads with the smallest weights is set to 0. Their outputs are useless
then, but must be the same before and after.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bench import measure, synthetic
from bench.measure import Figures, Goal
from bench.public import MODELS, cache_folder
from seed_exporter import loaders
from seed_exporter.evaluate.model_files import write_model_files
from seed_exporter.graph.model import Graph
from seed_exporter.shrink.cost import shrinkage
from seed_exporter.shrink.run import shrink

ROUNDS = 15
RESNET_DEAD = {"stem": 8 / 64, "s0": 0.54, "s1": 0.80, "s2": 0.92, "s3": 0.93}
MOBILENET_DEAD = (0.1, 0.73)
"""Share of dead rows before block 3 and from there on, so that 68 % of all are dead."""
IMAGE = (1, 3, 224, 224)
HEAD = 32
"""Channels of one of MiniLM-L6's heads."""

Dead = Callable[[np.random.Generator], Mapping[str, np.ndarray]]
"""Draws for each weight which of its rows are dead."""


@dataclass(frozen=True)
class Case:
    """A model with dead rows, and how many times faster it must become."""

    title: str
    graph: Callable[[], Graph]
    dead: Dead
    goal: float | None = None


def run(quick: bool = False) -> Figures:
    measure.one_core()
    rows, goals = [], []
    with measure.scratch() as folder:
        for case in CASES:
            graph = case.graph()
            rows.append(_measured(case.title, without_rows(graph, case.dead), _image, folder, quick))
            if case.goal is not None:
                goals.append(Goal(f"{case.title}: times faster", rows[-1]["times"], case.goal, "x", least=True))
        for name in () if quick else PUBLIC:
            model = MODELS[name]
            graph = PUBLIC[name](loaders.load(model.prepare(cache_folder())))
            (feed,) = model.inputs(cache_folder(), 1, "calib")
            rows.append(_measured(f"{name}, half of it dead", graph, lambda feed=feed: feed, folder, quick))
    return {"rows": rows, "goals": [goal.as_json() for goal in goals]}


def table(figures: Figures) -> list[str]:
    lines = [
        "| model | channels left | multiply-adds | weights, MB | one call, ms | faster | error | shrinking, s |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    return lines + [
        f"| {row['title']} | {row['channels'][1]:,} of {row['channels'][0]:,} "
        f"| {_millions(row['multiply_adds'])} "
        f"| {row['mb'][0]:.1f} to {row['mb'][1]:.1f} | {row['ms'][0]:.2f} to {row['ms'][1]:.2f} "
        f"| **{row['times']:.2f}x** | {row['error']:.1e} | {row['shrink_s']:.1f} |"
        for row in figures["rows"]
    ]


def _millions(counts: tuple[int, int] | None) -> str:
    return "unknown" if counts is None else f"{counts[0] / 1e6:,.0f} to {counts[1] / 1e6:,.0f} M"


def _measured(title: str, graph: Graph, feed: Callable[[], Figures], folder: Path, quick: bool) -> Figures:
    measure.note(title)
    start = time.perf_counter()
    smaller = shrink(graph)
    seconds = time.perf_counter() - start
    calls = {}
    inputs = feed()
    for name, each in (("before", graph), ("after", smaller)):
        place = folder / f"{title}.{name}"
        place.mkdir()
        calls[name] = _session(write_model_files(each, place))
    first, second = (call(inputs) for call in calls.values())
    errors = [np.sqrt(np.mean((a - b) ** 2) / max(np.mean(a**2), 1e-30)) for a, b in zip(first, second, strict=True)]
    times = measure.rounds(
        {name: lambda call=call: measure.spent(lambda: call(inputs)) for name, call in calls.items()},
        5 if quick else ROUNDS,
    )
    found = shrinkage(graph, smaller, {name: array.shape for name, array in inputs.items()})
    return {
        "title": title,
        "channels": found.channels,
        "multiply_adds": found.multiply_adds,
        "mb": [sum(weight.size for weight in each.weights.values()) / 1e6 for each in (graph, smaller)],
        "ms": [measure.rounded(1e3 * measure.median([each.cpu for each in times[name]])) for name in calls],
        "times": measure.rounded(measure.median_ratio(times["before"], times["after"])),
        "error": float(max(errors)),
        "shrink_s": measure.rounded(seconds),
    }


def _session(path: Path) -> Callable[[Figures], list[np.ndarray]]:
    from bench.public import onnx_run

    return onnx_run(path, threads=1)


def _image() -> Figures:
    return {"input": np.random.default_rng(1).standard_normal(IMAGE).astype(np.float32)}


def without_rows(graph: Graph, dead: Dead) -> Graph:
    """Set the rows of weights to 0 that are dead, and their biases."""
    held = dict(graph.weights)
    for name, rows in dead(np.random.default_rng(10)).items():
        for each in {name, f"{name}.bias"} & held.keys():
            data = held[each].data.copy()
            data[rows] = 0
            held[each] = replace(held[each], data=data)
    return replace(graph, weights=held)


def resnet_dead(shared: bool) -> Dead:
    def draw(random: np.random.Generator) -> dict[str, np.ndarray]:
        found, stages = {}, {}
        for name, weight in synthetic.resnet50().weights.items():
            if name == "fc":
                continue
            share = RESNET_DEAD[name if name == "stem" else name[:2]]
            rows = random.random(weight.shape[0]) < share
            if shared and name.endswith((".c", ".down")):
                rows = stages.setdefault(name[:2], rows)
            found[name] = rows
        return found

    return draw


def mobilenet_dead(shared: bool) -> Dead:
    def draw(random: np.random.Generator) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        widths: dict[int, np.ndarray] = {}
        for name, weight in synthetic.mobilenet_v2().weights.items():
            if name == "fc":
                continue
            early = name == "stem" or (name != "head" and int(name[1:].split(".")[0]) < 3)
            rows = random.random(weight.shape[0]) < MOBILENET_DEAD[not early]
            if name.endswith(".deep"):  # what gets nothing gives nothing
                rows = found.get(name.replace("deep", "wide"), rows)
            if shared and name.endswith(".out"):
                rows = widths.setdefault(weight.shape[0], rows)
            found[name] = rows
        return found

    return draw


def _half_of_convolutions(graph: Graph) -> Graph:
    """Set the half of each convolution's rows to 0 that have the smallest norms, and their biases."""
    held = dict(graph.weights)
    for node in graph.model.graph.node:
        if node.op_type != "Conv" or node.input[1] not in held:
            continue
        data = held[node.input[1]].data
        norms = np.linalg.norm(data.reshape(len(data), -1), axis=1)
        rows = np.argsort(norms, kind="stable")[: len(norms) // 2]
        for name in node.input[1:]:
            if name in held:
                data = held[name].data.copy()
                data[rows] = 0
                held[name] = replace(held[name], data=data)
    return replace(graph, weights=held)


def _half_of_encoder(graph: Graph) -> Graph:
    """Set the half of the neurons to 0 that have the smallest norms, and the values of half of the heads."""
    held = dict(graph.weights)
    products = [node.input[1] for node in graph.model.graph.node if node.op_type == "MatMul" and node.input[1] in held]
    for name in [*products[2::6], *products[4::6]]:  # query, key, value, output, up, down
        data = held[name].data.copy()
        size = HEAD if data.shape[1] == data.shape[0] else 1
        norms = np.linalg.norm(data, axis=0).reshape(-1, size).sum(axis=1)
        units = np.argsort(norms, kind="stable")[: len(norms) // 2]
        data.reshape(len(data), -1, size)[:, units] = 0
        held[name] = replace(held[name], data=data)
    return replace(graph, weights=held)


CASES = (
    Case("ResNet-50, dead rows drawn by layer", synthetic.resnet50, resnet_dead(False), 5),
    Case("ResNet-50, dead rows drawn by stage", synthetic.resnet50, resnet_dead(True), 5),
    Case("MobileNetV2, dead rows drawn by layer", synthetic.mobilenet_v2, mobilenet_dead(False), 1.5),
    Case("MobileNetV2, dead rows drawn by stage", synthetic.mobilenet_v2, mobilenet_dead(True), 1.5),
)
PUBLIC = {"efflite0": _half_of_convolutions, "ppcls": _half_of_convolutions, "minilm6": _half_of_encoder}
