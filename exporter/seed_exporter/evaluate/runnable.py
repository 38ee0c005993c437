"""Check that a device's backend can run a graph."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from seed_exporter.evaluate.model_files import backend_of, write_model_files
from seed_exporter.graph.index import GraphIndex
from seed_exporter.graph.model import Graph
from seed_exporter.skeletons import SkeletonBuilder, builder_for
from seed_runtime import backends
from seed_runtime.backends.onnxruntime_errors import locale_advice, reason
from seed_runtime.errors import UnsupportedError
from seed_runtime.skeletons.onnx import MODEL_FILE, WEIGHTS_FILE
from seed_runtime.system.scratch import scratch_folder

# How ONNX Runtime names an operator it lacks: "Fatal error: my.domain:Foo(-1) is not a registered
# function/op", "Could not find an implementation for Foo(7) node with name ''", "Op (Foo) ...".
_OPERATOR: Final = re.compile(
    r"Fatal error: (?:(?P<domain>[\w.]*):)?(?P<op>\w+)\(-?\d+\) is not a registered"
    r"|implementation for (?:(?P<domain2>[\w.]*):)?(?P<op2>\w+)\(\d+\)"
    r"|No Op registered for (?P<op3>\w+)"
    r"|No opset import for domain:? '?(?P<domain3>[\w.]+)'?"
)


def check_runnable(graph: Graph, builder: SkeletonBuilder | None = None) -> None:
    """Return if ONNX Runtime, or LiteRT, has every operator of the graph, here and on a device.

    A TFLite model with operators of its maker's is accepted: it is not for us to run.

    Args:
        graph: the model.
        builder: a builder for the same graph, for callers who build it again later.

    Raises:
        UnsupportedError: ONNX Runtime can't run the model (the message names the operator, its domain and
            the node), or a device wouldn't accept its graph.
    """
    builder = builder or builder_for(graph)
    if graph.file is not None:
        builder.build(list(graph.weights))
        if not graph.file.info.custom_operators:
            with scratch_folder() as folder:
                write_model_files(graph, folder, builder=builder)
                backend = backend_of(folder)
                backend.open(folder, backend.modes[-1], 1).close()
        return
    skeleton = builder.build_unchecked(list(graph.weights))
    with scratch_folder() as folder:
        path = folder / MODEL_FILE
        path.write_bytes(skeleton.data)
        # Operators don't depend on values: a sparse file costs no disk, and nothing is folded from it.
        with (folder / WEIGHTS_FILE).open("wb") as file:
            file.truncate(skeleton.weights_size)
        if _opening_error(path, optimize=False) is None:
            builder.build(list(graph.weights))
            return
        # Some models run only after optimization, or with their real constants.
        path.unlink()
        problem = _opening_error(write_model_files(graph, folder, builder=builder), optimize=True)
    if problem is not None:
        raise UnsupportedError(_explain(graph, problem))
    builder.build(list(graph.weights))


def _opening_error(path: Path, *, optimize: bool) -> str | None:
    """Return ONNX Runtime's error on opening the model, None if it opens."""
    backends.get().load()  # imports it with its telemetry off, which would write to TMPDIR and open connections
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


def _explain(graph: Graph, problem: str) -> str:
    """Return one line that names the operator ONNX Runtime lacks, as far as its error tells."""
    backends.get().load()
    import onnxruntime as ort

    found = _OPERATOR.search(problem)
    parts = found.groupdict() if found else {}
    op = parts.get("op") or parts.get("op2") or parts.get("op3")
    domain = parts.get("domain") or parts.get("domain2") or parts.get("domain3")
    line = reason(problem)
    for node in GraphIndex(graph).nodes if op or domain else ():
        same_domain = domain in (None, node.domain) or (domain == "ai.onnx" and not node.domain)
        if same_domain and op in (None, node.op_type):
            name = node.name or f"the one that makes {node.output[0]!r}"
            return (
                f"ONNX Runtime {ort.__version__} has no operator {node.op_type} of domain "
                f"{node.domain or 'ai.onnx'} (node {name}) for this model's types and opset: {line}; "
                f"replace the operator, or export the model to another opset"
            )
    advice = locale_advice(problem) or "correct the model and export it again"
    return f"ONNX Runtime {ort.__version__} can't open this model: {line}; {advice}"
