"""Training graphs that are too large, or whose outputs aren't what SPEC.md says: refused before they are used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper

import seed_runtime
from seed_runtime.backends import Feeds
from seed_runtime.backends.onnxruntime import OnnxRuntimeRunner
from seed_runtime.errors import FormatError, GoalNotMetError, InputError, LimitError, SeedError, UnsupportedError
from seed_runtime.format.parts import TRAINING
from seed_runtime.limits import TRAINING_RAW_MAX
from seed_runtime.seed import Seed
from seed_runtime.skeletons.info import ValueInfo
from seed_runtime.skeletons.training import TrainingInfo
from seed_runtime.tune import Settings, tune
from seed_runtime.tune.outputs import Outputs
from tests.support.model_seeds import build_model_seed, onnx_model

WIDTH, CLASSES, COUNT = 3, 2, 40
FLOAT, STRING, DOUBLE = TensorProto.FLOAT, TensorProto.STRING, TensorProto.DOUBLE
GIVEN = {"train.target": ["n", CLASSES], "train.cross_entropy.1": [], "train.squared_error": [], "train.cosine": []}
LEARNED = {"w": [WIDTH, CLASSES], "m": [WIDTH], "v": [WIDTH]}


def node(op: str, reads: str, makes: str, **attributes: Any) -> NodeProto:
    return helper.make_node(op, reads.split(), makes.split(), **attributes)


NODES = {
    "train.loss": [
        node("Mul", "difference difference", "square"),
        node("ReduceSum", "square", "sum", keepdims=0),
        node("Mul", "sum train.squared_error", "train.loss"),
    ],
    "train.features": [node("Identity", "normal", "train.features")],
    "train.head.w": [
        node("Transpose", "normal", "turned"),
        node("MatMul", "turned difference", "product"),
        node("Mul", "product train.squared_error", "train.head.w"),
    ],
    "train.mean.m": [node("ReduceMean", "x", "train.mean.m", axes=[0], keepdims=0)],
    "train.variance.v": [
        node("Mul", "x x", "squares"),
        node("ReduceMean", "squares", "train.variance.v", axes=[0], keepdims=0),
    ],
}
"""What makes each output, of y = ((x - m) / v) w and the squared error."""


def model() -> ModelProto:
    nodes = [node("Sub", "x m", "moved"), node("Div", "moved v", "normal"), node("MatMul", "normal w", "y")]
    rng = np.random.default_rng(1)
    weights = {"w": rng.standard_normal((WIDTH, CLASSES)), "m": np.zeros(WIDTH), "v": np.ones(WIDTH)}
    return onnx_model(nodes, {"x": ["n", WIDTH]}, {"y": ["n", CLASSES]}, weights)


def part(changed: dict[str, Sequence[NodeProto]], outputs: dict[str, list[NodeProto]] = NODES) -> bytes:
    """Return a training graph, some of whose outputs are made by other nodes."""
    nodes = [node("Sub", "y train.target", "difference")]
    for output, makers in outputs.items():
        nodes += [*makers[:-1], *changed.get(output, makers[-1:])]
    inputs = [helper.make_tensor_value_info(name, FLOAT, dims) for name, dims in (GIVEN | LEARNED).items()]
    graph = helper.make_graph(nodes, "", inputs, [helper.make_empty_tensor_value_info(name) for name in outputs])
    graph.ClearField("name")
    return ModelProto(graph=graph).SerializeToString()


@pytest.fixture
def seed_of(tmp_path: Path) -> Callable[..., Seed]:
    def made(changed: dict[str, Sequence[NodeProto]] | None = None, data: bytes | None = None) -> Seed:
        parts = [(TRAINING.number, part(changed or {}) if data is None else data)]
        (tmp_path / "m.seed").write_bytes(build_model_seed(model(), parts=parts))
        return seed_runtime.open(tmp_path / "m.seed")

    return made


def data() -> dict[str, np.ndarray]:
    x = np.random.default_rng(2).standard_normal((COUNT, WIDTH)).astype(np.float32)
    return {"x": x, "labels": x[:, :CLASSES]}


@pytest.mark.parametrize("mode", ["bn", "head", "small"])
def test_what_these_attacks_change_trains(mode: str, seed_of: Callable[..., Seed]) -> None:
    found = tune(seed_of(), data(), Settings(mode=mode, steps=2, threads=1))
    assert [each.tier for each in found.tiers] == [mode]


ATTACKS: dict[str, tuple[str, str, list[NodeProto], str]] = {
    "a gradient twice as long": (
        "small",
        "train.head.w",
        [node("Concat", "product product", "train.head.w", axis=0)],
        r"'train.head.w' .* is float32\[6, 2\]",
    ),
    "a scalar gradient": (
        "small",
        "train.head.w",
        [node("ReduceSum", "product", "train.head.w", keepdims=0)],
        r"'train.head.w' .* is float32\[\]",
    ),
    "a gradient of doubles": (
        "small",
        "train.head.w",
        [node("Cast", "product", "train.head.w", to=DOUBLE)],
        "'train.head.w' .* is no tensor of float32",
    ),
    "a loss that is a matrix": (
        "small",
        "train.loss",
        [node("Identity", "square", "train.loss")],
        r"'train.loss' .* is",
    ),
    "a loss with an axis": (
        "small",
        "train.loss",
        [node("ReduceSum", "square", "train.loss", keepdims=1)],
        r"'train.loss' .* is float32\[1, 1\]",
    ),
    "a loss that is a text": (
        "small",
        "train.loss",
        [node("Cast", "sum", "train.loss", to=STRING)],
        "'train.loss' .* is no tensor of float32",
    ),
    "a loss that is a list": (
        "small",
        "train.loss",
        [node("SequenceConstruct", "sum", "train.loss")],
        "'train.loss' .* is no tensor of float32",
    ),
    "a loss that is nothing": (
        "small",
        "train.loss",
        [
            helper.make_node("Optional", [], ["train.loss"], type=helper.make_tensor_type_proto(FLOAT, [])),
        ],
        "'train.loss' .* is missing",
    ),
    "features without axes": (
        "head",
        "train.features",
        [node("ReduceSum", "normal", "train.features", keepdims=0)],
        "no vector for each position",
    ),
    "features without elements": (
        "head",
        "train.features",
        [
            node("Constant", "", "zero", value_ints=[0]),
            node("Constant", "", "one", value_ints=[1]),
            node("Slice", "normal zero zero one", "train.features"),
        ],
        "no vector for each position",
    ),
    "features of other positions": (
        "head",
        "train.features",
        [node("Concat", "normal normal", "train.features", axis=0)],
        "and the output is",
    ),
    "features as wide as there are samples": (
        "head",
        "train.features",
        [node("Transpose", "normal", "train.features")],
        "features of its training graph are",
    ),
    "a mean twice as long": (
        "bn",
        "train.mean.m",
        [node("ReduceMean", "x", "mean", axes=[0], keepdims=0), node("Concat", "mean mean", "train.mean.m", axis=0)],
        r"'train.mean.m' .* is float32\[6\]",
    ),
    "a scalar variance": (
        "bn",
        "train.variance.v",
        [node("ReduceMean", "squares", "train.variance.v", keepdims=0)],
        r"'train.variance.v' .* is float32\[\]",
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_outputs_of_another_type_or_shape_are_refused(attack: str, seed_of: Callable[..., Seed]) -> None:
    mode, output, makers, problem = ATTACKS[attack]
    with pytest.raises(FormatError, match=problem):
        tune(seed_of({output: makers}), data(), Settings(mode=mode, steps=2, threads=1))


def endless_loop(reads: str, makes: str) -> NodeProto:
    body = helper.make_graph(
        [node("Identity", "more", "again"), node("Identity", "v", "w_next")],
        "body",
        [
            helper.make_tensor_value_info("trip", TensorProto.INT64, []),
            helper.make_tensor_value_info("more", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", FLOAT, ["rows", CLASSES]),
        ],
        [
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w_next", FLOAT, ["rows", CLASSES]),
        ],
    )
    return helper.make_node("Loop", ["", "", reads], [makes], body=body)


def up_with(output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a time limit be over once a run makes this output, however slow the runs before it are."""
    now, run = [0.0], OnnxRuntimeRunner.run

    def late(self: OnnxRuntimeRunner, feeds: Feeds, outputs: Sequence[str] | None = None, **options: Any) -> Any:
        if output in (outputs or ()):
            now[0] = 1000.0
        return run(self, feeds, outputs, **options)

    monkeypatch.setattr(OnnxRuntimeRunner, "run", late)
    monkeypatch.setattr("seed_runtime.tune.progress.time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr("seed_runtime.backends.workers.WATCH_S", 0.05)
    # Where memory is limited, what scores is the session of the gradients, which makes all outputs in every run.
    monkeypatch.setattr("seed_runtime.tune.tuning.cgroup_limit", lambda: None)


def test_the_time_limit_ends_a_run_that_never_ends(
    seed_of: Callable[..., Seed], monkeypatch: pytest.MonkeyPatch
) -> None:
    up_with("train.head.w", monkeypatch)
    seed, lines = seed_of({"train.head.w": [endless_loop("product", "train.head.w")]}), []
    found = tune(seed, data(), Settings(mode="small", time_limit=100, threads=1, notice=lines.append))
    assert lines == ["small: the time is up in step 1; the best values so far count"]
    assert (found.tensors, found.steps, found.after) == ({}, 0, found.before)


def test_a_time_limit_that_is_over_before_anything_was_scored_is_no_result(
    seed_of: Callable[..., Seed], monkeypatch: pytest.MonkeyPatch
) -> None:
    up_with("train.loss", monkeypatch)
    seed = seed_of(
        {"train.loss": [endless_loop("difference", "never"), node("ReduceSum", "never", "train.loss", keepdims=0)]}
    )
    with pytest.raises(GoalNotMetError, match="the time was up"):
        tune(seed, data(), Settings(mode="small", time_limit=100, threads=1))


def test_a_bias_of_another_length_than_the_output_belongs_to_no_head(seed_of: Callable[..., Seed]) -> None:
    outputs = {name: NODES[name] for name in ("train.loss", "train.features", "train.head.w")}
    outputs["train.head.m"] = [node("Identity", "m", "train.head.m")]
    with pytest.raises(UnsupportedError, match="isn't linear in the features"):
        tune(seed_of(data=part({}, outputs)), data(), Settings(mode="head", threads=1))


@pytest.mark.parametrize(
    ("y", "target", "kind"),
    [((4, 7, 2), (4, 5, 2), InputError), ((4, 2), None, FormatError), ((4, 7, 3), None, FormatError)],
)
def test_outputs_that_can_not_be_compared_are_refused(
    y: tuple[int, ...], target: tuple[int, ...] | None, kind: type[SeedError]
) -> None:
    info = TrainingInfo(ValueInfo("train.target", FLOAT, ("n", "t", 2)), "train.cross_entropy.2", 2, (), (), False)
    outputs = Outputs(info, [], "y")
    outputs.check({"y": np.zeros((4, 7, 2))}, ["y"], np.zeros((4, 7, 2)))
    with pytest.raises(kind):
        outputs.check({"y": np.zeros(y)}, ["y"], None if target is None else np.zeros(target))


def test_a_part_that_is_too_large_is_refused_before_it_is_read(
    seed_of: Callable[..., Seed], monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = seed_of(data=bytes(TRAINING_RAW_MAX + 1))
    monkeypatch.setattr(Seed, "_part_bytes", lambda self, index: pytest.fail("it was read"))
    with pytest.raises(LimitError):
        seed.training_graph()


def test_a_part_is_read_once(seed_of: Callable[..., Seed], monkeypatch: pytest.MonkeyPatch) -> None:
    seed, read = seed_of(), []
    original = Seed._part_bytes

    def note(self: Seed, index: int) -> bytes | memoryview:
        read.append(index)
        return original(self, index)

    monkeypatch.setattr(Seed, "_part_bytes", note)
    tune(seed, data(), Settings(mode="small", steps=1, threads=1))
    assert read.count(1) == 1
