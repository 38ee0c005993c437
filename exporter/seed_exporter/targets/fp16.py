"""`fp16`: matrices are half floats in the weights file, and a cast makes floats of them when the model is opened."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import onnx

from seed_exporter.codecs.grid import GridPlan
from seed_exporter.graph.index import GraphIndex
from seed_exporter.graph.model import Graph
from seed_exporter.targets.grids import matrices
from seed_exporter.targets.target import Lowered, Measured, Plans, Rewriting, Target
from seed_runtime.format.dtypes import BY_NAME

_LARGEST: Final = 65504.0
"""Largest half float."""


def lower(graph: Graph, plans: Plans, measured: Measured) -> Lowered:
    """Store matrices as half floats, as far as they hold their values."""
    edit, half = Rewriting(graph, plans), BY_NAME["float16"]
    for weight in matrices(graph, GraphIndex(graph)):
        name = weight.name
        if np.abs(weight.data).max() > _LARGEST / 2:
            continue
        stored = edit.names.take(f"{name}_half")
        # Rounded as planned, before half floats round once more.
        plan = plans[name]
        if isinstance(plan, GridPlan) and plan.matrix is None:
            plan = GridPlan.of_narrow(plan.quantize(weight))
        edit.replace_weight(name, replace(weight, name=stored, dtype=half, data=weight.data.astype(np.float16)), plan)
        edit.prepend(onnx.helper.make_node("Cast", [stored], [name], to=onnx.TensorProto.FLOAT))
    return edit.lowered()


TARGET: Final = Target("fp16", lower)
