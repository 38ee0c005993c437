"""NNCF's weight compression: int8 by channel, and 4 bits in groups with the layers that it keeps at int8.

Its backend for ONNX compresses the weights of convolutions to int8 by channel whatever the mode is, and so the last
layer and tables. Where these are all that a model has, both modes make one file.

Source: nncf 3.4.0 (Intel), `nncf.compress_weights` on an ONNX model.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import onnx

from seed_exporter.graph.fold import fold_batch_norms
from seed_exporter.graph.model import Graph
from seed_exporter.graph.versions import opset_of
from seed_exporter.peers.base import (
    Deliverable,
    Peer,
    PeerError,
    at_opset,
    check_prepared,
    delivered,
    peer_call,
    single_file,
    with_folded_constants,
)
from seed_runtime.backends import Feeds

GROUP: Final = 32
"""Weights that share a scale at 4 bits."""
LEAST_OPSET: Final = 13
"""Opset of the model below which it refuses all: the first whose DequantizeLinear has a scale for each channel."""


def int8(graph: Graph, feeds: Sequence[Feeds], folder: Path, setting: int) -> Deliverable:
    """Quantize all weights to int8, each channel with a scale and a zero point."""
    return _compressed(graph, folder, "INT8_ASYM")


def int4(graph: Graph, feeds: Sequence[Feeds], folder: Path, setting: int) -> Deliverable:
    """Quantize weights to 4 bits in groups, tables and the last layer to int8, as it chooses.

    With zero points, its INT4_ASYM, ONNX Runtime 1.32 refuses the models.
    """
    return _compressed(graph, folder, "INT4_SYM", group_size=GROUP, ratio=1.0)


def _compressed(graph: Graph, folder: Path, mode: str, **options: Any) -> Deliverable:
    folded, target = fold_batch_norms(graph), folder / "compressed.onnx"
    source = single_file(folded, folder)
    # As in its own tests: else it reports its use to a service of its maker.
    os.environ["NNCF_CI"] = "1"
    with peer_call(folder):
        import nncf

        model = _prepared(source, folder)
        if model is not None:
            check_prepared(folded, model, folder)
        if options:
            # Layers that a group doesn't divide get another one, where it would refuse the model.
            adjust = nncf.GroupSizeFallbackMode.ADJUST
            options["advanced_parameters"] = nncf.AdvancedCompressionParameters(group_size_fallback_mode=adjust)
        model = nncf.compress_weights(model or onnx.load(source), mode=nncf.CompressWeightsMode[mode], **options)
    if not any(node.op_type in ("DequantizeLinear", "MatMulNBits") for node in model.graph.node):
        raise PeerError("it compresses none of this model's weights")
    _flatten_scales(model)
    onnx.save(model, target)
    return delivered(target)


def _prepared(source: Path, folder: Path) -> onnx.ModelProto | None:
    """Return the model as it must be for NNCF to take it, or None where it takes it as it is."""
    model = onnx.load(source)
    constants = {tensor.name for tensor in model.graph.initializer}
    casts_constants = any(node.op_type == "Cast" and node.input[0] in constants for node in model.graph.node)
    if opset_of(model) >= LEAST_OPSET and not casts_constants:
        return None
    model = at_opset(model, LEAST_OPSET)
    if casts_constants:
        # It looks for the type of what a Cast reads among values that are computed, and fails where it is a constant.
        model = with_folded_constants(model, folder)
    return model


def _flatten_scales(model: onnx.ModelProto) -> None:
    """Give scales and zero points of channels the one axis that ONNX asks for; it writes [C, 1, 1] for convolutions."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear" or any(each.name == "block_size" and each.i for each in node.attribute):
            continue
        for tensor in (tensors[name] for name in node.input[1:] if name in tensors):
            if len(tensor.dims) > 1 and max(tensor.dims) == math.prod(tensor.dims):
                tensor.dims[:] = [math.prod(tensor.dims)]


_INSTALL = "pip install 'seed-runtime[compare]'"
INT8 = Peer("NNCF int8", "nncf", _INSTALL, int8)
INT4 = Peer("NNCF 4 bits", "nncf", _INSTALL, int4)
