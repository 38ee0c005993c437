"""A graph as plain files, and whether ONNX Runtime can run it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from seed_exporter.graph.model import Graph, Weight, all_graphs
from seed_exporter.skeletons.onnx import Skeletons
from seed_runtime.errors import UnsupportedError
from seed_runtime.skeletons.onnx import WEIGHTS_FILE

Weights = Mapping[str, np.ndarray] | Callable[[Weight], np.ndarray]


def to_model_file(
    graph: Graph, folder: Path, weights: Weights | None = None, skeletons: Skeletons | None = None
) -> Path:
    """Write `model.onnx` and `model.weights` into `folder`; the path of the first.

    `weights` gives each tensor's data in the layout of `Weight.data`: a mapping by name, or a function
    that is called for one weight at a time. Without it the graph's own are written, to compare with.
    `skeletons`: of the same graph, for those who write it many times.
    """
    built = (skeletons or Skeletons(graph)).draft(list(graph.weights))
    with (folder / WEIGHTS_FILE).open("wb") as file:
        for hole in built.holes:
            weight = graph.weights[hole.name]
            if weights is None:
                data = weight.data
            else:
                data = weights(weight) if callable(weights) else weights[hole.name]
            data = np.ascontiguousarray(data, dtype=weight.dtype.storage)
            if data.nbytes != hole.size:
                raise ValueError(f"{hole.name} takes {hole.size} bytes, not {data.nbytes}")
            file.seek(hole.offset)
            file.write(data.reshape(-1).view(np.uint8).data)
        file.truncate(built.weights_size)
    path = folder / "model.onnx"
    path.write_bytes(built.data)
    return path


def check_runnable(graph: Graph, skeletons: Skeletons | None = None) -> None:
    """Return if ONNX Runtime has every operator of the graph, here and on a device.

    Raises:
        UnsupportedError: it can't run; the message names the operator, its domain and the node.
    """
    skeletons = skeletons or Skeletons(graph)
    built = skeletons.draft(list(graph.weights))
    with tempfile.TemporaryDirectory(prefix="seed-check-") as name:
        path = Path(name) / "model.onnx"
        path.write_bytes(built.data)
        # Operators don't depend on values: a file of one hole costs no disk, and nothing is folded from it.
        with (Path(name) / WEIGHTS_FILE).open("wb") as file:
            file.truncate(built.weights_size)
        if _open(path, optimize=False) is None:
            skeletons.build(list(graph.weights))
            return
        # Some models run only after optimization, or with their real constants.
        path.unlink()
        problem = _open(to_model_file(graph, Path(name), skeletons=skeletons), optimize=True)
    if problem is not None:
        raise UnsupportedError(_explain(graph, problem))
    skeletons.build(list(graph.weights))


def _open(path: Path, *, optimize: bool) -> str | None:
    """What ONNX Runtime says against the model, None if it opens."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.add_session_config_entry("session.disable_prepacking", "1")
    try:
        ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no common root
        return str(error)
    return None


# How ONNX Runtime names an operator it lacks: "Fatal error: my.domain:Foo(-1) is not a registered
# function/op", "Could not find an implementation for Foo(7) node with name ''", "Op (Foo) ...".
_OPERATOR = re.compile(
    r"Fatal error: (?:(?P<domain>[\w.]*):)?(?P<op>\w+)\(-?\d+\) is not a registered"
    r"|implementation for (?:(?P<domain2>[\w.]*):)?(?P<op2>\w+)\(\d+\)"
    r"|No Op registered for (?P<op3>\w+)"
    r"|No opset import for domain:? '?(?P<domain3>[\w.]+)'?"
)


def _explain(graph: Graph, problem: str) -> str:
    import onnxruntime as ort

    found = _OPERATOR.search(problem)
    parts = found.groupdict() if found else {}
    op = parts.get("op") or parts.get("op2") or parts.get("op3")
    domain = parts.get("domain") or parts.get("domain2") or parts.get("domain3")
    line = problem.strip().splitlines()[0]
    for inner in all_graphs(graph.model.graph):
        for node in inner.node:
            if (
                (op or domain)
                and node.op_type == (op or node.op_type)
                and (domain in (None, node.domain) or (domain == "ai.onnx" and not node.domain))
            ):
                name = node.name or f"the one that makes {node.output[0]!r}"
                return (
                    f"ONNX Runtime {ort.__version__} has no operator {node.op_type} of domain "
                    f"{node.domain or 'ai.onnx'} (node {name}) for this model's types and opset: {line}; "
                    f"replace the operator, or export the model to another opset"
                )
    return f"ONNX Runtime {ort.__version__} can't open this model: {line}; correct the model and export it again"
