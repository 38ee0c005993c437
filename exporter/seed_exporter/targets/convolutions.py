"""Convolutions of bytes: values between them are rounded where they are made, as ONNX Runtime's QDQ format says it.

A pair of QuantizeLinear and DequantizeLinear stands behind what is rounded, and DequantizeLinear before each weight and
bias. ONNX Runtime makes QLinearConv, QLinearAdd and so on of these, and moves a ReLU into its step.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.helper import make_attribute, make_node

from seed_exporter.graph.index import GraphIndex
from seed_exporter.graph.matrix import as_float32
from seed_exporter.graph.messages import attribute_of, input_of, replace_elements
from seed_exporter.graph.model import Graph
from seed_exporter.graph.versions import opset_of
from seed_exporter.targets.grids import Grid
from seed_exporter.targets.ranges import Ranges
from seed_exporter.targets.target import MICROSOFT, Rewriting

_POOLS: Final = frozenset({"GlobalAveragePool", "AveragePool", "MaxPool"})
_FEW_CHANNELS: Final = 4
"""Channels below which a convolution multiplies floats: rearranging so few takes the time that bytes save."""
_FEW_FACTORS: Final = 256
"""Factors of one output below which it does so: a kernel of 16 times 16 pictures' elements holds as much as a layer."""
_SINCE: Final = 10
"""Opset from which on there is QLinearConv, which ONNX Runtime makes of rounded convolutions whatever the opset is."""
_BIAS_MOST: Final = 2.0**30
"""Largest magnitude of a bias's integers, with room for the sums that they are added to."""
_BIAS_STEPS: Final = 8
"""Steps of a bias in one of the output's."""


@dataclass(frozen=True)
class Convolution:
    """A node, the value that it reads before zeros are put around it, and these zeros as its attribute says them."""

    node: onnx.NodeProto
    source: str
    pads: list[int] | None


@dataclass
class Rounded:
    """What is rounded in a graph.

    Attributes:
        convolutions: what multiplies bytes.
        floats: names of the weights of those that could, and stay as they are.
        values: names of the values that are rounded, each with the name of what it is rounded of: before a ReLU, whose
            work rounding does.
    """

    convolutions: list[Convolution] = field(default_factory=list)
    floats: set[str] = field(default_factory=set)
    values: dict[str, str] = field(default_factory=dict)


def rounded_values(graph: Graph, index: GraphIndex) -> Rounded:
    """Find the convolutions that may multiply bytes, and what is rounded for them.

    Those that read a picture's few channels stay floats, and so do kernels of single channels right behind them. Of
    EfficientNet-lite0 these two lost a KL of .020 in place of .008 on other calibration pictures, and saved no time.
    """
    found, first = Rounded(), set[str]()
    if opset_of(graph.model) < _SINCE:
        return found
    for node in graph.model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            continue
        out = _clamped(graph, index, node)
        if out is None:
            continue
        if node.op_type == "Conv" and _is_stored(graph, index, node):
            source, pads = _unpadded(graph, index, node)
            weight, groups = graph.weights[node.input[1]], attribute_of(node, "group", 1)
            few = groups * weight.shape[1] < _FEW_CHANNELS and weight.count // weight.shape[0] < _FEW_FACTORS
            if few or (source in first and weight.shape[1] == 1):
                found.floats.add(weight.name)
                first.add(out)
                continue
            found.convolutions.append(Convolution(node, source, pads))
            found.values.setdefault(source, source)
            found.values[out] = node.output[0]
        elif (node.op_type == "Add" and node.input[0] in found.values and node.input[1] in found.values) or (
            node.op_type in _POOLS and node.input[0] in found.values and len(node.output) == 1
        ):
            found.values[out] = node.output[0]
    return found


def round_values(edit: Rewriting, index: GraphIndex, rounded: Rounded, ranges: Ranges, opset_has_axis: bool) -> None:
    """Put a pair that rounds behind each value, and make everything that reads it read what is rounded.

    Args:
        edit: collects the changes.
        index: of the graph that is edited.
        rounded: what is rounded.
        ranges: of all values.
        opset_has_axis: whether the graph's own operators have what is needed here; else ONNX Runtime's are used.
    """
    domain = "" if opset_has_axis else MICROSOFT
    for each in rounded.convolutions:
        if each.pads is not None:
            node = onnx.NodeProto()
            node.CopyFrom(each.node)
            node.input[0] = each.source
            replace_elements(node.attribute, [known for known in node.attribute if known.name != "pads"])
            node.attribute.append(make_attribute("pads", each.pads))
            edit.replace_node(each.node, node)
    for name, source in rounded.values.items():
        scale = edit.constant("step", np.array(ranges[name].step, np.float32))
        zero = edit.constant("zero_point", np.array(ranges[name].zero, np.uint8))
        codes, floats = edit.names.take(f"{name}_uint8"), edit.names.take(f"{name}_rounded")
        edit.rename_readers(name, floats)
        pair = (
            make_node("QuantizeLinear", [source, scale, zero], [codes], domain=domain),
            make_node("DequantizeLinear", [codes, scale, zero], [floats], domain=domain),
        )
        if source in index.producers:
            edit.append_behind(index.producers[source], *pair)
        else:
            edit.prepend(*pair)


def round_bias(
    edit: Rewriting, graph: Graph, convolution: Convolution, ranges: Ranges, out: str, grid: Grid, domain: str
) -> None:
    """Make integers of a convolution's bias, in steps of the product of its input's and its weight's.

    The bias also takes up by how much rounding the weight moves the mean of each channel, where inputs have the means
    that were measured. A convolution without a bias gets one for that.

    Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (arXiv 1906.04721).

    Args:
        edit: collects the changes.
        graph: has the bias.
        convolution: whose bias it is.
        ranges: of its input and of what it makes.
        out: name of the value that it makes, behind a ReLU.
        grid: integers of the weight and their steps.
        domain: of DequantizeLinear.
    """
    node, shift = convolution.node, _shift(graph, convolution, ranges, grid).astype(np.float32)
    name = input_of(node, 2)
    if not name and not shift.any():
        return
    values = constant_of(graph, name) if name else np.zeros_like(shift)
    assert values is not None
    values = values + shift
    name = name or f"{node.input[1]}_bias"
    steps = np.float32(ranges[convolution.source].step) * grid.scales.reshape(-1).astype(np.float32)
    # Bits far below a step of the output would only take bytes.
    spared = np.exp2(np.floor(np.log2(np.clip(ranges[out].step / _BIAS_STEPS / steps.astype(np.float64), 1, 2**20))))
    integers = np.clip(np.rint(values / (steps * spared)) * spared, -(2**31) + 1, 2**31 - 1).astype(np.int32)
    stored = edit.constant(f"{name}_int32", integers)
    step = edit.constant(f"{name}_scale", steps if steps.size > 1 else steps.reshape(()))
    axis: dict[str, Any] = {"axis": 0} if steps.size > 1 else {}
    floats = edit.names.take(f"{name}_rounded")
    edit.prepend(make_node("DequantizeLinear", [stored, step], [floats], domain=domain, **axis))
    edit.replace_input(node, 2, floats)


def _shift(graph: Graph, convolution: Convolution, ranges: Ranges, grid: Grid) -> np.ndarray:
    """Return the mean of what each channel of a convolution loses when its weight is rounded.

    Zeros around its input are taken for numbers of the mean, so that outputs at the edge get a little too much.
    """
    means, weight = ranges[convolution.source].means, graph.weights[convolution.node.input[1]]
    if means is None:
        return np.zeros(1)
    lost = as_float32(weight).reshape(weight.shape) - grid.integers * grid.scales
    by_input = lost.sum(axis=tuple(range(2, lost.ndim)), dtype=np.float64)
    groups = attribute_of(convolution.node, "group", 1)
    shift: np.ndarray = (by_input.reshape(groups, -1, by_input.shape[1]) @ means.reshape(groups, -1, 1)).reshape(-1)
    return shift


def least_steps(graph: Graph, convolution: Convolution, ranges: Ranges) -> np.ndarray | None:
    """Return the least steps of a weight's channels with which its bias is an integer of 32 bits; None without one."""
    name = input_of(convolution.node, 2)
    values = constant_of(graph, name) if name else None
    if values is None:
        return None
    steps: np.ndarray = np.abs(values) / (_BIAS_MOST * np.float32(ranges[convolution.source].step))
    return steps


def out_of(graph: Graph, index: GraphIndex, node: onnx.NodeProto) -> str:
    """Return the name of what a node makes, behind a ReLU that nothing else reads around."""
    out = _clamped(graph, index, node)
    assert out is not None
    return out


def constant_of(graph: Graph, name: str) -> np.ndarray | None:
    """Return the data of a weight or small constant of the main graph; None for anything else."""
    if name in graph.weights:
        return graph.weights[name].data
    for tensor in graph.model.graph.initializer:
        if tensor.name == name:
            return numpy_helper.to_array(tensor)
    return None


def _clamped(graph: Graph, index: GraphIndex, node: onnx.NodeProto) -> str | None:
    """Return what a node makes, behind a ReLU; None where callers of the model get it."""
    out = node.output[0] if node.output else ""
    readers = index.consumers.get(out, ())
    if out in index.returned or not readers:
        return None
    if len(readers) == 1 and readers[0].input_index == 0 and _rounding_does(graph, index, readers[0].node):
        behind: str = readers[0].node.output[0]
        return None if behind in index.returned else behind
    return out


def _rounding_does(graph: Graph, index: GraphIndex, node: onnx.NodeProto) -> bool:
    """Return whether rounding to a range does what a node of the main graph does: limits known, 0 between them."""
    if node.output[0] not in index.producers or node.op_type not in ("Relu", "Clip"):
        return False
    if node.op_type == "Relu":
        return True
    least, most = _limit(graph, node, 1, "min"), _limit(graph, node, 2, "max")
    return least is not None and most is not None and least <= 0 <= most


def _limit(graph: Graph, node: onnx.NodeProto, place: int, word: str) -> float | None:
    """Return a limit of a Clip, 0 where it has none; None where it is computed. Before opset 11 it is an attribute."""
    name = input_of(node, place)
    if not name:
        return float(attribute_of(node, word, 0.0))
    values = constant_of(graph, name)
    return None if values is None else float(values.item())


def _unpadded(graph: Graph, index: GraphIndex, node: onnx.NodeProto) -> tuple[str, list[int] | None]:
    """Return what a convolution reads before zeros are put around it, and all zeros around it; None for its own."""
    name: str = node.input[0]
    pad = index.producers.get(name)
    if pad is None or pad.op_type != "Pad" or len(index.consumers[name]) > 1 or name in index.returned:
        return name, None
    around = constant_of(graph, input_of(pad, 1))
    filled = constant_of(graph, input_of(pad, 2)) if input_of(pad, 2) else np.zeros(1)
    is_plain = attribute_of(pad, "mode", "constant") == "constant" and attribute_of(node, "auto_pad", "NOTSET") in (
        "NOTSET",
        "",
    )
    if around is None or filled is None or filled.any() or not is_plain or input_of(pad, 3):
        return name, None
    before, behind = around[: around.size // 2], around[around.size // 2 :]
    if before[:2].any() or behind[:2].any() or (around < 0).any():
        return name, None
    own = np.array(attribute_of(node, "pads", [0] * (around.size - 4)))
    return pad.input[0], (own + np.concatenate((before[2:], behind[2:]))).tolist()


def _is_stored(graph: Graph, index: GraphIndex, node: onnx.NodeProto) -> bool:
    """Return whether a convolution's weight is its own, of floats, and its bias a constant."""
    name = node.input[1]
    given = {value.name for value in index.graph.input}
    if name not in graph.weights or name in given | index.returned or len(index.consumers.get(name, ())) != 1:
        return False
    bias = input_of(node, 2)
    has_constants = not bias or (bias not in given and constant_of(graph, bias) is not None)
    return graph.weights[name].dtype.name == "float32" and has_constants and node.input[0] not in graph.weights
