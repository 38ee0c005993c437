"""Measure the training graphs of the public models: size, time to build, and their gradients beside torch's.

Gradients are those of all trained tensors for two inputs, as ONNX Runtime computes them in float32; beside them those
of torch in float32, and those of the same graph in float64, where no rounding decides on which side of a bend a value
lies. Distances are from torch's own gradients of the model in float64, as a part of their norm. In float64 the graph's
operators are computed by torch one by one, since ONNX Runtime has no convolutions of float64; torch's autograd takes
no part in that.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import measure
from bench.measure import Figures, Goal
from bench.skeleton_graph import graph_of
from seed_exporter import loaders
from seed_exporter.evaluate.model_files import write_model_files
from seed_exporter.graph.model import Graph
from seed_exporter.skeletons import builder_for
from seed_exporter.training import prepare, training_part
from seed_runtime import backends
from seed_runtime.codecs.encode.packing import pack
from seed_runtime.skeletons.onnx_selection import select
from seed_runtime.skeletons.training import COSINE, LEVELS, LOSS, SQUARED_ERROR, TARGET, scan_training

if TYPE_CHECKING:
    from seed_exporter.heal.registry import Call

TITLE = "Gradients"
MODELS = ("magika", "efflite0", "ppcls", "ppdet", "pprec", "minilm6", "basicpitch")
SQUARED = {"ppdet"}
"""Models whose loss here is the squared error; the others' is the cross-entropy."""
INPUTS = 2
DISTANCE_MOST, BYTES_MOST, SECONDS_MOST = 1e-5, 16_384, 5.0

Arrays = list[np.ndarray]


def run(*, quick: bool = False) -> Figures:
    """Measure all models, or with `quick` the first one.

    Raises:
        ModuleNotFoundError: torch isn't installed.
        FileNotFoundError: a model isn't prepared (`python -m bench.public prepare`).
    """
    from bench import public

    rows = []
    with measure.scratch() as folder:
        for name in MODELS[: 1 if quick else None]:
            measure.note(f"gradients: {name}")
            rows.append(measured(name, folder / name, public.cache_folder()))
            measure.say(str(rows[-1]))
    goals = (
        Goal("largest distance from torch's in float64", most(rows, "distance_float64"), DISTANCE_MOST, ""),
        Goal("largest training graph", most(rows, "bytes"), BYTES_MOST, "B"),
        Goal("longest time to build one", most(rows, "seconds"), SECONDS_MOST, "s"),
    )
    return {"rows": rows, "goals": [goal.as_json() for goal in goals]}


def most(rows: list[Figures], key: str) -> float:
    """Return the largest of a figure."""
    return float(max(row[key] for row in rows))


def measured(name: str, folder: Path, models: Path) -> Figures:
    """Build the training graph of one model, and compare its gradients.

    Args:
        name: of the model.
        folder: is made, for files.
        models: folder of the prepared models.
    """
    import torch

    from bench import public

    torch.set_num_threads(1)
    source = models / name / "model.onnx"
    if not source.is_file():
        raise FileNotFoundError(f"{source} is missing; run python -m bench.public prepare {name}")
    folder.mkdir()
    original = loaders.load(source)
    start = time.process_time()
    graph = prepare(original)
    part = training_part(graph, list(graph.weights))
    seconds = time.process_time() - start
    skeleton = builder_for(graph).build(list(graph.weights))
    info = scan_training(part, skeleton.data, skeleton.holes)
    write_model_files(graph, folder)
    tensors = {each.name: each.output for each in info.tensors}
    needed = select(part, [LOSS, *tensors.values()])
    feeds = public.MODELS[name].inputs(models, INPUTS, "calib")[0]
    factors = {each: np.array(0, np.float32) for each in (info.cross_entropy, SQUARED_ERROR, COSINE)}
    factors[SQUARED_ERROR if name in SQUARED else info.cross_entropy] = np.array(1, np.float32)
    output = graph.model.graph.output[0].name
    given = {**feeds, **factors, TARGET: _target(graph, feeds, output, None if name in SQUARED else info.axis)}
    runner = backends.get().open_joined(skeleton.data + needed, folder, threads=1)
    try:
        found = runner.run(given, list(tensors.values()))
    finally:
        runner.close()
    names = [hole.name for hole in skeleton.holes]
    whole = graph_of(skeleton.data, needed, skeleton.holes, lambda number: graph.weights[names[number]].data)
    by_graph, expected = _in_torch(whole, given, tensors, torch.float64)
    _, single = _in_torch(whole, given, tensors, torch.float32)
    levels = [sum(each.level == level for each in info.tensors) for level in range(len(LEVELS))]
    return {
        "model": name,
        "tensors": levels,
        "norms": len(info.norms),
        "bytes": len(pack(part)[1]),
        "seconds": measure.rounded(seconds),
        "distance_float64": measure.rounded(distance(by_graph, expected)),
        "distance": measure.rounded(distance([found[each] for each in tensors.values()], expected)),
        "distance_torch": measure.rounded(distance(single, expected)),
    }


def distance(found: Arrays, expected: Arrays) -> float:
    """Return the distance of all gradients, as a part of the norm of the expected ones."""
    over = sum(float(np.square(a.astype(np.float64) - b).sum()) for a, b in zip(found, expected, strict=True))
    return float(np.sqrt(over / sum(float(np.square(b).sum()) for b in expected)))


def _target(graph: Graph, feeds: Mapping[str, np.ndarray], output: str, axis: int | None) -> np.ndarray:
    """Return random numbers of an output's shape, shares of classes along an axis."""
    from seed_exporter.heal.interpreter import Interpreter

    shape = tuple(Interpreter(graph).run(feeds)[output].shape)
    found = np.random.default_rng(0).standard_normal(shape)
    if axis is not None:
        found = np.exp(found) / np.exp(found).sum(axis=axis, keepdims=True)
    return found.astype(np.float32)


def _in_torch(
    graph: Graph, feeds: Mapping[str, np.ndarray], tensors: Mapping[str, str], dtype: Any
) -> tuple[Arrays, Arrays]:
    """Compute a model's loss and its gradients in torch.

    Args:
        graph: a model joined to its training graph.
        feeds: its inputs.
        tensors: outputs with gradients, by the names of what they are of.
        dtype: of all floats.

    Returns:
        Gradients as the graph's own operators give them, and as torch's autograd gives them from the loss alone.
    """
    import torch

    from seed_exporter.heal.interpreter import Interpreter

    pools = [node.output[0] for node in graph.model.graph.node if node.op_type == "MaxPool" and len(node.output) > 1]
    interpreter = Interpreter(graph, dtype, replaced=dict.fromkeys(pools, _pooled))
    weights = interpreter.weights()
    with torch.no_grad():
        outputs = interpreter.run(feeds, weights)
    for name in tensors:
        weights[name].requires_grad_()
    loss = interpreter.run(feeds, weights)[LOSS]
    by_autograd = torch.autograd.grad(loss, [weights[name] for name in tensors])
    return [outputs[each].numpy() for each in tensors.values()], [each.numpy() for each in by_autograd]


def _pooled(call: Call) -> list[Any]:
    """Compute MaxPool's outputs: the largest values, and where they are in the whole input."""
    import torch

    from seed_exporter.heal.windows import window_of

    window = window_of(call, call.x, call.attribute("kernel_shape"))
    places = torch.arange(call.x.numel(), dtype=torch.float64).view_as(call.x)
    image, places = window.pad(call.x, -torch.inf), window.pad(places, -1.0)
    found, at = torch.nn.functional.max_pool2d(
        image, window.kernel, window.strides, 0, window.dilations, return_indices=True
    )
    return [found, places.flatten(2).gather(2, at.flatten(2)).view_as(at).long()]


def table(figures: Figures) -> list[str]:
    """Return a line for each model."""
    lines = [
        (
            "| model | tensors: head, small, full | batch norms | training graph [B] | built in [s] "
            "| distance in float64 | float32, ONNX Runtime | float32, torch |"
        ),
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in figures["rows"]:
        distances = " | ".join(f"{row[each]:.1e}" for each in ("distance_float64", "distance", "distance_torch"))
        lines.append(
            f"| {row['model']} | {', '.join(map(str, row['tensors']))} | {row['norms']} | {row['bytes']:,} "
            f"| {row['seconds']:.1f} | {distances} |"
        )
    return lines
