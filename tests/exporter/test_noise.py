"""Outputs that noise decides: found by two runs, compared by what noise leaves, and never called useless."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from seed_exporter import loaders
from seed_exporter.evaluate.compare import compare, worst_relative
from seed_exporter.evaluate.noise import draws_noise, noisy_outputs
from seed_exporter.report import page, text
from seed_runtime import open as open_seed
from tests.exporter.support.exporting import layers, of_nodes, quick_export

ROUNDING = 2e-5


def floats(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def with_noise(rng: np.random.Generator, *nodes: onnx.NodeProto, code: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """y is a product with the weights, z is what the nodes make of it."""
    w = numpy_helper.from_array(rng.standard_normal((32, 48)).astype(np.float32), "w")
    constants = [numpy_helper.from_array(np.float32(0.5), "half"), numpy_helper.from_array(np.array(True), "true")]
    return of_nodes(
        [helper.make_node("MatMul", ["x", "w"], ["y"]), *nodes],
        [w, *constants],
        [floats("x", "batch", 32)],
        [floats("y", "batch", 48), helper.make_tensor_value_info("z", code, None)],
    )


def nested(node: onnx.NodeProto) -> onnx.NodeProto:
    """The node in both branches of an If."""
    branch = helper.make_graph([node], "branch", [], [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)])
    return helper.make_node("If", ["true"], ["z"], then_branch=branch, else_branch=branch)


def drawn(name: str) -> tuple[list[onnx.NodeProto], int]:
    """Nodes that make z of y with noise."""
    return {
        "RandomNormalLike": ([helper.make_node("RandomNormalLike", ["y"], ["z"])], TensorProto.FLOAT),
        "seeded": ([helper.make_node("RandomUniformLike", ["y"], ["z"], seed=3.0)], TensorProto.FLOAT),
        "RandomNormal": ([helper.make_node("RandomNormal", [], ["z"], shape=[2, 3])], TensorProto.FLOAT),
        "Multinomial": ([helper.make_node("Multinomial", ["y"], ["z"], sample_size=9)], TensorProto.INT32),
        "Bernoulli": (
            [helper.make_node("Sigmoid", ["y"], ["p"]), helper.make_node("Bernoulli", ["p"], ["z"])],
            TensorProto.FLOAT,
        ),
        "Dropout": ([helper.make_node("Dropout", ["y", "half", "true"], ["z"])], TensorProto.FLOAT),
        "nested": ([nested(helper.make_node("RandomNormalLike", ["y"], ["z"]))], TensorProto.FLOAT),
    }[name]


KINDS = ("RandomNormalLike", "seeded", "RandomNormal", "Multinomial", "Bernoulli", "Dropout", "nested")


@pytest.mark.parametrize("kind", KINDS)
def test_an_output_that_noise_decides_is_not_compared(kind: str, rng: np.random.Generator, tmp_path: Path) -> None:
    nodes, code = drawn(kind)
    result = quick_export(with_noise(rng, *nodes, code=code), tmp_path / "m.seed", method="lossless")
    assert result.outputs["y"].identical
    assert result.outputs["z"].noisy
    assert np.isnan(result.outputs["z"].relative)
    summary = text.summary(result)
    assert "z: noise decides it" in summary
    assert "little to do" not in summary
    assert "all outputs" not in summary
    with open_seed(result.path).session() as session:
        verdict = session.verify()
    assert (verdict.present, verdict.ok, verdict.skipped) == (True, True, ("z",))


def test_the_other_outputs_steer_a_goal(rng: np.random.Generator, tmp_path: Path) -> None:
    nodes, code = drawn("RandomNormalLike")
    result = quick_export(with_noise(rng, *nodes, code=code), tmp_path / "m.seed", size=4000)
    assert result.goal_met
    assert 0 < result.outputs["y"].relative < 0.1
    assert result.outputs["z"].noisy


def test_a_model_all_of_whose_outputs_are_noise_is_exported_with_a_note(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    """As voices are: noise decides even the length."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("RandomNormalLike", ["h"], ["noise"]),
        helper.make_node("Add", ["h", "noise"], ["z"]),
        helper.make_node("Exp", ["z"], ["d"]),
        helper.make_node("ReduceSum", ["d"], ["total"], keepdims=0),
        helper.make_node("Range", ["zero", "total", "one"], ["y"]),
    ]
    constants = {"w": rng.standard_normal((32, 48)) * 0.1, "zero": np.array(0.0), "one": np.array(1.0)}
    tensors = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in constants.items()]
    model = of_nodes(nodes, tensors, [floats("x", "batch", 32)], [floats("y", "time")])
    for method in ("grid", "lossless", "moments"):
        result = quick_export(model, tmp_path / f"{method}.seed", method=method)
        summary = text.summary(result)
        assert "noise decides all outputs" in summary
        assert "little to do" not in summary
        fields = json.loads(json.dumps(result.as_json(), allow_nan=False))["outputs"]["y"]
        assert (fields["noisy"], fields["relative"]) == (True, None)
        with open_seed(result.path).session() as session:
            verdict = session.verify()
        assert (verdict.present, verdict.ok, verdict.skipped) == (False, True, ("y",))
        page.write(tmp_path / "report.html", result)
        assert "noise decides it" in (tmp_path / "report.html").read_text()


def test_a_model_without_noise_has_no_note(rng: np.random.Generator, tmp_path: Path) -> None:
    model = layers(rng, 32, 16)
    assert not draws_noise(loaders.load(model))
    result = quick_export(model, tmp_path / "m.seed")
    assert "noise decides" not in text.summary(result)
    assert result.outputs["y"].as_json()["noisy"] is False


def test_two_runs_that_differ_by_rounding_are_no_noise() -> None:
    first = [{"y": np.array([1, 2], np.float32), "n": np.array([1])}]
    again = [{"y": np.array([1 + 1e-6, 2], np.float32), "n": np.array([2])}]
    assert noisy_outputs(first, again, ROUNDING) == {"n": frozenset()}
    assert noisy_outputs(first, first, ROUNDING) == {}


def test_the_axes_that_noise_decides_are_found_over_all_calls() -> None:
    first = [{"y": np.zeros((2, 3, 4))}, {"y": np.zeros((2, 5, 4))}]
    again = [{"y": np.zeros((2, 3, 4))}, {"y": np.zeros((2, 6, 4))}]
    assert noisy_outputs(first, again, ROUNDING) == {"y": frozenset({1})}


@pytest.mark.parametrize(
    ("other", "alike"),
    [
        (np.ones((2, 7), np.float32), True),
        (np.ones((3, 7), np.float32), False),
        (np.ones((2, 7, 1), np.float32), False),
        (np.ones((2, 7)), False),
        (np.full((2, 3), np.nan, np.float32), False),
    ],
)
def test_what_noise_leaves_of_an_output_is_compared(other: np.ndarray, alike: bool) -> None:
    errors = compare([{"y": np.zeros((2, 3), np.float32)}], [{"y": other}], {"y": {1}})
    assert np.isnan(errors["y"].relative) == alike
    assert (worst_relative(errors) == 0) == alike
