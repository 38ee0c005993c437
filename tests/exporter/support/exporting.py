"""What the tests of the exporter share: small models, quick exports, and weights read back. Holds no tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import seed_exporter
import seed_runtime
from seed_exporter.build import draft
from seed_exporter.build.streams import Plans, encode
from seed_exporter.calibrate import WEIGHT_SCALES, collect
from seed_exporter.codecs import codec_of
from seed_exporter.codecs.base import Plan
from seed_exporter.evaluate import footprint
from seed_exporter.graph.model import Graph
from seed_exporter.loaders import load
from seed_exporter.quantize import allocate
from seed_exporter.quantize.steps import unit_steps
from seed_runtime.format.header import Hole, ModelInfo
from seed_runtime.format.sections.holes import name_digest
from seed_runtime.format.sections.model import FEATURE_LEVEL
from seed_runtime.skeletons.onnx import WEIGHTS_FILE

NOBODY = ModelInfo("test", 1, FEATURE_LEVEL, 1, 1)


def layers(rng: np.random.Generator, *sizes: int, dtype: Any = np.float32) -> onnx.ModelProto:
    """A chain of dense layers with biases and ReLU: x: [batch, first] -> y: [batch, last].

    Rows differ in scale, as those of trained layers do.
    """
    matrices = [rng.standard_normal((a, b)) * np.exp(rng.normal(0, 0.5, (a, 1))) / a**0.5 for a, b in pairwise(sizes)]
    return dense(matrices, [rng.normal(0, 0.1, size) for size in sizes[1:]], dtype)


def dense(matrices: Sequence[np.ndarray], biases: Sequence[np.ndarray], dtype: Any = np.float32) -> onnx.ModelProto:
    """The same of given matrices w0, w1, ... and biases b0, b1, ..."""
    nodes, initializers, value = [], [], "x"
    for index, (matrix, bias) in enumerate(zip(matrices, biases, strict=True)):
        last = index + 1 == len(matrices)
        nodes += [
            helper.make_node("MatMul", [value, f"w{index}"], [f"m{index}"]),
            helper.make_node("Add", [f"m{index}", f"b{index}"], ["y" if last else f"a{index}"]),
        ]
        if not last:
            nodes.append(helper.make_node("Relu", [f"a{index}"], [f"r{index}"]))
            value = f"r{index}"
        initializers += [
            numpy_helper.from_array(matrix.astype(dtype), f"w{index}"),
            numpy_helper.from_array(bias.astype(dtype), f"b{index}"),
        ]
    code = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return of_nodes(
        nodes,
        initializers,
        [helper.make_tensor_value_info("x", code, ["batch", len(matrices[0])])],
        [helper.make_tensor_value_info("y", code, ["batch", len(biases[-1])])],
    )


def of_nodes(
    nodes: Sequence[onnx.NodeProto],
    initializers: Sequence[onnx.TensorProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    opset: int = 17,
    domains: Sequence[str] = (),
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers)
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def tensor(name: str, code: int, shape: Sequence[int], data: np.ndarray) -> onnx.TensorProto:
    """An initializer of any type from its bytes."""
    return onnx.TensorProto(name=name, data_type=code, dims=shape, raw_data=data.tobytes())


def holding(*tensors: onnx.TensorProto) -> onnx.ModelProto:
    """A model that runs whatever its weights are: x comes out as y, and of each weight only the shape."""
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])]
    for index, held in enumerate(tensors):
        nodes.append(helper.make_node("Shape", [held.name], [f"shape{index}"]))
        outputs.append(helper.make_tensor_value_info(f"shape{index}", TensorProto.INT64, [len(held.dims)]))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])]
    return of_nodes(nodes, tensors, inputs, outputs, opset=21)


def graph_of(**arrays: np.ndarray) -> Graph:
    return load(holding(*(numpy_helper.from_array(array, name) for name, array in arrays.items())))


def units_of(graph: Graph) -> dict[str, float]:
    """Unit steps of a graph's matrices, in weight units."""
    return unit_steps(graph, collect(graph, {WEIGHT_SCALES})[WEIGHT_SCALES])


def uniform(graph: Graph, coarseness: float, mantissa_bits: int) -> dict[str, Plan]:
    """Plans of every matrix at `coarseness` unit steps."""
    return allocate.uniform(graph, units_of(graph), coarseness, mantissa_bits)


def codecs_of(plans: Plans) -> dict[str, str]:
    """Name of the codec of each plan."""
    return {name: codec_of(plan).name for name, plan in plans.items()}


def decoded(graph: Graph, plans: Plans, folder: Path, jobs: int = 1) -> dict[str, np.ndarray]:
    """What the device's decoder makes of these plans, in the layout of `Weight.data`."""
    built = draft.build(graph, encode(graph, plans, jobs=jobs), NOBODY).assemble(folder)
    return _weights([hole.name for hole in built.skeleton.holes], built.header.holes, folder)


def weights_in(seed: Path, folder: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """The weights of a seed by the names of its source, as a device assembles them; 4-bit ones as their bytes."""
    opened = seed_runtime.open(seed)
    opened.assemble(folder)
    known = {name_digest(name): name for name in names}
    return _weights([known[hole.name_digest] for hole in opened.header.holes], opened.header.holes, folder)


def _weights(names: Sequence[str], holes: Sequence[Hole], folder: Path) -> dict[str, np.ndarray]:
    data = (folder / WEIGHTS_FILE).read_bytes()
    return {
        name: (flat if each.dtype.bits < 8 else flat.reshape(each.dims))
        for name, each in zip(names, holes, strict=True)
        for flat in [np.frombuffer(data[each.offset : each.offset + each.size], each.dtype.storage)]
    }


def quick_export(source: Any, output: Path, **options: Any) -> seed_exporter.Result:
    """An export that measures no memory: that starts nine processes and more, and has tests of its own."""
    inputs = options.pop("example_inputs", None)
    with mock.patch.object(footprint, "measure", return_value=None):
        return seed_exporter.export(source, inputs, output=output, options=seed_exporter.Options(**options))
