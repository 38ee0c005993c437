"""ONNX Runtime's own quantizers: dynamic int8, static int8 with calibration inputs, and 4 bits in blocks.

Source: `onnxruntime.quantization`, by its documentation: pre-processing first, weights by channel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import onnx

from seed_exporter.evaluate.damage import metric_of
from seed_exporter.evaluate.run import run_all
from seed_exporter.graph.fold import fold_batch_norms
from seed_exporter.graph.messages import copy_of
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
)
from seed_runtime import backends
from seed_runtime.backends import Feeds
from seed_runtime.errors import SeedError
from seed_runtime.skeletons.onnx import MODEL_FILE

BLOCK: Final = 32
"""Weights that share a scale at 4 bits, the quantizer's finest usual choice."""
_INT4_OPSET: Final = 21
"""Opset that brought integers of 4 bits."""
_WEIGHTED: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators with weights, of those that it quantizes."""
_CHANNELS_OPSET: Final = 13
"""Opset whose DequantizeLinear has a scale for each channel; the quantizer writes the same into older models."""


def dynamic(graph: Graph, feeds: Sequence[Feeds], folder: Path, setting: int) -> Deliverable:
    """Quantize weights to int8; activations are quantized when the model runs."""
    return _quantized(graph, folder, _dynamic)


def static(graph: Graph, feeds: Sequence[Feeds], folder: Path, setting: int) -> Deliverable:
    """Quantize weights and activations to int8, by the ranges that the calibration inputs give.

    Of all operators, as is the default, or of those alone that have weights (`op_types_to_quantize`): what does less
    damage on the calibration inputs. That of Magika's answers is 1.7 and .0002, of EfficientNet-lite0's .03 and .18.
    """
    if not feeds:
        raise PeerError("it needs calibration inputs")
    graph = fold_batch_norms(graph)
    model = onnx.load(single_file(graph, folder))
    if opset_of(model) < _CHANNELS_OPSET:
        model = at_opset(model, _CHANNELS_OPSET)
        check_prepared(graph, model, folder)
    # Where the single file was made from.
    expected = run_all(folder, feeds)
    made: list[tuple[float, Path]] = []
    reasons: list[str] = []
    for operators in ((), _WEIGHTED):
        for each in (model, _with_own_biases(model)):
            place = folder / f"{len(made) + len(reasons)}"
            try:
                outputs = run_all(_static(each, place, feeds, operators), feeds)
            except PeerError as error:
                reasons.append(str(error))
            except SeedError as error:
                reasons.append(f"what it makes of this model doesn't run: {error}")
            else:
                made.append((metric_of("auto").damage(expected, outputs), place / MODEL_FILE))
                break
    if not made:
        raise PeerError(reasons[0])
    return delivered(min(made)[1])


def four_bits(graph: Graph, feeds: Sequence[Feeds], folder: Path, setting: int) -> Deliverable:
    """Quantize the weights of MatMul, and tables that Gather reads, to 4 bits with a scale for each block.

    It knows no other operators: weights of convolutions and of Gemm stay floats.
    """
    return _quantized(graph, folder, _four_bits)


def _quantized(graph: Graph, folder: Path, quantize: Callable[[Path, Path], None]) -> Deliverable:
    source, target = single_file(fold_batch_norms(graph), folder), folder / "quantized.onnx"
    with peer_call(folder):
        quantize(source, target)
    return delivered(target)


def _dynamic(source: Path, target: Path) -> None:
    backends.get().load()  # without its telemetry
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # Of signed weights in a convolution its kernels know none.
    convolves = any(node.op_type == "Conv" for node in onnx.load(source).graph.node)
    kind = QuantType.QUInt8 if convolves else QuantType.QInt8
    quantize_dynamic(source, target, weight_type=kind, per_channel=not convolves)


def _static(model: onnx.ModelProto, folder: Path, feeds: Sequence[Feeds], operators: Sequence[str]) -> Path:
    """Write the model with these operators quantized, all that it knows if there are none, into a new folder."""
    backends.get().load()  # without its telemetry
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._left: Iterator[Feeds] = iter(feeds)

        def get_next(self) -> Any:
            return next(self._left, None)

    folder.mkdir()
    onnx.save(model, source := folder / "source.onnx")
    with peer_call(folder):
        quantize_static(
            source, folder / MODEL_FILE, Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
            op_types_to_quantize=list(operators) or None,
        )  # fmt: skip
    return folder


def _with_own_biases(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with a name for each node, and a bias of its own for each convolution and each Gemm.

    It knows nodes by their names, and gives a bias the scale of its node's input, which another node doesn't have.
    """
    model = copy_of(model)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    taken: set[str] = set()
    for number, node in enumerate(model.graph.node):
        node.name = f"node_{number}"
        if node.op_type not in _WEIGHTED or len(node.input) < 3 or node.input[2] not in tensors:
            continue
        bias = node.input[2]
        if bias in taken:
            own = model.graph.initializer.add()
            own.CopyFrom(tensors[bias])
            own.name = node.input[2] = f"{node.name}.bias"
        taken.add(bias)
    return model


def _four_bits(source: Path, target: Path) -> None:
    backends.get().load()  # without its telemetry
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    # The quantizer itself would only write the newer number into the model.
    model = at_opset(onnx.load(source), _INT4_OPSET)
    quantizer = MatMulNBitsQuantizer(
        model, bits=4, block_size=BLOCK, is_symmetric=False,
        op_types_to_quantize=("MatMul", "Gather"), quant_axes=(("MatMul", 0), ("Gather", 1)),
    )  # fmt: skip
    quantizer.process()
    model = quantizer.model.model
    if not any(node.op_type in ("MatMulNBits", "GatherBlockQuantized") for node in model.graph.node):
        raise PeerError("it quantizes the weights of MatMul and Gather, and this model has none that it takes")
    onnx.save(model, target)


_INSTALL = "pip install 'seed-runtime[export]'"
DYNAMIC = Peer("ORT int8, dynamic", "onnxruntime", _INSTALL, dynamic)
STATIC = Peer("ORT int8, static", "onnxruntime", _INSTALL, static, needs_data=True)
FOUR_BITS = Peer("ORT 4 bits", "onnxruntime", _INSTALL, four_bits)
