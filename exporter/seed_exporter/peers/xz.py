"""xz of the model as it is: what lossless compression for any file reaches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from seed_exporter.evaluate.model_files import write_model_files
from seed_exporter.graph.model import Graph
from seed_exporter.peers.base import Deliverable, Peer, xz_size
from seed_runtime.backends import Feeds
from seed_runtime.skeletons.onnx import WEIGHTS_FILE


def make(graph: Graph, feeds: Sequence[Feeds], folder: Path, setting: int) -> Deliverable:
    """Compress graph and weights."""
    model = write_model_files(graph, folder)
    return Deliverable(xz_size(model.read_bytes(), (folder / WEIGHTS_FILE).read_bytes()), model)


PEER = Peer("xz", "lzma", "", make)
