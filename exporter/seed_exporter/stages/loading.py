"""Read a model with what it answers, and measure the statistics that the method needs."""

from __future__ import annotations

import os
import re
from functools import partial
from pathlib import Path
from typing import Any

from seed_exporter import calibrate as statistics
from seed_exporter import loaders
from seed_exporter.evaluate.line import score_outputs
from seed_exporter.evaluate.reference import make_reference, unmeasured
from seed_exporter.evaluate.runnable import check_runnable
from seed_exporter.graph.model import Graph
from seed_exporter.graph.source_size import source_size
from seed_exporter.processing import attach
from seed_exporter.quantize.rounding.by_blocks import BlockRounder
from seed_exporter.records import Calibrated, Loaded, Work
from seed_exporter.results import Source
from seed_exporter.skeletons import builder_for
from seed_exporter.targets import FP32
from seed_runtime.errors import UnsupportedError, UsageError
from seed_runtime.format import primitives
from seed_runtime.limits import STRING_MAX


def load(model: Any, work: Work, **loader_options: Any) -> Loaded:
    """Read a model, make sure that ONNX Runtime runs it, and record what it answers."""
    with work.timed("load"):
        graph = loaders.load(model, **loader_options)
        skeletons = builder_for(graph)
        check_runnable(graph, skeletons)
        if graph.file is not None:
            _check_tflite_options(graph, work)
        graph = attach(graph, skeletons, model, work.options.processing, work.notes)
        model_id = _model_id(model, work)
    with work.timed("reference"):
        # Where every bit is kept, or nothing is measured, it doesn't matter how typical inputs are.
        generate = partial(statistics.excite, graph, work.folder, work.options.jobs)
        if graph.file is not None and graph.file.info.custom_operators:
            reference = unmeasured(graph)
        else:
            reference = make_reference(
                graph,
                skeletons,
                work.subfolder("original"),
                work.options.calib,
                generate if work.method.has_default else None,
                work.options.heal,
                mixes=work.method.has_quality
                and work.options.size is None
                and work.options.target is None
                and work.options.metric is None,
            )
    size = source_size(graph)
    source = Source(model_id, size.bytes, size.numbers, reference, score_outputs(graph), graph.file is None)
    # A metric that doesn't suit the outputs is said now, not after the search.
    source.damage(work.options, reference.outputs)
    work.notes.extend(source.doubts(work.options))
    return Loaded(source, graph, skeletons)


def calibrate(loaded: Loaded, work: Work) -> Calibrated:
    """Prepare the graph for the method, and measure the statistics that it needs."""
    with work.timed("search"):
        # A device trains scales and re-estimates statistics of batch norms, which must still be there.
        graph = loaded.graph if loaded.graph.trains else work.method.prepare(loaded.graph)
        skeletons = loaded.skeletons if graph is loaded.graph else builder_for(graph)
        feeds, folder = loaded.source.reference.calibration, work.subfolder("calibration")
        needs = work.method.needs(loaded.source.effort(work.options))
        if rounds := work.target.blocks and loaded.source.reference.kind == "real":
            needs |= {statistics.COVARIANCES}
        measured = statistics.collect(graph, needs, feeds, folder, work.options.jobs)
        if statistics.COVARIANCES in measured and (note := statistics.shortage(measured[statistics.COVARIANCES])):
            work.notes.append(note)
        if rounds:
            work.findings.blocks = BlockRounder(measured[statistics.COVARIANCES])
    return Calibrated(loaded.source, graph, skeletons, measured)


def _check_tflite_options(graph: Graph, work: Work) -> None:
    """Refuse what needs gradients or edits of a graph, and a search where the model can't be run."""
    options = work.options
    asked = {"--dtype": options.dtype != FP32.name and not work.is_auto}
    asked |= {
        "--heal": options.heal is not None,
        "--shrink": options.shrink,
        "--finetune-graph": options.finetune_graph,
    }
    for option, is_asked in asked.items():
        if is_asked:
            raise UsageError(f"{option} changes the graph of an ONNX model; leave it out for a TFLite model")
    assert graph.file is not None
    if work.method.has_sizes and (names := graph.file.info.custom_operators):
        raise UnsupportedError(
            f"this model has operators that only its maker's programs have ({', '.join(names)}), so that no damage can "
            f"be measured; keep every bit with --method lossless"
        )


def _model_id(source: Any, work: Work) -> str:
    """Return the model id that was given, that of the base, or one made of a file's name or a module's class."""
    if work.options.model_id is None and work.base is not None:
        model_id = work.base.seed.header.model.model_id
        work.notes.append(f"the model id is {model_id}, that of the base; --model-id gives another one")
        return model_id
    text = Path(source).stem if isinstance(source, str | os.PathLike) else type(source).__name__
    model_id = work.options.model_id or re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-")[:100] or "model"
    if len(model_id.encode()) > STRING_MAX or not primitives.printable(model_id):
        raise UsageError(f"a model id has at most {STRING_MAX} bytes, all printable; {model_id!r} can't be one")
    return model_id
