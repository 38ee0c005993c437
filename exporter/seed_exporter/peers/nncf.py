"""NNCF's weight compression: int8 by channel, and 4 bits in groups with the layers that it keeps at int8.

Source: nncf 3.4.0 (Intel), `nncf.compress_weights` on an ONNX model.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import onnx

from seed_exporter.graph.fold import fold_batch_norms
from seed_exporter.graph.model import Graph
from seed_exporter.peers.base import Deliverable, Peer, PeerError, delivered, peer_call, single_file
from seed_runtime.backends import Feeds

GROUP: Final = 32
"""Weights that share a scale at 4 bits."""


def int8(graph: Graph, feeds: Sequence[Feeds], folder: Path, setting: int) -> Deliverable:
    """Quantize all weights to int8, each channel with a scale and a zero point."""
    return _compressed(graph, folder, "INT8_ASYM")


def int4(graph: Graph, feeds: Sequence[Feeds], folder: Path, setting: int) -> Deliverable:
    """Quantize weights to 4 bits in groups, tables and the last layer to int8, as it chooses.

    With zero points, its INT4_ASYM, ONNX Runtime 1.32 refuses the models.
    """
    return _compressed(graph, folder, "INT4_SYM", group_size=GROUP, ratio=1.0)


def _compressed(graph: Graph, folder: Path, mode: str, **options: Any) -> Deliverable:
    source, target = single_file(fold_batch_norms(graph), folder), folder / "compressed.onnx"
    # As in its own tests: else it reports its use to a service of its maker.
    os.environ["NNCF_CI"] = "1"
    with peer_call():
        import nncf

        if options:
            # Layers that a group doesn't divide get another one, where it would refuse the model.
            adjust = nncf.GroupSizeFallbackMode.ADJUST
            options["advanced_parameters"] = nncf.AdvancedCompressionParameters(group_size_fallback_mode=adjust)
        model = nncf.compress_weights(onnx.load(source), mode=nncf.CompressWeightsMode[mode], **options)
    if not any(node.op_type in ("DequantizeLinear", "MatMulNBits") for node in model.graph.node):
        raise PeerError("it compresses none of this model's weights")
    onnx.save(model, target)
    return delivered(target)


_INSTALL = "pip install 'seed-runtime[compare]'"
INT8 = Peer("NNCF int8", "nncf", _INSTALL, int8)
INT4 = Peer("NNCF 4 bits", "nncf", _INSTALL, int4)
