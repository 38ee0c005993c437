"""NNCodec, the reference software of ISO/IEC 15938-17, by the data-free settings that made the smallest files.

These are: `opt_qp`, which gives large tensors coarser steps, 16 steps an octave, dependent quantization, vectors at
steps so fine that they cost little and do no damage, and batch norms folded before it. It takes any tensor of two axes
for a weight, so vectors of the shape [1, C, 1, 1] are flattened.

Source: nncodec 2.1.3 (Fraunhofer HHI), `nncodec.nnc`.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from seed_exporter.evaluate.model_files import write_model_files
from seed_exporter.graph.fold import fold_batch_norms
from seed_exporter.graph.kinds import FLOATS
from seed_exporter.graph.matrix import as_float32
from seed_exporter.graph.model import Graph, Weight
from seed_exporter.peers.base import Deliverable, Peer, PeerError, peer_call, xz_size
from seed_exporter.skeletons import builder_for
from seed_runtime.backends import Feeds

DENSITY: Final = 4
"""`qp_density`: an octave of steps has 2**DENSITY of them. By its default of 2 only the choice is coarser."""
OCTAVE: Final = 1 << DENSITY
VECTORS_QP: Final = -10 * OCTAVE
"""`nonweight_qp`: vectors have steps of 2**-10.

On magika, steps of 2**-18 took 1.4 % more bytes at the same KL, and steps of 2**-8 saved .4 %.
"""
SETTINGS: Final = tuple(range(-11 * OCTAVE, -4 * OCTAVE, OCTAVE))
"""Quantization parameters, one an octave. `opt_qp` makes the steps of large and narrow tensors coarser than these."""


def module() -> Any:
    """Import the module `nncodec.nnc` without torch and TensorFlow.

    nncodec imports its bridges to both, though neither takes part in coding arrays; three empty modules in their places
    leave the C++ coder (extensions/deepCABAC) and all that calls it as they are.
    """
    bridges = types.ModuleType("nncodec.framework")
    for name in ("tensorflow_model", "pytorch_model", "use_case_init"):
        bridge = types.ModuleType(f"nncodec.framework.{name}")
        setattr(bridges, name, bridge)
        sys.modules.setdefault(bridge.__name__, bridge)
    sys.modules.setdefault("nncodec.framework", bridges)
    from nncodec import nnc

    return nnc


def step_of(qp: int) -> float:
    """Compute the quantization step of a quantization parameter."""
    octave, part = divmod(qp, OCTAVE)
    return (1 + part / OCTAVE) * 2.0**octave


def make(graph: Graph, feeds: Sequence[Feeds], folder: Path, setting: int) -> Deliverable:
    """Code all floats at the quantization parameter `setting`; the graph and integers are xz'ed beside them."""
    graph = fold_batch_norms(graph)
    coded = [weight for weight in graph.weights.values() if weight.dtype.name in FLOATS]
    if not any(_is_matrix(weight) for weight in coded):
        raise PeerError("it codes matrices of floats, and this model has none")
    # Names are coded too.
    arrays = {str(index): _array(weight) for index, weight in enumerate(coded)}
    with peer_call(folder):
        stream = module().compress(
            arrays, bitstream_path=None, return_bitstream=True, use_dq=True, opt_qp=True,
            qp_density=DENSITY, qp=setting, nonweight_qp=VECTORS_QP,
        )  # fmt: skip
        decoded = module().decompress(bytearray(stream))
    rest = {weight.name: weight.data for weight in graph.weights.values() if weight.dtype.name not in FLOATS}
    values = {weight.name: _restored(weight, decoded[str(index)]) for index, weight in enumerate(coded)}
    model = write_model_files(graph, folder, weights={**rest, **values})
    skeleton = builder_for(graph).build_unchecked(list(graph.weights))
    beside = xz_size(skeleton.carried, *(np.ascontiguousarray(data).tobytes() for data in rest.values()))
    return Deliverable(len(stream) + beside, model)


def _is_matrix(weight: Weight) -> bool:
    return sum(size > 1 for size in weight.shape) > 1


def _array(weight: Weight) -> np.ndarray:
    values = np.ascontiguousarray(as_float32(weight)).reshape(weight.shape)
    return values if _is_matrix(weight) else values.reshape(-1)


def _restored(weight: Weight, values: np.ndarray) -> np.ndarray:
    values = np.ascontiguousarray(values, np.float32).reshape(weight.shape)
    if weight.dtype.name == "bfloat16":
        bits = values.view(np.uint32)
        return ((bits + (0x7FFF + (bits >> 16 & 1))) >> 16).astype(np.uint16)
    return values.astype(weight.dtype.storage)


PEER = Peer(
    name="NNCodec",
    module="nncodec",
    install="pip install --no-deps nncodec==2.1.3",
    make=make,
    settings=SETTINGS,
    title_of=lambda qp: f"qp {qp}",
)
