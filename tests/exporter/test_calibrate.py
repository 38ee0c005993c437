"""Statistics: what a method asked for is measured, whatever it looks at and whatever its values are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper

from seed_exporter.calibrate import SENSITIVITIES, SPECTRA, WEIGHT_SCALES, Statistic, Subject, collect
from seed_exporter.loaders import load
from tests.exporter.support.exporting import graph_of
from tests.exporter.support.onnx_models import W, X, make

MATMUL = helper.make_node("MatMul", ["x", "w"], ["h"])


def test_only_what_was_asked_for_is_measured(rng: np.random.Generator) -> None:
    graph = graph_of(w=rng.standard_normal((40, 40)).astype(np.float32), i=np.arange(100))
    measured = collect(graph, {WEIGHT_SCALES})
    assert measured[WEIGHT_SCALES].keys() == {"w", "i"}
    assert measured[WEIGHT_SCALES]["i"] == 0
    with pytest.raises(KeyError, match="the principal components of matrices wasn't measured; name it in the method's"):
        measured[SPECTRA]


def test_a_statistic_sees_inputs_and_a_folder_and_has_values_of_any_type(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    def covariance(subject: Subject) -> dict[str, np.ndarray]:
        assert subject.folder == tmp_path
        rows = np.concatenate([feed["x"] for feed in subject.feeds])
        return dict.fromkeys(subject.graph.weights, rows.T @ rows)

    inputs = Statistic("covariances of inputs", covariance)
    graph = graph_of(w=rng.standard_normal((40, 40)).astype(np.float32))
    measured = collect(graph, {inputs, WEIGHT_SCALES}, [{"x": np.ones((2, 3))}, {"x": np.ones((5, 3))}], tmp_path)
    assert np.array_equal(measured[inputs]["w"], np.full((3, 3), 7.0))


def test_spectra_are_those_of_matrices_that_have_a_scale(rng: np.random.Generator) -> None:
    weights = rng.standard_normal((40, 50)).astype(np.float32)
    graph = graph_of(w=weights, zero=np.zeros((40, 50), np.float32), b=np.ones(60, np.float32))
    found = [collect(graph, {SPECTRA}, jobs=jobs)[SPECTRA] for jobs in (1, 2)]
    assert [each.keys() for each in found] == [{"w"}, {"w"}]
    values, vectors = found[0]["w"]
    assert values == pytest.approx(np.linalg.svd(weights - weights.mean(axis=0))[1], rel=1e-3, abs=0.01)
    assert vectors.shape == (40, 50)
    assert np.array_equal(values, found[1]["w"][0])


def test_sensitivities_tell_how_far_errors_of_a_weight_move_the_outputs(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    graph = load(make([MATMUL, helper.make_node("Tanh", ["h"], ["y"])], [numpy_helper.from_array(W, "w")]))
    feeds = [{"x": rng.standard_normal((3, 16)).astype(np.float32) / 4} for _ in range(40)]
    found = collect(graph, {SENSITIVITIES}, feeds, tmp_path)[SENSITIVITIES]["w"]
    # The squared norm of the slopes of all outputs by all weights, over that of the outputs.
    exact = []
    for feed in feeds:
        y = np.tanh(feed["x"] @ W)
        exact.append(np.square(feed["x"]).sum(axis=1) @ np.square(1 - y**2).sum(axis=1) / np.square(y).sum())
    assert found == pytest.approx(np.mean(exact), rel=0.1)


def test_there_are_no_sensitivities_without_inputs_or_where_an_operator_has_no_rule(tmp_path: Path) -> None:
    for op, feeds in [("Tanh", []), ("Det", [X])]:
        graph = load(make([MATMUL, helper.make_node(op, ["h"], ["y"])], [numpy_helper.from_array(W, "w")]))
        assert collect(graph, {SENSITIVITIES}, feeds, tmp_path)[SENSITIVITIES] == {}
