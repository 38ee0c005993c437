"""Each rule of reverse mode against finite differences."""

from __future__ import annotations

import numpy as np
import pytest

from seed_exporter.gradients.registry import RULES
from tests.exporter.support.gradients import Case, check
from tests.exporter.support.layer_cases import PACKED, RECURRENT, SAMPLING

_RNG = np.random.default_rng(3)


def n(*shape: int) -> np.ndarray:
    """Draw values that keep away from 0, where many slopes jump, and from each other."""
    count = int(np.prod(shape))
    values = (np.arange(count) + 1.5) / count * _RNG.choice([-1.0, 1.0], count)
    return np.asarray(2 * _RNG.permutation(values).reshape(shape))


def p(*shape: int) -> np.ndarray:
    return np.abs(n(*shape)) + 0.2


def u(*shape: int) -> np.ndarray:
    return n(*shape) * 0.4


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


X = (2, 3, 4)
IMAGE = (2, 4, 5, 6)

UNARY = [
    *(
        Case(op, [n(2, 5)])
        for op in [
            "Neg",
            "Abs",
            "Exp",
            "Sin",
            "Cos",
            "Atan",
            "Sinh",
            "Cosh",
            "Asinh",
            "Tanh",
            "Sigmoid",
            "Erf",
            "Identity",
            "Relu",
            "LeakyRelu",
            "Elu",
            "Selu",
            "Celu",
            "Softplus",
            "Softsign",
            "Mish",
            "HardSigmoid",
            "HardSwish",
            "ThresholdedRelu",
            "Softmax",
            "LogSoftmax",
            "Dropout",
        ]
    ),
    *(Case(op, [np.array([-1.3, -0.4, 0.2, 0.8])]) for op in ["Floor", "Ceil", "Round", "Sign"]),
    *(Case(op, [p(2, 5)]) for op in ["Log", "Sqrt", "Reciprocal"]),
    *(Case(op, [u(2, 5)]) for op in ["Asin", "Acos", "Atanh", "Tan"]),
    Case("Shrink", [np.array([-1.3, -0.4, 0.2, 0.8])], single=True),
    Case("Acosh", [p(2, 5) + 1]),
    Case("Cast", [n(4)], {"to": 1}),
    Case("Elu", [n(7)], {"alpha": 0.3}, name="alpha"),
    Case("Celu", [n(7)], {"alpha": 0.7}, name="alpha"),
    Case("LeakyRelu", [n(7)], {"alpha": 0.3}, name="alpha"),
    Case("Selu", [n(7)], {"alpha": 0.8, "gamma": 1.3}, name="alpha, gamma"),
    Case("HardSigmoid", [n(7)], {"alpha": 0.4, "beta": 0.3}, name="alpha, beta"),
    Case("Softmax", [n(*X)], {"axis": 1}, name="axis 1"),
    Case("Softmax", [n(*X)], {"axis": 1}, opset=11, name="of opset 11", dynamic=False),
    Case("LogSoftmax", [n(*X)], {"axis": 0}, name="axis 0"),
    Case("Gelu", [n(7)], opset=20),
    Case("Gelu", [n(7)], {"approximate": "tanh"}, opset=20, name="tanh"),
    Case("PRelu", [n(*X), p(3, 1)]),
    Case("Clip", [n(2, 5), np.array(-1.05), np.array(0.95)], wrt=[0, 1, 2]),
    Case("Clip", [n(2, 5), None, np.array(0.95)], wrt=[0], constant=[2], name="of one side"),
    Case("Gelu", [n(7)], domain="com.microsoft"),
    Case("QuickGelu", [n(7)], domain="com.microsoft"),
    Case("FastGelu", [n(2, 5), n(5)], domain="com.microsoft"),
    Case("BiasGelu", [n(2, 5), n(5)], domain="com.microsoft"),
]
SHAPES = [((2, 3), (2, 3)), ((2, 3, 4), (3, 1)), ((4,), (3, 4)), ((), (2, 2)), ((2, 1, 3), (1, 2, 1))]
BINARY = [
    *(
        Case(op, [n(*a), n(*b)], name=f"{a} {b}")
        for op in ["Add", "Sub", "Mul", "Div", "Max", "Min"]
        for a, b in SHAPES
    ),
    Case("Pow", [p(2, 3), n(3)]),
    Case("Pow", [n(2, 3), np.array(2.0)], constant=[1], name="square"),
    Case("Pow", [n(2, 3), np.array(3.0)], constant=[1], name="cube"),
    Case("Pow", [n(2, 3), ints(3)], name="of whole exponents"),
    Case("Pow", [np.zeros((2, 2)), np.array([0.0, 3.0])], constant=[1], name="of zeros"),
    Case("Mod", [p(2, 3), p(3) + 1], {"fmod": 1}),
    Case("Max", [n(3), n(2, 3), n(1)], name="of three"),
    Case("Sum", [n(3), n(2, 3), n(1)]),
    Case("Mean", [n(3), n(2, 3), n(1)]),
    Case("Range", [np.array(0.3), np.array(4.1), np.array(0.9)], wrt=[0, 1, 2]),
    Case("Where", [np.array([[True], [False]]), n(3), n(2, 3)]),
]
_AXES = [("", None, 1), ("axis 1", [1], 1), ("axes -1, 0 dropped", [-1, 0], 0), ("all dropped", None, 0)]
REDUCTIONS = [
    *(
        Case(op, [p(*X), *([] if axes is None else [ints(*axes)])], {"keepdims": keep}, name=name)
        for op in [
            "ReduceSum",
            "ReduceMean",
            "ReduceMax",
            "ReduceMin",
            "ReduceProd",
            "ReduceL1",
            "ReduceSumSquare",
            "ReduceLogSum",
            "ReduceLogSumExp",
        ]
        for name, axes, keep in _AXES
    ),
    *(
        Case(
            "ReduceL2", [p(*X), *([] if axes is None else [ints(*axes)])], {"keepdims": keep}, name=name, since=(1, 20)
        )
        for name, axes, keep in _AXES
    ),
    Case("ReduceSum", [p(2, 3)], {"noop_with_empty_axes": 1, "keepdims": 0}, name="that does nothing", since=(1, 24)),
    Case("ReduceProd", [np.array([[1.0, 0, 2], [0, 0, 3], [2, 3, 4]]), ints(1)], name="with zeros"),
    Case("ReduceMean", [p(*X)], {"axes": [1], "keepdims": 0}, opset=13, name="of opset 13"),
    Case("CumSum", [n(2, 3), ints(1)[0]]),
    Case("CumSum", [n(2, 3), ints(0)[0]], {"exclusive": 1, "reverse": 1}, name="exclusive, reverse"),
]
MATRICES = [
    *(
        Case("MatMul", [n(*a), n(*b)], name=f"{a} {b}")
        for a, b in [
            ((2, 3), (3, 4)),
            ((2, 2, 3), (3, 4)),
            ((2, 3), (2, 3, 4)),
            ((2, 1, 2, 3), (3, 3, 2)),
            ((3,), (3, 4)),
            ((2, 3), (3,)),
            ((3,), (3,)),
            ((2, 2, 3), (3,)),
            ((3,), (2, 3, 4)),
        ]
    ),
    *(
        Case(
            "Gemm",
            [n(*((3, 2) if a else (2, 3))), n(*((4, 3) if b else (3, 4))), n(4)],
            {"transA": a, "transB": b, "alpha": 0.5, "beta": 2.0},
            name=f"{a}{b}",
        )
        for a in (0, 1)
        for b in (0, 1)
    ),
    Case("Gemm", [n(2, 3), n(3, 4)], name="without a bias"),
    *(
        Case(
            "FusedMatMul",
            [n(*((2, 3, 2) if a else (2, 2, 3))), n(*((4, 3) if b else (3, 4)))],
            {"transA": a, "transB": b, "alpha": 0.5},
            domain="com.microsoft",
            name=f"{a}{b}",
        )
        for a in (0, 1)
        for b in (0, 1)
    ),
    Case("FusedMatMul", [n(2, 1, 2, 3), n(3, 3, 2)], domain="com.microsoft", name="of broadcast batches"),
    Case("Einsum", [n(2, 3), n(3, 4)], {"equation": "ij,jk->ik"}),
    Case("Einsum", [n(2, 3, 2), n(2, 2)], {"equation": "bij,bk->bi"}, name="with labels that are summed"),
    Case("Einsum", [n(2, 3), n(3, 4)], {"equation": "ij,jk"}, name="without an arrow"),
]
CONVOLUTIONS = [
    Case("Conv", [n(2, 3, 5, 4), n(2, 3, 3, 3), n(2)], {"pads": [1, 1, 1, 1]}),
    Case("Conv", [n(1, 2, 7, 8), n(2, 2, 3, 2)], {"strides": [2, 3], "pads": [1, 0, 0, 1]}, name="strides"),
    Case("Conv", [n(1, 2, 8, 8), n(2, 2, 2, 2)], {"strides": [3, 3]}, name="strides that leave a rest"),
    Case("Conv", [n(1, 2, 8, 7), n(2, 2, 3, 2)], {"dilations": [2, 3], "strides": [2, 1]}, name="dilations"),
    Case("Conv", [n(2, 4, 5, 4), n(6, 2, 3, 3), n(6)], {"group": 2, "pads": [1] * 4}, name="groups"),
    Case(
        "Conv",
        [n(2, 4, 6, 5), n(4, 1, 3, 3)],
        {"group": 4, "strides": [2, 2], "pads": [0, 0, 1, 1]},
        name="depthwise, strides",
    ),
    Case("Conv", [n(2, 3, 4, 3), n(2, 3, 1, 1), n(2)], name="of one point"),
    Case("Conv", [n(2, 3, 4, 3), n(2, 3, 1, 1)], {"strides": [2, 2]}, name="of one point, strides"),
    Case("Conv", [n(2, 3, 9), n(2, 3, 3), n(2)], {"strides": [2], "pads": [2, 1]}, name="of one dimension"),
    Case("Conv", [n(1, 2, 3, 4, 3), n(2, 2, 2, 2, 2)], {"pads": [1, 0, 0, 0, 1, 0]}, name="of three dimensions"),
    *(
        Case(
            "Conv",
            [n(1, 2, 6, 5), n(2, 2, 3, 2)],
            {"auto_pad": auto, "strides": [2, 2]},
            name=f"{auto}, strides",
            dynamic=auto == "VALID",
        )
        for auto in ["SAME_UPPER", "SAME_LOWER", "VALID"]
    ),
    Case("Conv", [n(1, 2, 6, 5), n(2, 2, 4, 2)], {"auto_pad": "SAME_UPPER"}, name="SAME_UPPER"),
    Case("ConvTranspose", [n(1, 3, 4, 3), n(3, 2, 3, 3), n(2)], {"pads": [1, 1, 1, 0]}),
    Case(
        "ConvTranspose", [n(1, 2, 3, 3), n(2, 2, 2, 3)], {"strides": [2, 3], "output_padding": [1, 2]}, name="strides"
    ),
    Case(
        "ConvTranspose",
        [n(1, 4, 3, 3), n(4, 2, 2, 2)],
        {"group": 2, "dilations": [2, 1], "strides": [2, 2]},
        name="groups",
        dynamic=True,
    ),
]
_POOL = {"kernel_shape": [3, 2], "strides": [2, 2]}
POOLING = [
    Case("GlobalAveragePool", [n(*IMAGE)]),
    Case("GlobalMaxPool", [n(2, 3, 3, 3)]),
    Case("MaxPool", [n(1, 2, 6, 6)], {**_POOL, "pads": [1, 0, 1, 0]}),
    Case("MaxPool", [n(1, 2, 6, 6)], {**_POOL, "dilations": [2, 1], "ceil_mode": 1}, name="dilations, ceil_mode"),
    Case("AveragePool", [n(2, 2, 6, 6)], _POOL),
    Case("AveragePool", [n(1, 2, 5, 6)], {**_POOL, "pads": [1, 1, 1, 0]}, name="pads"),
    Case(
        "AveragePool", [n(1, 2, 5, 6)], {**_POOL, "pads": [1, 1, 1, 0], "count_include_pad": 1}, name="pads that count"
    ),
    Case("AveragePool", [n(1, 2, 6, 7)], {**_POOL, "ceil_mode": 1}, name="ceil_mode"),
    Case("LpPool", [n(1, 2, 5, 6)], {**_POOL, "pads": [1, 0, 1, 0]}),
    Case("LpPool", [n(1, 2, 6, 6)], {**_POOL, "p": 3}, name="of cubes"),
    Case("LpPool", [n(1, 2, 6, 6)], {**_POOL, "p": 1}, name="of absolute values"),
    Case("GlobalLpPool", [n(2, 3, 3, 2)]),
    Case("GlobalLpPool", [n(2, 3, 3, 2)], {"p": 3}, name="of cubes"),
    Case("AveragePool", [n(1, 2, 7)], {"kernel_shape": [3], "auto_pad": "SAME_UPPER"}, name="of one dimension"),
]
NORMS = [
    Case("BatchNormalization", [n(2, 3, 2, 2), n(3), n(3), n(3), p(3)], {"epsilon": 1e-3}),
    Case("BatchNormalization", [n(4, 3), n(3), n(3), n(3), p(3)], name="of vectors"),
    Case("InstanceNormalization", [n(2, 3, 2, 3), n(3), n(3)]),
    Case("LayerNormalization", [n(2, 3, 4), n(4), n(4)]),
    Case("LayerNormalization", [n(2, 3, 4), n(3, 4)], {"axis": 1}, name="of two axes"),
    Case("GroupNormalization", [n(2, 4, 2, 3), n(4), n(4)], {"num_groups": 2}, opset=21, single=True),
    Case("SimplifiedLayerNormalization", [n(2, 3, 4), n(4)]),
    Case("RMSNormalization", [n(2, 3, 4), n(4)], opset=23, since=(1, 23)),
    Case("LpNormalization", [n(2, 3)], {"p": 2, "axis": 0}),
    Case("LpNormalization", [n(2, 3)], {"p": 1}, name="by sums"),
    Case("MeanVarianceNormalization", [n(2, 3, 2, 3)]),
    Case("LRN", [n(2, 5, 2, 2)], {"size": 3, "alpha": 0.5, "beta": 0.6, "bias": 1.2}),
    Case("LRN", [n(1, 6, 3, 1)], {"size": 5, "alpha": 0.9}, name="of five channels"),
    Case("SkipLayerNormalization", [n(2, 3, 4), n(2, 3, 4), n(4), n(4), n(4)], domain="com.microsoft"),
    Case("SkipSimplifiedLayerNormalization", [n(2, 3, 4), n(2, 3, 4), n(4)], domain="com.microsoft"),
]
MOVEMENT = [
    Case("Reshape", [n(*X), ints(4, -1)]),
    Case("Flatten", [n(*X)], {"axis": 2}),
    Case("Squeeze", [n(2, 1, 3), ints(1)]),
    Case("Unsqueeze", [n(2, 3), ints(0, -1)]),
    Case("Transpose", [n(*X)], {"perm": [1, 2, 0]}),
    Case("Transpose", [n(*X)], name="of all axes"),
    Case("Concat", [n(2, 1), n(2, 3), n(2, 2)], {"axis": -1}),
    Case("Split", [n(2, 5), ints(2, 3)], {"axis": 1}, outputs=2),
    Case("Pad", [n(2, 3), ints(1, 0, 2, -1)]),
    Case("Pad", [n(2, 3), ints(1, 2), None, ints(-1)], name="along one axis"),
    *(Case("Pad", [n(3, 4), ints(1, 2, 2, 1)], {"mode": mode}, name=mode) for mode in ["reflect", "edge"]),
    Case("Expand", [n(3, 1), ints(2, 3, 4)]),
    Case("Tile", [n(2, 3), ints(2, 3)]),
    Case("DepthToSpace", [n(1, 8, 2, 3)], {"blocksize": 2}),
    Case("DepthToSpace", [n(1, 8, 2, 3)], {"blocksize": 2, "mode": "CRD"}, name="CRD"),
    Case("SpaceToDepth", [n(1, 2, 4, 6)], {"blocksize": 2}),
]
INDEXING = [
    Case("Gather", [n(4, 3), ints(0, -1, 0)]),
    Case("Gather", [n(2, 4, 3), np.array([[0, 3], [3, 1]])], {"axis": 1}, name="of an axis in between"),
    Case("Gather", [n(2, 4), ints(2)[0]], {"axis": -1}, name="of one element"),
    Case("GatherElements", [n(2, 3), np.array([[0, 2, 0], [1, 1, -1]])], {"axis": 1}),
    Case("GatherND", [n(2, 3, 2), np.array([[0, 1], [1, 2], [0, 1]])]),
    Case("GatherND", [n(2, 3, 2), np.array([[1], [2]])], {"batch_dims": 1}, name="of batches"),
    Case("Compress", [n(3, 2), np.array([True, False, True])], {"axis": 0}),
    Case("ScatterElements", [n(3, 3), np.array([[0, 2, 1]]), n(1, 3)]),
    Case("ScatterElements", [n(3, 3), np.array([[0, 0, 1]]), n(1, 3)], {"reduction": "add", "axis": 1}, name="add"),
    Case("ScatterND", [n(4, 2), np.array([[1], [3]]), n(2, 2)]),
    Case("ScatterND", [n(4, 2), np.array([[1], [1]]), n(2, 2)], {"reduction": "add"}, name="add"),
    Case("TopK", [n(2, 4), ints(2)], outputs=2),
    Case("OneHot", [np.array([[0, 2], [-1, 5]]), ints(3)[0], n(2)], wrt=[2]),
    Case("OneHot", [ints(1, 0), ints(3)[0], n(2)], {"axis": 0}, wrt=[2], name="of the first axis"),
    Case("Trilu", [n(3, 4)], {"upper": 0}),
    Case("Trilu", [n(3, 4), ints(1)[0]], name="above the diagonal"),
    Case("ReverseSequence", [n(4, 2), ints(3, 2)]),
    Case("Slice", [n(4, 5), ints(1), ints(3)]),
    Case("Slice", [n(4, 5), ints(-3, 1), ints(2**62, -1), ints(1, 0)], name="from the end"),
    Case("Slice", [n(4, 5), ints(3, -1), ints(-9, 0), ints(0, 1), ints(-1, -2)], name="backwards"),
    Case("Slice", [n(5), ints(-9), ints(3), ints(0), ints(2)], name="steps"),
]
_CUBIC = {"mode": "cubic", "coordinate_transformation_mode": "pytorch_half_pixel", "cubic_coeff_a": -0.6}
RESIZING = [
    Case("Resize", [n(1, 2, 3, 4), None, np.array([1, 1, 2, 2], np.float32)], {"mode": "nearest"}),
    Case(
        "Resize",
        [n(1, 2, 3, 4), None, np.array([1, 1, 2, 2], np.float32)],
        {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
        name="floor",
    ),
    Case("Resize", [n(1, 2, 3, 4), None, np.array([1, 1, 1.5, 0.6], np.float32)], {"mode": "linear"}, name="linear"),
    Case(
        "Resize",
        [n(1, 2, 3, 4), None, None, ints(1, 2, 5, 3)],
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
        name="by sizes, corners aligned",
    ),
    Case("Resize", [n(1, 1, 4, 5), None, None, ints(1, 1, 6, 3)], _CUBIC, name="cubic"),
    Case("Resize", [n(1, 1, 6, 5), None, None, ints(1, 1, 3, 4)], {"mode": "linear", "antialias": 1}, name="smooth"),
]
_INTS = np.array([[3, -2, 7], [1, 5, -4]], np.int8)
QUANTIZED = [
    Case("DequantizeLinear", [_INTS, np.array(0.5), np.array(2, np.int8)]),
    Case("DequantizeLinear", [_INTS, p(3), np.array([1, 2, 3], np.int8)], {"axis": 1}, name="by columns"),
    Case("DequantizeLinear", [_INTS, p(2)], {"axis": 0}, name="by rows"),
    Case(
        "DequantizeLinear",
        [np.arange(8, dtype=np.int8).reshape(2, 4), p(2, 2)],
        {"axis": 1, "block_size": 2},
        opset=21,
        name="by blocks",
    ),
]
CASES = [
    *UNARY, *BINARY, *REDUCTIONS, *MATRICES, *CONVOLUTIONS, *POOLING, *NORMS, *MOVEMENT, *INDEXING, *RESIZING,
    *QUANTIZED, *RECURRENT, *SAMPLING, *PACKED,
]  # fmt: skip
UNTESTED = {"CastLike", "Swish", "EyeLike", "RandomNormalLike", "RandomUniformLike", "Bernoulli"}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_rule_gives_what_finite_differences_give_and_takes_sizes_at_run_time(case: Case) -> None:
    check(case)


def test_every_rule_is_tested() -> None:
    assert {operator for _, operator in RULES} == {case.op for case in CASES} | UNTESTED
