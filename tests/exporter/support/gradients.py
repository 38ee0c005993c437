"""Run graphs of gradients, and compare them with finite differences of the graph itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from seed_exporter.gradients import gradient_graph, gradient_name
from seed_exporter.graph.model import Graph
from seed_exporter.loaders import load

STEP = {np.dtype(np.float64): 1e-3, np.dtype(np.float32): 2e-2}
"""Step of the differences: the four points' error is of its fourth power, beside the rounding divided by it."""
TOLERANCE = {np.dtype(np.float64): 1e-5, np.dtype(np.float32): 1e-3}
DOUBLE = np.dtype(np.float64)


@dataclass(frozen=True)
class Case:
    """One operator with inputs.

    Attributes:
        op: the operator.
        inputs: its inputs in order, None for one that is left out; arrays of other types than float64 are constants.
        attributes: its attributes.
        wrt: positions of the inputs that get gradients; all of floats if None.
        outputs: number of outputs that are made.
        seeded: number of the first outputs that are differentiated.
        opset: version of ONNX's own operators.
        domain: the operator's domain.
        constant: positions of inputs of floats that are constants.
        name: what the test is called.
        dynamic: whether it is tested with all dimensions free, too.
        single: whether ONNX Runtime computes it in float32 whatever its type.
        since: the first release of ONNX Runtime that computes it, or computes it in float64.
    """

    op: str
    inputs: Sequence[np.ndarray | None]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    wrt: Sequence[int] | None = None
    outputs: int = 1
    seeded: int = 1
    opset: int = 18
    domain: str = ""
    constant: Sequence[int] = ()
    name: str = ""
    dynamic: bool = True
    single: bool = False
    since: tuple[int, int] = (1, 19)

    def __str__(self) -> str:
        return " ".join([self.op, self.name]).strip()


def model_of(case: Case, dtype: np.dtype, *, free: bool) -> onnx.ModelProto:
    """Make a model of the one node, with its inputs of floats as inputs of these or of free dimensions."""
    code = helper.np_dtype_to_tensor_dtype(dtype)
    names = ["" if each is None else f"x{index}" for index, each in enumerate(case.inputs)]
    given, constants = [], []
    for index, (name, each) in enumerate(zip(names, case.inputs, strict=True)):
        if each is None:
            continue
        if each.dtype == DOUBLE and index not in case.constant:
            # A kernel is a weight, whose sizes are always known.
            is_kernel = index > 0 and case.op in ("Conv", "ConvTranspose", "MatMulNBits")
            shape = [None] * each.ndim if free and not is_kernel else each.shape
            given.append(helper.make_tensor_value_info(name, code, shape))
        else:
            array = each.astype(dtype) if each.dtype == DOUBLE else each
            constants.append(numpy_helper.from_array(array, name))
    made = [f"y{index}" for index in range(case.outputs)]
    node = helper.make_node(case.op, names, made, domain=case.domain, **case.attributes)
    results = [helper.make_tensor_value_info(name, code, None) for name in made[: case.seeded]]
    graph = helper.make_graph([node], "g", given, results, constants)
    opsets = [helper.make_opsetid("", case.opset)]
    if case.domain:
        opsets.append(helper.make_opsetid(case.domain, 1))
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def session(graph: Graph | onnx.ModelProto) -> ort.InferenceSession:
    """Open a graph; weights are put back into the model."""
    model = graph if isinstance(graph, onnx.ModelProto) else whole(graph)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def whole(graph: Graph) -> onnx.ModelProto:
    """Return a graph's model with the weights' data in it."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    for tensor in model.graph.initializer:
        if tensor.name in graph.weights:
            tensor.CopyFrom(numpy_helper.from_array(np.array(graph.weights[tensor.name].data), tensor.name))
    return model


def check(case: Case) -> None:
    """Compare all gradients of a case with finite differences, and then with those that take sizes at run time.

    Both are float64 if ONNX Runtime has the operator in it, and float32 otherwise.
    """
    if tuple(map(int, ort.__version__.split(".")[:2])) < case.since:
        pytest.skip(f"ONNX Runtime {ort.__version__} can't")
    dtype = np.dtype(np.float32) if case.single else DOUBLE
    try:
        forward = session(model_of(case, dtype, free=False))
    except Exception:  # no kernel of float64: ONNX Runtime's errors have no common root
        dtype = np.dtype(np.float32)
        forward = session(model_of(case, dtype, free=False))
    given = [
        index
        for index, each in enumerate(case.inputs)
        if each is not None and each.dtype == DOUBLE and index not in case.constant
    ]
    feeds = {f"x{index}": case.inputs[index].astype(dtype) for index in given}
    rng = np.random.default_rng(1)
    seeds = [rng.standard_normal(each.shape).astype(dtype) for each in forward.run(None, feeds)]
    found = gradients_of(case, feeds, seeds, free=False)
    for name, gradient in found.items():

        def loss(values: np.ndarray, name: str = name) -> float:
            results = forward.run(None, feeds | {name: values})
            return sum(float((y.astype(DOUBLE) * seed).sum()) for y, seed in zip(results, seeds, strict=True))

        expected = differences(loss, feeds[name], STEP[dtype])
        assert gradient.shape == feeds[name].shape
        scale = max(1.0, float(np.abs(expected).max(initial=0)))
        tolerance = max(TOLERANCE[dtype], TOLERANCE[gradient.dtype] / 10)
        np.testing.assert_allclose(gradient, expected, rtol=tolerance, atol=tolerance * scale, err_msg=name)
    if case.dynamic:
        for name, gradient in gradients_of(case, feeds, seeds, free=True).items():
            np.testing.assert_allclose(gradient, found[name], rtol=1e-5, atol=1e-5, err_msg=f"{name}, free dimensions")


def gradients_of(
    case: Case, feeds: Mapping[str, np.ndarray], seeds: Sequence[np.ndarray], *, free: bool
) -> dict[str, np.ndarray]:
    """Return the gradients of a case's inputs, in float32 where ONNX Runtime has the operators of no wider type."""
    wrt = list(feeds) if case.wrt is None else [f"x{index}" for index in case.wrt]
    outputs = [f"y{index}" for index in range(case.seeded)]
    given = dict(zip(map(gradient_name, outputs), seeds, strict=True))
    for dtype in (seeds[0].dtype, np.dtype(np.float32)):
        graph = gradient_graph(load(model_of(case, dtype, free=free)), outputs, wrt)
        try:
            backward = session(graph)
        except Exception:
            if dtype == np.float32:
                raise
            continue
        fed = {name: each.astype(dtype) for name, each in {**feeds, **given}.items()}
        values = backward.run([gradient_name(name) for name in wrt], fed)
        return dict(zip(wrt, values, strict=True))
    raise AssertionError("unreachable")


def differences(loss: Any, at: np.ndarray, step: float) -> np.ndarray:
    """Return the gradient of a function of an array by central differences of fourth order."""
    found = np.zeros(at.shape)
    for index in np.ndindex(at.shape):
        values = []
        for times in (-2, -1, 1, 2):
            moved = at.copy()
            moved[index] += times * step
            values.append(loss(moved))
        found[index] = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)
    return found
