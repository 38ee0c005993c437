"""Tier `head`: what the last layer is worth is computed from features, without the model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import onnx
import pytest
from onnx import helper

import seed_runtime
from seed_runtime.seed import Seed
from seed_runtime.skeletons.training import FEATURES, LOSS
from seed_runtime.tune import Settings, class_count, tune
from seed_runtime.tune.joined import JoinedModel
from seed_runtime.tune.last_layer import ENDS, Head, LayerRun, sigmoid
from seed_runtime.tune.samples import check_samples
from seed_runtime.tune.targets import CROSS_ENTROPY, SQUARES, Task
from tests.exporter.support.exporting import quick_export
from tests.support.shared import SharedFolder
from tests.support.tuned_model import CLASSES, damaged_seed, data, model

_ENDS = {"": ENDS[0], "Softmax": ENDS[1], "LogSoftmax": ENDS[2], "Sigmoid": sigmoid}


@pytest.fixture(scope="session")
def ended_seed(shared_folder: SharedFolder) -> Callable[[str], Seed]:
    """Return the classifier with another operator behind it."""

    def made(operator: str) -> Seed:
        def export(folder) -> None:
            proto = model("head")
            if operator:
                proto.graph.node[-1].output[0] = "scores"
                proto.graph.node.append(helper.make_node(operator, ["scores"], ["y"]))
            onnx.checker.check_model(proto)
            quick_export(proto, folder / "m.seed", method="lossless", finetune_graph=True)

        return seed_runtime.open(shared_folder.made(f"fine-tuning-end-{operator}", export) / "m.seed")

    return made


@pytest.mark.parametrize("loss", [CROSS_ENTROPY, SQUARES])
@pytest.mark.parametrize("operator", list(_ENDS))
def test_the_last_layer_by_itself_gives_what_the_training_graph_gives(operator: str, loss: str, ended_seed) -> None:
    seed, rng = ended_seed(operator), np.random.default_rng(0)
    labels = rng.dirichlet(np.ones(CLASSES), 12).astype(np.float32)
    samples = check_samples({"x": data()["x"][:12], "labels": labels}, seed.inputs())
    with seed.assembled() as folder, seed.assembled_weights() as weights:
        joined = JoinedModel(seed, folder, weights, samples, 1, False, lambda: None)
        task, rows, some = Task(joined.info, labels, loss), np.array([2, 3, 5, 11]), np.array([5, 2])
        matrix, bias = (
            next(each.name for each in joined.info.tensors if len(joined.dims_of(each.hole)) == axes and not each.level)
            for axes in (2, 1)
        )
        values = {matrix: rng.standard_normal((CLASSES, 16)).astype(np.float32)}
        wanted, feeds = [joined.output, LOSS], task.feeds(some, 3.0)
        with joined.opened([LOSS, FEATURES], [matrix, bias]) as run:
            (features,) = run(rows, [FEATURES], task.feeds(rows, 1.0))
            expected = [run(some, wanted, feeds), run(some, wanted, feeds, values)]
        head = Head(matrix, bias, True, _ENDS[operator])
        layer = LayerRun(joined, head, rows, features[:, None], lambda: None)
        found = [layer(some, wanted, feeds), layer(some, wanted, feeds, values)]
    for one, other in zip(found, expected, strict=True):
        for part, same in zip(one, other, strict=True):
            np.testing.assert_allclose(part, same, rtol=2e-5, atol=1e-5)


def test_no_session_is_open_while_heads_are_fitted_and_scored(
    shared_folder: SharedFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, is_open = JoinedModel.opened, set[int]()

    @contextlib.contextmanager
    def watched(self, *arguments) -> Iterator[object]:
        with opened(self, *arguments) as run:
            is_open.add(1)
            yield run
            is_open.clear()

    monkeypatch.setattr(JoinedModel, "opened", watched)
    reports = list[bool]()
    settings = Settings(mode="head", threads=1, progress=lambda progress: reports.append(bool(is_open)))
    found = tune(damaged_seed(shared_folder, "head"), data(), settings)
    assert reports == [False] * 8
    assert found.tiers[0].kept


def test_features_that_are_too_large_to_hold_are_computed_for_each_score_with_the_same_result(
    shared_folder: SharedFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed, settings = damaged_seed(shared_folder, "head"), Settings(mode="head", threads=1)
    held = tune(seed, data(), settings)
    monkeypatch.setattr("seed_runtime.tune.head._FEATURES_MOST", 100)
    monkeypatch.delattr("seed_runtime.tune.last_layer.LayerRun.__call__")
    again = tune(seed, data(), settings)
    assert again.after.value == held.after.value > held.before.value
    for number, value in held.tensors.items():
        np.testing.assert_allclose(again.tensors[number], value, rtol=1e-4, atol=1e-5)


def test_a_training_graph_is_scanned_once(shared_folder: SharedFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    seed = damaged_seed(shared_folder, "head")
    assert class_count(seed) == CLASSES
    monkeypatch.delattr("seed_runtime.skeletons.training.scan_training")
    assert class_count(seed) == CLASSES
    tune(seed, data(), Settings(mode="head", threads=1))
