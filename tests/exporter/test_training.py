"""Training graphs: what they compute, what they name, and what a model must be for one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import seed_runtime
from seed_exporter.graph.model import Graph
from seed_exporter.loaders import load
from seed_exporter.skeletons import builder_for
from seed_exporter.training import part, prepare, training_part
from seed_runtime.errors import UnsupportedError
from seed_runtime.format.parts import TRAINING
from seed_runtime.skeletons.training import FEATURES, FULL, HEAD, LEVELS, LOSS, SMALL, scan_training
from tests.exporter.support.exporting import layers, quick_export
from tests.exporter.support.onnx_models import info, make
from tests.exporter.support.training import CROSS_ENTROPY, FACTORS, Joined

RNG = np.random.default_rng(3)
X = {"x": RNG.standard_normal((5, 16)).astype(np.float32)}
STEP = 3e-3


def tensor(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(RNG.standard_normal(shape).astype(np.float32), name)


def dense(*ends: onnx.NodeProto, name: str = "y", constants: Sequence[onnx.TensorProto] = (), **rest) -> Graph:
    """A hidden layer and a head of four classes whose result is called `name`."""
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"]),
        helper.make_node("Tanh", ["h"], ["t"]),
        helper.make_node("MatMul", ["t", "v"], ["m"]),
        helper.make_node("Add", ["m", "c"], [name]),
        *ends,
    ]
    weights = [tensor("w", 16, 20), tensor("b", 20), tensor("v", 20, 4), tensor("c", 4)]
    return load(make(nodes, [*weights, *constants], outputs=[info("y", (None, 4))], **rest))


def convolutional(pool: str = "GlobalAveragePool") -> Graph:
    """Two convolutions with batch norms whose scales and biases are the same tensors, and a head."""
    ones, zeros = np.ones(8, np.float32), np.zeros(8, np.float32)
    stored = [
        numpy_helper.from_array(each, name) for name, each in (("scale", ones), ("bias", zeros), ("var", 2 * ones))
    ]
    nodes = [
        helper.make_node("Conv", ["x", "k1"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["a", "scale", "bias", "m1", "var"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("Conv", ["c", "k2"], ["d"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["d", "scale", "bias", "m2", "var"], ["e"]),
        helper.make_node("Relu", ["e"], ["f"]),
        helper.make_node(pool, ["f"], ["g"], **({"kernel_shape": [6, 6]} if pool == "MaxPool" else {})),
        helper.make_node("Flatten", ["g"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "bias_of_head"], ["y"], transB=1),
    ]
    weights = [tensor("k1", 8, 2, 3, 3), tensor("k2", 8, 8, 3, 3), tensor("m1", 8), tensor("m2", 8)]
    weights += [tensor("w", 3, 8), tensor("bias_of_head", 3), *stored]
    shapes = {"inputs": [info("x", ("n", 2, 6, 6))], "outputs": [info("y", ("n", 3))]}
    return load(make(nodes, weights, opset=15, **shapes))


def loss_of(y: np.ndarray, target: np.ndarray, loss: str) -> float:
    if loss == CROSS_ENTROPY:
        return float(-(target * (y - np.log(np.exp(y).sum(axis=-1, keepdims=True)))).sum())
    if loss == "squared error":
        return float(np.square(y - target).sum())
    lengths = np.linalg.norm(y, axis=-1) * np.linalg.norm(target, axis=-1)
    return float((1 - (y * target).sum(axis=-1) / lengths).sum())


@pytest.mark.parametrize("loss", FACTORS)
def test_gradients_are_those_of_the_loss(loss: str, tmp_path: Path) -> None:
    graph = prepare(dense())
    w, b, v, c = (graph.weights[name].data.astype(np.float64) for name in ("w", "b", "v", "c"))
    target = RNG.dirichlet(np.ones(4), 5).astype(np.float32)

    def value(v: np.ndarray, b: np.ndarray) -> float:
        return 0.5 * loss_of(np.tanh(X["x"] @ w + b) @ v + c, target, loss)

    joined = Joined(graph, tmp_path)
    outputs = joined.sources()
    found = joined.run([LOSS, outputs["v"], outputs["b"]], X, target, loss, 0.5)
    np.testing.assert_allclose(found[0], value(v, b), rtol=1e-5)
    for place in ((0, 0), (7, 2), (19, 3)):
        moved = [v.copy(), v.copy()]
        moved[0][place] += STEP
        moved[1][place] -= STEP
        np.testing.assert_allclose(found[1][place], (value(moved[0], b) - value(moved[1], b)) / (2 * STEP), rtol=2e-3)
    bent = [b.copy(), b.copy()]
    bent[0][3] += STEP
    bent[1][3] -= STEP
    np.testing.assert_allclose(found[2][3], (value(v, bent[0]) - value(v, bent[1])) / (2 * STEP), rtol=2e-3)


ENDS = {
    "a softmax": ([helper.make_node("Softmax", ["z"], ["y"], axis=-1)], 18),
    "a softmax that is passed on": (
        [helper.make_node("Softmax", ["z"], ["p"], axis=1), helper.make_node("Identity", ["p"], ["y"])],
        18,
    ),
    "a softmax on rows": ([helper.make_node("Softmax", ["z"], ["y"], axis=1)], 11),
    "a quotient": (
        [
            helper.make_node("ReduceMax", ["z", "axis"], ["most"]),
            helper.make_node("Sub", ["z", "most"], ["low"]),
            helper.make_node("Exp", ["low"], ["e"]),
            helper.make_node("ReduceSum", ["e", "axis"], ["s"]),
            helper.make_node("Div", ["e", "s"], ["y"]),
        ],
        18,
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_the_cross_entropy_behind_a_softmax_is_of_what_stands_before_it(end: str, tmp_path: Path) -> None:
    nodes, opset = ENDS[end]
    axis = numpy_helper.from_array(np.array([-1], np.int64), "axis")
    joined = Joined(prepare(dense(*nodes, name="z", opset=opset, constants=[axis])), tmp_path)
    target = np.eye(4, dtype=np.float32)[[0, 3, 1, 2, 2]]
    y, loss, features = joined.run(["y", LOSS, FEATURES], X, target, CROSS_ENTROPY, 1.0)
    np.testing.assert_allclose(loss, -np.log(y[range(5), [0, 3, 1, 2, 2]]).sum(), rtol=1e-4)
    assert joined.info.axis == 1
    assert features.shape == (5, 20)


def test_elements_behind_a_sigmoid_are_decisions_of_their_own(tmp_path: Path) -> None:
    joined = Joined(prepare(dense(helper.make_node("Sigmoid", ["z"], ["y"]), name="z")), tmp_path)
    target = RNG.integers(0, 2, (5, 4)).astype(np.float32)
    y, loss = joined.run(["y", LOSS], X, target, CROSS_ENTROPY, 1.0)
    assert joined.info.axis is None
    np.testing.assert_allclose(loss, -np.log(np.where(target == 1, y, 1 - y)).sum(), rtol=1e-4)


def test_each_tensor_is_in_the_smallest_set_that_holds_it(tmp_path: Path) -> None:
    joined = Joined(prepare(convolutional()), tmp_path)
    sets: dict[str, set[str]] = {level: set() for level in LEVELS}
    for name, output in joined.sources().items():
        sets[output.rpartition(".")[0]].add(name)
    assert sets == {
        HEAD: {"w", "bias_of_head"},
        SMALL: {"scale", "bias", "scale_1", "bias_1"},
        FULL: {"k1", "k2"},
    }


def test_a_vector_that_two_norms_share_is_split_and_one_inside_the_model_becomes_a_weight() -> None:
    before = convolutional()
    assert {"scale", "bias", "var", "bias_of_head"}.isdisjoint(before.weights)
    after = prepare(before)
    norms = [node for node in after.model.graph.node if node.op_type == "BatchNormalization"]
    assert norms[0].input[1:] == ["scale", "bias", "m1", "var"]
    assert norms[1].input[1:] == ["scale_1", "bias_1", "m2", "var_1"]
    assert {"scale", "scale_1", "var_1", "m1", "bias_of_head"} <= after.weights.keys()
    assert after.trains
    assert not before.trains


def test_a_matrix_that_two_layers_share_stays_tied() -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("MatMul", ["h", "w"], ["y"])]
    graph = prepare(load(make(nodes, [tensor("w", 16, 16)], outputs=[info("y", (None, 16))])))
    assert list(graph.weights) == ["w"]


def test_batches_give_the_means_and_variances_that_their_norms_would_have(tmp_path: Path) -> None:
    graph = prepare(convolutional())
    joined = Joined(graph, tmp_path)
    x = RNG.standard_normal((4, 2, 6, 6)).astype(np.float32)
    (mean, variance), _ = joined.info.norms
    found = joined.run([mean.output, variance.output], {"x": x}, np.zeros((4, 3), np.float32), CROSS_ENTROPY, 0.0)
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    seen = np.einsum("nchwij,ocij->nohw", windows, graph.weights["k1"].data)
    np.testing.assert_allclose(found[0], seen.mean(axis=(0, 2, 3)), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found[1], seen.var(axis=(0, 2, 3)), rtol=1e-3)


def test_a_node_that_gradients_need_more_of_stays_in_the_model_as_it_is(tmp_path: Path) -> None:
    graph = prepare(convolutional("MaxPool"))
    joined = Joined(graph, tmp_path)
    pools = [node for node in graph.model.graph.node if node.op_type == "MaxPool"]
    assert [len(node.output) for node in pools] == [1]
    outputs = joined.sources()
    x = RNG.standard_normal((4, 2, 6, 6)).astype(np.float32)
    target = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    assert np.abs(joined.run([outputs["k1"]], {"x": x}, target, CROSS_ENTROPY, 1.0)[0]).max() > 0


def test_batches_are_of_any_size_and_their_sums_add_up(tmp_path: Path) -> None:
    joined = Joined(prepare(dense()), tmp_path)
    target = np.eye(4, dtype=np.float32)[[0, 3, 1, 2, 2]]
    names = [LOSS, *joined.sources().values()]
    whole = joined.run(names, X, target, CROSS_ENTROPY, 0.2)
    parts = [joined.run(names, {"x": X["x"][at]}, target[at], CROSS_ENTROPY, 0.2) for at in (slice(2), slice(2, 5))]
    for one, first, second in zip(whole, *parts, strict=True):
        np.testing.assert_allclose(first + second, one, rtol=1e-4, atol=1e-6)


def test_positions_whose_target_is_zero_do_not_count(tmp_path: Path) -> None:
    joined = Joined(prepare(dense()), tmp_path)
    target = np.eye(4, dtype=np.float32)[[0, 3, 1, 2, 2]]
    names = [LOSS, *joined.sources().values()]
    few = joined.run(names, {"x": X["x"][:3]}, target[:3], CROSS_ENTROPY, 1.0)
    target[3:] = 0
    for one, other in zip(joined.run(names, X, target, CROSS_ENTROPY, 1.0), few, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_the_part_follows_the_names_of_any_order_of_the_weights() -> None:
    graph = prepare(convolutional())
    for order in (sorted(graph.weights), sorted(graph.weights, reverse=True)):
        skeleton = builder_for(graph).build(order)
        found = scan_training(training_part(graph, order), skeleton.data, skeleton.holes)
        heads = {order[each.hole] for each in found.tensors if LEVELS[each.level] == HEAD}
        assert heads == {"w", "bias_of_head"}
        assert [(order[mean.hole], order[variance.hole]) for mean, variance in found.norms] == [
            ("m1", "var"),
            ("m2", "var_1"),
        ]


def test_the_part_of_an_order_is_built_once_in_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, built = prepare(convolutional()), list[int]()
    check = part._check
    monkeypatch.setattr(part, "_check", lambda skeleton, data: (built.append(len(data)), check(skeleton, data)))
    names = list(graph.weights)
    first = training_part(graph, names)
    assert training_part(graph, list(names)) == first
    assert len(built) == 1
    training_part(graph, names[::-1])
    assert len(built) == 2


def test_what_stands_before_an_operator_without_a_gradient_is_not_trained(tmp_path: Path) -> None:
    shape = numpy_helper.from_array(np.array([-1, 4, 4], np.int64), "shape")
    back = numpy_helper.from_array(np.array([-1, 1], np.int64), "back")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("Reshape", ["z", "shape"], ["squares"]),
        helper.make_node("Det", ["squares"], ["d"]),
        helper.make_node("Reshape", ["d", "back"], ["column"]),
        helper.make_node("MatMul", ["column", "v"], ["y"]),
    ]
    model = make(nodes, [tensor("w", 16, 16), tensor("v", 1, 20), shape, back], outputs=[info("y", (None, 20))])
    assert set(Joined(prepare(load(model)), tmp_path).sources()) == {"v"}
    alone = make(nodes[:3], [tensor("w", 16, 16), shape], outputs=[info("d", (None,))])
    graph = prepare(load(alone))
    with pytest.raises(UnsupportedError, match="Det has no gradient; export it without --finetune-graph"):
        training_part(graph, list(graph.weights))


def test_a_model_without_an_output_of_floats_is_refused() -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("ArgMax", ["z"], ["y"])]
    outputs = [helper.make_tensor_value_info("y", onnx.TensorProto.INT64, None)]
    graph = prepare(load(make(nodes, [tensor("w", 16, 16)], outputs=outputs)))
    with pytest.raises(UnsupportedError, match="needs an output of float32"):
        training_part(graph, list(graph.weights))


def test_an_export_puts_the_part_into_the_seed_and_only_then(tmp_path: Path) -> None:
    model = layers(np.random.default_rng(1), 16, 64, 4)
    seeds = []
    for asked in (False, True):
        quick_export(model, tmp_path / f"{asked}.seed", effort=1, finetune_graph=asked)
        seeds.append(seed_runtime.open(tmp_path / f"{asked}.seed"))
    assert [[part.kind for part in seed.header.parts] for seed in seeds] == [[1], [1, TRAINING.number]]
    for seed in seeds:
        seed.check()
