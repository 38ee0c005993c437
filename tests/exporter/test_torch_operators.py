"""Operators in torch beside ONNX Runtime: one by one, and public models as a whole. Skipped without torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from seed_exporter import loaders
from seed_exporter.evaluate.model_files import write_model_files
from seed_runtime.errors import UnsupportedError
from tests.exporter.support.gradients import Case, model_of, session
from tests.exporter.test_gradient_rules import CASES, ints, n, p
from tests.support.public_models import CACHE, prepared, tasks

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'seed-runtime[torch]'")
from seed_exporter.heal.interpreter import Interpreter  # noqa: E402
from seed_exporter.heal.registry import OPERATORS  # noqa: E402

pytestmark = pytest.mark.slow  # importing torch takes seconds

MODELS = ["magika", "efflite0", "pprec", "ppdet", "ppcls", "minilm6", "basicpitch", "smollm2"]
TOLERANCE = 1e-5
"""Largest distance from ONNX Runtime's outputs, as a part of their norm."""
TOLERANCE_OF = {"basicpitch": 3e-5}
"""The same of a model that takes logarithms of powers next to 0, which turn errors of 5e-7 into 2e-5: ONNX Runtime's
own optimizer moves its outputs by 1.8e-5."""
SINGLE = np.dtype(np.float32)
BOOLS = np.array([[True, False], [False, True]])
PACKED_8, PACKED_4 = (np.arange(3 * 2 * size).reshape(3, 2, size).astype(np.uint8) * 37 for size in (32, 16))
NESTED = {("", "If"), ("", "Loop"), ("", "Scan")}
"""Operators with graphs in their attributes, see test_torch_nested."""
OF_FLOATS = [
    Case("Upsample", [n(1, 2, 3, 4), np.array([1, 1, 2, 3], np.float32)], {"mode": "nearest"}, opset=9),
    Case("Resize", [n(1, 2, 3, 4), np.array([1, 1, 2, 2], np.float32)], {"mode": "linear"}, opset=10, name="opset 10"),
    Case("Clip", [n(7)], {"min": -0.5, "max": 0.75}, opset=6, name="of opset 6"),
    Case("Slice", [n(4, 5)], {"starts": [1, -2], "ends": [3, 9]}, opset=9, name="of opset 9"),
    Case("Squeeze", [n(1, 2, 1)], name="of all axes"),
    Case("Squeeze", [n(1, 2, 1)], {"axes": [0]}, opset=11, name="of opset 11"),
    Case("Unsqueeze", [n(2, 3)], {"axes": [1]}, opset=11, name="of opset 11"),
    Case("Reshape", [n(2, 6), ints(0, 3, -1)], name="with a copied size"),
    Case("ReduceSum", [n(2, 3), ints()], name="of an empty list of axes"),
    Case("ReduceSum", [n(2, 3)], {"axes": [0]}, opset=11, name="of opset 11"),
    Case("Split", [n(2, 6)], {"axis": 1, "split": [2, 4]}, opset=11, outputs=2, name="of opset 11"),
    Case("Split", [n(2, 7)], {"axis": 1, "num_outputs": 2}, outputs=2, name="by a number"),
    Case("Pad", [n(2, 3)], {"pads": [1, 0, 0, 2], "value": 1.5}, opset=10, name="of opset 10"),
    Case("Flatten", [n(2, 3, 4)], {"axis": -1}, name="from the end"),
    Case("ConvTranspose", [n(1, 2, 3, 3), n(2, 2, 3, 3)], {"strides": [2, 2], "auto_pad": "SAME_UPPER"}, name="SAME"),
    Case("ConvTranspose", [n(1, 2, 3, 3), n(2, 2, 3, 3)], {"strides": [2, 2], "output_shape": [7, 6]}, name="shape"),
    Case("ConvTranspose", [n(1, 2, 5), n(2, 3, 3)], {"strides": [2], "pads": [1, 0]}, name="of one dimension"),
    Case("MaxPool", [n(1, 2, 7)], {"kernel_shape": [3], "strides": [2], "auto_pad": "SAME_LOWER"}, name="SAME_LOWER"),
    Case("AveragePool", [n(1, 1, 7, 7)], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4, "ceil_mode": 1},
         name="pads, ceil_mode"),
    Case("FusedMatMul", [n(2, 3, 4), n(2, 5, 4)], {"transB": 1, "alpha": 0.5}, domain="com.microsoft"),
    Case("DequantizeLinear", [np.array([[3, -2]], np.int8), np.array([0.5], np.float64)], name="of one scale"),
    Case("Swish", [n(7)], {"alpha": 1.5}, opset=24, since=(1, 24)),
    Case("Softmax", [n(2, 3, 4)], {"axis": 2}, opset=9, name="of opset 9"),
    Case("LogSoftmax", [n(2, 3, 4)], opset=11, name="of opset 11"),
    Case("Constant", [], {"value_floats": [1.5, 2.5]}),
    Case("EyeLike", [n(3, 4)], {"k": 1}),
    Case("CastLike", [ints(1, 2), n(1)]),
    Case("LpPool", [n(1, 2, 7)], {"kernel_shape": [2], "strides": [2], "dilations": [2], "ceil_mode": 1}, name="ceil"),
    Case("Shrink", [n(7)], {"lambd": 0.4, "bias": 0.3}, name="with a bias"),
    *(
        Case("GridSample", [n(1, 2, 4, 5), n(1, 3, 2, 2)], {"mode": mode, "padding_mode": padding}, opset=20,
             name=f"{mode} {padding}", since=(1, 20))
        for mode in ("nearest", "cubic", "linear")
        for padding in ("zeros", "border", "reflection")
    ),
    Case("GridSample", [n(1, 2, 4, 5), n(1, 3, 2, 2)], {"mode": "bicubic", "align_corners": 1}, name="of opset 16"),
    Case("MatMulNBits", [n(2, 40), PACKED_8, p(6), ints(120, 130, 125, 9, 0, 255).astype(np.uint8)],
         {"K": 40, "N": 3, "bits": 8, "block_size": 32}, domain="com.microsoft", name="of 8 bits", since=(1, 22)),
    Case("MatMulNBits", [n(2, 40), PACKED_4, p(6), ints(0x7A, 0x19, 0xF0).astype(np.uint8)],
         {"K": 40, "N": 3, "bits": 4, "block_size": 32}, domain="com.microsoft", name="with zero points"),
]  # fmt: skip
OF_OTHERS = [
    *(Case(op, [n(2, 3), n(3)]) for op in ["Greater", "GreaterOrEqual", "Less", "LessOrEqual"]),
    *(Case(op, [BOOLS, BOOLS[0]]) for op in ["And", "Or", "Xor"]),
    Case("Not", [BOOLS]),
    *(
        Case("BitShift", [np.array([[1], [6], [255]], np.uint8), np.arange(8, dtype=np.uint8)], {"direction": each})
        for each in ["LEFT", "RIGHT"]
    ),
    Case("Equal", [ints(1, 2, 3), ints(3, 2, 1)]),
    Case("IsNaN", [np.array([np.nan, 1.0])]),
    Case("Div", [ints(7, -7, 7, -7), ints(2, 2, -2, -2)], name="of integers"),
    Case("Mod", [ints(7, -7, 7, -7), ints(3, 3, -3, -3)], name="of integers"),
    Case("Pow", [ints(2, 3), ints(3, 2)], name="of integers"),
    Case("Max", [ints(2, 3), ints(3, 2)], name="of integers"),
    Case("ReduceProd", [ints(2, 3, 4)], {"keepdims": 0}, name="of integers"),
    Case("ReduceSum", [ints(2, 3, 4).astype(np.int32)], name="of integers"),
    Case("Cast", [n(5) * 3], {"to": TensorProto.INT64}, name="to integers"),
    Case("Cast", [np.array([0.0, 0.5, -2.0])], {"to": TensorProto.BOOL}, name="to bool"),
    Case("Cast", [BOOLS], {"to": TensorProto.INT32}, name="of bool"),
    Case("Shape", [n(2, 3, 4)]),
    Case("Shape", [n(2, 3, 4)], {"start": -2}, name="from the end"),
    Case("Size", [n(2, 3)]),
    Case("Range", [ints(2)[0], ints(11)[0], ints(3)[0]]),
    Case("ConstantOfShape", [ints(2, 2)], {"value": helper.make_tensor("v", TensorProto.INT64, [1], [7])}),
    Case("Constant", [], {"value_ints": [1, 2]}, name="of integers"),
    Case("Gather", [ints(5, 6, 7), ints(-1, 0)], name="of integers"),
    Case("Slice", [ints(5, 6, 7, 8), ints(-1), ints(-9), ints(0), ints(-1)], name="of integers"),
    Case("Concat", [ints(1), ints(2, 3)], {"axis": 0}, name="of integers"),
    Case("ArgMax", [n(2, 5)], {"axis": 1, "keepdims": 0}),
    Case("ArgMin", [n(2, 5)]),
    Case("NonZero", [BOOLS]),
    Case("Where", [BOOLS, ints(1, 2), ints(3, 4)], name="of integers"),
    Case("Expand", [ints(1), ints(3)], name="of integers"),
]  # fmt: skip
KNOWN = [case for case in CASES if (case.domain, case.op) in OPERATORS]
REFUSED = [
    Case("BatchNormalization", [n(2, 3), n(3), n(3), n(3), p(3)], {"training_mode": 1}),
    Case("GroupNormalization", [n(2, 4, 3), n(2), n(2)], {"num_groups": 2}),
    Case("MaxPool", [n(1, 2, 6)], {"kernel_shape": [2]}, outputs=2),
    *(
        Case("RNN", [n(3, 1, 2), n(1, 2, 2), n(1, 2, 2)], {"hidden_size": 2, **attributes}, name=str(attributes))
        for attributes in ({"clip": 1.0}, {"layout": 1}, {"activations": ["HardSigmoid"]})
    ),
    Case(
        "MatMulNBits",
        [n(2, 40), PACKED_4, p(6), None, ints(*[0] * 40).astype(np.int32)],
        {"K": 40, "N": 3, "bits": 4, "block_size": 32},
        domain="com.microsoft",
    ),
]


def made_by_ort(case: Case) -> list[np.ndarray]:
    if tuple(map(int, ort.__version__.split(".")[:2])) < case.since:
        pytest.skip(f"ONNX Runtime {ort.__version__} can't")
    return session(model_with_output(case)).run(None, feeds_of(case))


def feeds_of(case: Case) -> dict[str, np.ndarray]:
    return {
        f"x{index}": each.astype(SINGLE)
        for index, each in enumerate(case.inputs)
        if each is not None and each.dtype == np.float64 and index not in case.constant
    }


def model_with_output(case: Case):
    model = model_of(case, SINGLE, free=False)
    model.graph.output[0].ClearField("type")  # it may be of integers
    return model


@pytest.mark.parametrize("case", [*KNOWN, *OF_FLOATS, *OF_OTHERS], ids=str)
def test_an_operator_gives_what_onnx_runtime_gives(case: Case) -> None:
    results = Interpreter(loaders.load(model_with_output(case))).run(feeds_of(case))
    for index, expected in enumerate(made_by_ort(case)):
        found = results[f"y{index}"].numpy()
        assert found.shape == expected.shape
        assert found.dtype.kind == expected.dtype.kind
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_every_operator_is_tested() -> None:
    assert OPERATORS.keys() - NESTED == {(case.domain, case.op) for case in [*KNOWN, *OF_FLOATS, *OF_OTHERS]}


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_what_an_operator_cannot_do_is_refused_by_the_nodes_name(case: Case) -> None:
    interpreter = Interpreter(loaders.load(model_of(case, SINGLE, free=False)))
    with pytest.raises(UnsupportedError, match=f"'y0'.* {case.op} .*--effort"):
        interpreter.run(feeds_of(case))


def test_operators_without_a_function_are_named() -> None:
    graph = loaders.load(model_of(Case("Hardmax", [n(2, 3)]), SINGLE, free=False))
    with pytest.raises(UnsupportedError, match="Hardmax"):
        Interpreter(graph)


def test_other_weights_than_the_graphs_can_be_given_and_get_gradients() -> None:
    graph = loaders.load(model_of(Case("MatMul", [n(2, 30), n(30, 4)], constant=[1]), SINGLE, free=False))
    interpreter = Interpreter(graph)
    (name,) = interpreter.weights()
    weight = torch.ones(30, 4, requires_grad=True)
    x = torch.from_numpy(n(2, 30).astype(np.float32))
    y = interpreter.run({"x0": x}, {name: weight})["y0"]
    y.sum().backward()
    np.testing.assert_allclose(y.detach(), x.sum(1, keepdim=True).expand(2, 4), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(weight.grad, x.sum(0)[:, None].expand(30, 4), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_a_public_model_gives_what_onnx_runtime_gives(name: str, tmp_path: Path) -> None:
    graph = loaders.load(prepared(name))
    feeds = tasks().MODELS[name].inputs(CACHE, 1, "calib")[0]
    options = ort.SessionOptions()
    # Its optimizer would have SmolLM2's products of 4-bit weights computed in int8, 6 % off.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    model = ort.InferenceSession(write_model_files(graph, tmp_path), options)
    with torch.no_grad():
        found = Interpreter(graph).run(feeds)
    for output, expected in zip(model.get_outputs(), model.run(None, feeds), strict=True):
        distance = np.linalg.norm(found[output.name].numpy() - expected)
        assert distance <= TOLERANCE_OF.get(name, TOLERANCE) * np.linalg.norm(expected)
