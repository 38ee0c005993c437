"""Training graphs of public models: gradients beside torch's, size and time. Skipped without torch."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from bench import gradients
from seed_exporter import loaders
from seed_exporter.training import prepare, training_part
from seed_runtime.codecs.encode.packing import pack
from seed_runtime.skeletons.training import LOSS
from tests.exporter.support.training import FACTORS, Joined
from tests.support.public_models import CACHE, prepared, tasks

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'seed-runtime[torch]'")
from seed_exporter.heal.interpreter import Interpreter  # noqa: E402
from tests.exporter.test_gradients_torch import ROUNDING, RULE_TOLERANCE, distance  # noqa: E402

pytestmark = pytest.mark.slow  # importing torch takes seconds

MODELS = ["magika", "efflite0", "pprec", "ppcls", "minilm6", "basicpitch", "ppdet"]
DOUBLE_TOLERANCE = 1e-7
"""Largest distance in float64, as a part of the gradients' norm: constants of the graph are those of float32."""
BYTES_MAX, SECONDS_MAX = 16_000, 5.0
LOSS_OF_LOGITS = {"magika", "ppcls", "pprec"}
"""Models that end with a softmax."""


@pytest.mark.parametrize("name", MODELS)
def test_the_training_graph_of_a_public_model_is_small_and_soon_built(name: str) -> None:
    graph = loaders.load(prepared(name))
    begun = time.process_time()
    ready = prepare(graph)
    part = training_part(ready, list(ready.weights))
    assert time.process_time() - begun < SECONDS_MAX
    assert len(pack(part)[1]) <= BYTES_MAX


@pytest.mark.parametrize(
    ("name", "loss"), [*(("magika", loss) for loss in FACTORS), ("ppcls", "cross-entropy"), ("minilm6", "cosine")]
)
def test_gradients_of_a_public_model_are_torchs(name: str, loss: str, tmp_path: Path) -> None:
    graph = prepare(loaders.load(prepared(name)))
    joined = Joined(graph, tmp_path)
    feeds = tasks().MODELS[name].inputs(CACHE, 2, "calib")[0]
    output, axis = graph.model.graph.output[0].name, joined.info.axis
    y = ort.InferenceSession(tmp_path / "model.onnx").run([output], feeds)[0]
    rng = np.random.default_rng(0)
    target = rng.standard_normal(y.shape).astype(np.float32)
    if loss == "cross-entropy":
        target = np.exp(target) / np.exp(target).sum(axis=axis, keepdims=True)
    outputs = joined.sources()
    found = joined.run([LOSS, *outputs.values()], feeds, target, loss, 1.0)
    expected = torch_gradients(graph, feeds, target, loss, name, list(outputs), axis, torch.float64)
    single = torch_gradients(graph, feeds, target, loss, name, list(outputs), axis, torch.float32)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4)
    tolerance = max(RULE_TOLERANCE, ROUNDING * distance(single[1:], expected[1:]))
    assert distance(found[1:], expected[1:]) <= tolerance


@pytest.mark.parametrize("name", gradients.MODELS)
def test_in_float64_a_training_graph_gives_what_torchs_autograd_gives(name: str, tmp_path: Path) -> None:
    prepared(name)
    tasks()
    assert gradients.measured(name, tmp_path / name, CACHE)["distance_float64"] <= DOUBLE_TOLERANCE


def torch_gradients(graph, feeds, target, loss: str, name: str, wrt: list[str], axis: int, dtype) -> list[np.ndarray]:
    """Return torch's loss and its gradients."""
    interpreter = Interpreter(graph, dtype)
    weights = interpreter.weights()
    for each in wrt:
        weights[each].requires_grad_()
    given = {key: interpreter.tensor(np.asarray(value)) for key, value in feeds.items()}
    y = interpreter.run(given, weights)[graph.model.graph.output[0].name]
    t = interpreter.tensor(target)
    if loss == "cross-entropy":
        shares = torch.log(y) if name in LOSS_OF_LOGITS else torch.log_softmax(y, axis)
        value = -(t * shares).sum()
    elif loss == "squared error":
        value = torch.square(y - t).sum()
    else:
        value = (1 - torch.nn.functional.cosine_similarity(y, t, dim=-1)).sum()
    found = torch.autograd.grad(value, [weights[each] for each in wrt])
    return [np.asarray(value.detach()), *(each.numpy() for each in found)]
