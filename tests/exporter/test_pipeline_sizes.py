"""A size that was asked for is kept and used by the seed that is built, whatever was estimated before."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from seed_exporter.build import draft
from seed_exporter.quantize.effort import DEFAULT
from seed_exporter.stages import fitting, front_size
from seed_runtime.errors import UsageError
from tests.exporter.support.exporting import layers, of_nodes, quick_export, tensor


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_a_goal_is_kept_and_used_whatever_was_estimated(
    factor: float, rng: np.random.Generator, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimate = draft.estimate_size
    monkeypatch.setattr(draft, "estimate_size", lambda *arguments: int(factor * estimate(*arguments)))
    result = quick_export(layers(rng, 128, 256, 128), output, size=50_000)
    assert result.goal_met
    assert 0.98 * 50_000 <= output.stat().st_size <= 50_000


def test_a_seed_is_built_once_where_its_size_was_estimated_rightly(
    rng: np.random.Generator, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[int] = []
    build = draft.build

    def counted(*arguments: Any) -> draft.SeedDraft:
        made = build(*arguments)
        built.append(made.size)
        return made

    monkeypatch.setattr(draft, "build", counted)
    quick_export(layers(rng, 128, 256, 128), output, size=50_000)
    assert len(built) == 1


def one_weight(array: np.ndarray, code: int) -> onnx.ModelProto:
    """A model of one matrix of any type."""
    nodes = [
        helper.make_node("Cast", ["w"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "f"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 64]) for name in "xy"]
    return of_nodes(nodes, [tensor("w", code, (64, 64), array)], ends[:1], ends[1:])


def models(rng: np.random.Generator) -> dict[str, onnx.ModelProto]:
    """Models at the edge of what there is to quantize."""
    noise = rng.standard_normal((64, 64)).astype(np.float32)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
    return {
        "float32": one_weight(noise, TensorProto.FLOAT),
        "float16": one_weight(noise.astype(np.float16), TensorProto.FLOAT16),
        "bfloat16": one_weight((noise.view(np.uint32) >> 16).astype(np.uint16), TensorProto.BFLOAT16),
        "int8": one_weight((20 * noise).astype(np.int8), TensorProto.INT8),
        "nothing": of_nodes([helper.make_node("Relu", ["x"], ["y"])], [], ends[:1], ends[1:]),
    }


@pytest.mark.parametrize("method", ["grid", "moments"])
@pytest.mark.parametrize(
    "name", ["float32", "float16", pytest.param("bfloat16", marks=pytest.mark.slow), "int8", "nothing"]
)
def test_the_smallest_models_keep_any_goal_or_say_that_they_miss_it(
    name: str, method: str, rng: np.random.Generator, output: Path
) -> None:
    model = models(rng)[name]
    lossless = quick_export(model, output, method="lossless").bytes
    goals = (1, lossless // 3, lossless - 1, lossless, lossless + 200)
    # What effort adds doesn't depend on the type.
    effort = DEFAULT if name == "float32" else 1
    for goal in goals if method == "grid" else goals[:2]:
        result = quick_export(model, output, method=method, size=goal, effort=effort)
        assert result.bytes == output.stat().st_size
        assert result.goal_met == (result.bytes <= goal)
        if method == "grid" and goal > lossless:
            assert (result.bytes, result.outputs["y"].identical) == (lossless, True)
        if method == "grid" and "float" in name and goal == lossless // 3:
            assert 0.98 * goal <= result.bytes <= goal


def test_the_published_method_uses_a_few_kilobytes_as_well(rng: np.random.Generator, output: Path) -> None:
    # Of 12 KB, the room for the footprint, which isn't measured here, is more than 2 %.
    result = quick_export(layers(rng, 64, 300, 200, 64), output, method="moments", size=12_000)
    assert 0.96 * 12_000 <= result.bytes <= 12_000


def test_a_method_of_one_size_takes_no_goal(rng: np.random.Generator, output: Path) -> None:
    with pytest.raises(UsageError, match="has the size it has"):
        quick_export(layers(rng, 40, 40), output, method="lossless", target=2.0)


def test_sizes_are_ordered_from_the_worst_to_the_best() -> None:
    sizes = [3000, 1001, 1, 999, 1000]
    assert sorted({*sizes}, key=lambda size: fitting._rank(size, 1000)) == sizes


@pytest.mark.parametrize("room", [pytest.param(0, marks=pytest.mark.slow), 2_000])
def test_a_goal_is_kept_and_used_whatever_room_the_last_sections_were_given(
    room: int, rng: np.random.Generator, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front_size, "front_bytes", lambda source, work: room)
    result = quick_export(layers(rng, 96, 128, 64), output, size=12_000)
    assert result.goal_met
    assert 0.98 * 12_000 <= output.stat().st_size <= 12_000


@pytest.mark.parametrize(("goal", "effort"), [(5_990, 1), (6_000, 5), (6_010, 1)])
def test_a_signature_and_real_inputs_leave_a_goal_kept_and_used(
    goal: int, effort: int, rng: np.random.Generator, output: Path, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    # Signatures of this kind differ in length from one to the next.
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", key], check=True)
    np.savez(tmp_path / "calib.npz", x=rng.standard_normal((3, 2, 48)).astype(np.float32))
    model, calib = layers(rng, 48, 96, 64), tmp_path / "calib.npz"
    result = quick_export(model, output, size=goal, sign=key, calib=calib, effort=effort)
    assert (result.goal_met, result.inputs) == (True, "real")
    assert 0.98 * goal <= output.stat().st_size <= goal
