"""Dead neurons and attention heads are cut out of products of matrices."""

from __future__ import annotations

import pytest

from seed_exporter.shrink.run import shrink
from tests.exporter.support.pruned_models import Builder, shrunk


def ops(graph) -> list[str]:
    return [node.op_type for node in graph.model.graph.node]


def test_neurons_of_dense_layers_are_cut_and_their_constants_folded():
    b = Builder(x=["n", "t", 6])
    hidden = b.node("MatMul", "x", b.weight("up", 6, 20, dead=range(9), axis=1))
    hidden = b.node("Sigmoid", b.node("Add", hidden, b.weight("up.bias", 20)))
    down = b.node("MatMul", hidden, b.weight("down", 20, 7))
    graph, shapes = shrunk(b, b.node("Add", down, b.weight("down.bias", 7)))
    assert shapes["up"] == (6, 11)
    assert shapes["down"] == (11, 7)
    assert ops(graph) == ["MatMul", "Add", "Sigmoid", "MatMul", "Add"], "folded into the bias that is there"


def test_a_product_without_a_bias_gets_one_for_its_constants():
    b = Builder(x=["n", 6])
    hidden = b.node("Sigmoid", b.node("MatMul", "x", b.weight("up", 6, 20, dead=range(9), axis=1)))
    graph, shapes = shrunk(b, b.node("MatMul", hidden, b.weight("down", 20, 7)))
    assert shapes["down"] == (11, 7)
    assert ops(graph)[-1] == "Add"


@pytest.mark.parametrize(("alpha", "beta", "left"), [(1.0, 1.0, 11), (0.5, 1.0, 11), (1.0, 2.0, 20)])
@pytest.mark.parametrize("bias", [(), (7,), (1, 7)])
def test_factors_of_a_gemm_are_in_the_constants_that_it_gets(
    alpha: float, beta: float, left: int, bias: tuple[int, ...]
):
    b = Builder(x=["n", 6])
    up = b.node("Gemm", "x", b.weight("up", 6, 20, dead=range(9), axis=1), b.weight("up.bias", 20))
    inputs = [b.node("Sigmoid", up), b.weight("down", 20, 7)]
    if bias:
        inputs.append(b.weight("down.bias", *bias))
    _, shapes = shrunk(b, b.node("Gemm", *inputs, alpha=alpha, beta=beta))
    assert shapes["down"] == (left, 7), "where the bias has a factor, constants stay where they are"


def test_living_neurons_do_not_pass_for_constants_where_an_operator_compares():
    b = Builder(x=["n", 6])
    hidden = b.node("MatMul", "x", b.weight("up", 6, 20, dead=range(9), axis=1))
    hidden = b.node("ThresholdedRelu", hidden, alpha=0.1)
    _, shapes = shrunk(b, b.node("MatMul", hidden, b.weight("down", 20, 7)))
    assert shapes["down"] == (11, 7)


def attention(b: Builder, dead: dict[str, list[int]], *, dynamic: bool = False, bias: bool = True) -> str:
    """4 heads of 8 channels over 32; `dead` has the dead columns of q, k, v and the dead rows of o."""
    sizes = b.constant([0, 0, 4, 8])
    if dynamic:
        batch = b.node("Gather", b.node("Shape", "x"), b.constant([0]))
        sizes = b.node("Concat", batch, b.constant([-1]), b.constant([4, 8]), axis=0)
    heads = []
    for name in "qkv":
        value = b.node("MatMul", "x", b.weight(name, 32, 32, dead=dead.get(name, ()), axis=1))
        if bias:
            value = b.node("Add", value, b.weight(f"{name}.bias", 32))
        heads.append(
            b.node("Transpose", b.node("Reshape", value, sizes), perm=[0, 2, 3, 1] if name == "k" else [0, 2, 1, 3])
        )
    scores = b.node("Softmax", b.node("MatMul", heads[0], heads[1]), axis=-1)
    mixed = b.node("Transpose", b.node("MatMul", scores, heads[2]), perm=[0, 2, 1, 3])
    flat = b.node("Reshape", mixed, b.constant([0, 0, 32]))
    return b.node("MatMul", flat, b.weight("o", 32, 32, dead=dead.get("o", ())))


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(
    "dead", [{"v": list(range(8, 24))}, {"o": list(range(8, 24))}, {"v": list(range(8, 16)), "o": list(range(16, 24))}]
)
def test_a_head_goes_that_returns_a_constant_or_that_nobody_reads(dead: dict[str, list[int]], dynamic: bool):
    b = Builder(x=["n", "t", 32])
    _, shapes = shrunk(b, attention(b, dead, dynamic=dynamic), n=3, t=5)
    assert [shapes[name] for name in "qkvo"] == [(32, 16), (32, 16), (32, 16), (16, 32)]


def test_a_constant_value_is_none_of_the_sum_where_weights_do_not_add_up_to_one():
    b = Builder(x=["n", "t", 16])
    value = b.node("Add", b.node("MatMul", "x", b.weight("v", 16, 8, dead=range(4), axis=1)), b.weight("bias", 8))
    scores = b.node("Relu", b.node("MatMul", "x", b.node("Transpose", "x", perm=[0, 2, 1])))
    _, shapes = shrunk(b, b.node("MatMul", b.node("MatMul", scores, value), b.weight("o", 8, 8)), n=2, t=5)
    assert shapes["v"] == (16, 8)


def test_channels_that_are_dead_in_all_heads_go():
    b = Builder(x=["n", "t", 32])
    dead = [head * 8 + place for head in range(4) for place in (1, 5, 6)]
    _, shapes = shrunk(b, attention(b, {"q": dead, "v": dead}, bias=False), n=3, t=5)
    assert [shapes[name] for name in "qkvo"] == [(32, 20), (32, 20), (32, 20), (20, 32)]


def test_an_attention_without_living_heads_is_removed():
    b = Builder(x=["n", "t", 32])
    graph, shapes = shrunk(
        b, b.node("Relu", b.node("Add", "x", attention(b, {"v": list(range(32))}, bias=False))), n=3, t=5
    )
    assert not shapes
    assert ops(graph) == ["Relu"]


def test_shrinking_again_finds_nothing():
    b = Builder(x=["n", "t", 32])
    graph, _ = shrunk(b, attention(b, {"v": list(range(8, 24))}), n=3, t=5)
    assert shrink(graph) is graph
