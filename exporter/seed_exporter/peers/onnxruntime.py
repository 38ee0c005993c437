"""ONNX Runtime's own quantizers: dynamic int8, static int8 with calibration inputs, and 4 bits in blocks.

Source: `onnxruntime.quantization`, by its documentation: pre-processing first, weights by channel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import onnx

from seed_exporter.graph.fold import fold_batch_norms
from seed_exporter.graph.model import Graph
from seed_exporter.peers.base import (
    Deliverable,
    Peer,
    PeerError,
    at_opset,
    check_prepared,
    delivered,
    opset_of,
    peer_call,
    single_file,
)
from seed_runtime import backends
from seed_runtime.backends import Feeds

BLOCK: Final = 32
"""Weights that share a scale at 4 bits, the quantizer's finest usual choice."""
_INT4_OPSET: Final = 21
"""Opset that brought integers of 4 bits."""
_CHANNELS_OPSET: Final = 13
"""Opset whose DequantizeLinear has a scale for each channel; the quantizer writes the same into older models."""


def dynamic(graph: Graph, feeds: Sequence[Feeds], folder: Path, setting: int) -> Deliverable:
    """Quantize weights to int8; activations are quantized when the model runs."""
    return _quantized(graph, folder, _dynamic)


def static(graph: Graph, feeds: Sequence[Feeds], folder: Path, setting: int) -> Deliverable:
    """Quantize weights and activations to int8, by the ranges that the calibration inputs give."""

    def quantize(source: Path, target: Path) -> None:
        model = onnx.load(source)
        if opset_of(model) < _CHANNELS_OPSET:
            model = at_opset(model, _CHANNELS_OPSET)
            check_prepared(graph, model, folder)
            onnx.save(model, source)
        _static(source, target, feeds)

    return _quantized(graph, folder, quantize)


def four_bits(graph: Graph, feeds: Sequence[Feeds], folder: Path, setting: int) -> Deliverable:
    """Quantize the weights of MatMul, and tables that Gather reads, to 4 bits with a scale for each block.

    It knows no other operators: weights of convolutions and of Gemm stay floats.
    """
    return _quantized(graph, folder, _four_bits)


def _quantized(graph: Graph, folder: Path, quantize: Callable[[Path, Path], None]) -> Deliverable:
    source, target = single_file(fold_batch_norms(graph), folder), folder / "quantized.onnx"
    with peer_call():
        quantize(source, target)
    return delivered(target)


def _dynamic(source: Path, target: Path) -> None:
    backends.get().load()  # without its telemetry
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # Of signed weights in a convolution its kernels know none.
    convolves = any(node.op_type == "Conv" for node in onnx.load(source).graph.node)
    kind = QuantType.QUInt8 if convolves else QuantType.QInt8
    quantize_dynamic(source, target, weight_type=kind, per_channel=not convolves)


def _static(source: Path, target: Path, feeds: Sequence[Feeds]) -> None:
    backends.get().load()  # without its telemetry
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._left: Iterator[Feeds] = iter(feeds)

        def get_next(self) -> Any:
            return next(self._left, None)

    if not feeds:
        raise PeerError("it needs calibration inputs")
    quantize_static(source, target, Reader(), quant_format=QuantFormat.QDQ, per_channel=True)


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
