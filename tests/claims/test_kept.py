"""Re-checking kept seeds: what is measured, what misses, and what the table says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bench.claims import __main__ as claims
from bench.claims import goals, kept, table
from tests.support.model_seeds import build_model_seed

SIZE = 40  # samples of glyphs
GOAL = goals.Goal("bright", "Bright", "accuracy", 20_000, 1)
SPEAKS = goals.Goal("speaks", "Speaks", "perplexity", 20_000, 1, 1.25)


def classifier() -> onnx.ModelProto:
    """Tells an image of more ink from one of less: logits are plus and minus the mean."""
    weight = np.array([[1, -1]] * 3, np.float32)
    return helper.make_model(
        helper.make_graph(
            [
                helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
                helper.make_node("Flatten", ["pooled"], ["flat"]),
                helper.make_node("MatMul", ["flat", "weight"], ["logits"]),
            ],
            "bright",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 64, 64])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])],
            [numpy_helper.from_array(weight, "weight")],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )


def speaker() -> onnx.ModelProto:
    """Says that token 1 follows token 0, and token 0 token 1, with logits of 2."""
    return helper.make_model(
        helper.make_graph(
            [helper.make_node("Gather", ["weight", "input_ids"], ["logits"])],
            "speaks",
            [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["n", "length"])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", "length", 2])],
            [numpy_helper.from_array(np.array([[0, 2], [2, 0]], np.float32), "weight")],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )


BESIDE = {"healing": {"seconds": 1, "steps": 10}, "trained_on": {"steps": 10}}


@pytest.fixture
def seeds(tmp_path: Path) -> Path:
    """A kept classifier that is wrong on one sample of 40, where its teacher is right."""
    (tmp_path / "bright.seed").write_bytes(build_model_seed(classifier()))
    x = np.zeros((SIZE, 48, 24), np.uint8)
    x[::2] = 0xFF
    label = np.arange(SIZE) % 2
    answer = label.copy()
    label[1] = answer[1] = 0
    right = np.ones(SIZE, bool)
    np.savez(
        tmp_path / "bright.npz",
        x=x, label=label, answer=answer, cluster=np.arange(SIZE) // 4, teacher=right, trained_on=right & (label < 2),
    )  # fmt: skip
    control = {"label": "a small student", "bytes": 300, "kept": [0.99, 0.98, 1.0], "note": "at equal bytes"}
    (tmp_path / "bright.json").write_text(json.dumps(BESIDE | {"parameters": 100_000, "controls": [control]}))
    return tmp_path


def test_a_kept_seed_is_measured_by_the_runtime_alone(seeds: Path) -> None:
    row = kept.check(GOAL, seeds)
    assert row is not None
    assert row.bytes == (seeds / "bright.seed").stat().st_size
    assert row.ratio == pytest.approx(400_000 / row.bytes)
    assert (row.quality, row.reference, row.agreement) == (39 / 40, 1.0, 39 / 40)
    assert row.kept.middle == pytest.approx(39 / 40)
    assert row.kept.low < row.kept.middle < row.kept.high
    assert row.clustered is not None
    assert row.clustered.middle == row.kept.middle
    assert row.assembly_s > 0
    assert row.assembled_bytes > 24


def test_what_is_not_reached_is_said_with_both_figures(seeds: Path) -> None:
    row = kept.check(goals.Goal("bright", "Bright", "accuracy", 100, 1e6), seeds)
    assert row is not None
    size, ratio, quality = row.misses
    assert size == f"{row.bytes:,} bytes, 100 at most"
    assert ratio.endswith("x, 1e+06x at least")
    assert quality.startswith("quality over the reference's is 0.9750 (")


def test_a_teacher_that_was_trained_on_for_fewer_steps_than_the_healing_took_is_no_reference(seeds: Path) -> None:
    beside = json.loads((seeds / "bright.json").read_text())
    (seeds / "bright.json").write_text(json.dumps(beside | {"trained_on": {"steps": 9}}))
    row = kept.check(goals.Goal("bright", "Bright", "accuracy", 10**6, 0.1), seeds)
    assert row is not None
    assert row.misses[-1] == "the teacher was trained on for 9 steps, the healing took 10"


def test_the_reference_is_the_better_of_the_teacher_and_the_teacher_trained_on(seeds: Path) -> None:
    with np.load(seeds / "bright.npz") as arrays:
        sample = dict(arrays)
    sample["teacher"] = sample["trained_on"].copy()
    sample["teacher"][:20] = False
    np.savez(seeds / "bright.npz", **sample)
    row = kept.check(GOAL, seeds)
    assert row is not None
    assert row.reference == 1.0
    sample["trained_on"] = sample["teacher"]
    np.savez(seeds / "bright.npz", **sample)
    row = kept.check(GOAL, seeds)
    assert row is not None
    assert row.reference == 0.5


def test_perplexity_is_judged_by_its_growth(tmp_path: Path) -> None:
    (tmp_path / "speaks.seed").write_bytes(build_model_seed(speaker()))
    x = np.arange(9)[None] % 2 + np.zeros((4, 1), int)
    loss = np.log1p(np.exp(-2))
    sample = {"x": x.astype(np.uint16), "teacher": np.full(4, loss - np.log(1.2)), "trained_on": np.full(4, loss)}
    np.savez(tmp_path / "speaks.npz", **sample)
    (tmp_path / "speaks.json").write_text(json.dumps(BESIDE | {"parameters": 100_000}))
    row = kept.check(SPEAKS, tmp_path)
    assert row is not None
    assert row.quality == pytest.approx(1 + np.exp(-2))
    assert row.kept.middle == pytest.approx(1.2)
    assert row.misses == ()
    sample["teacher"] -= 0.1
    np.savez(tmp_path / "speaks.npz", **sample)
    row = kept.check(SPEAKS, tmp_path)
    assert row is not None
    assert len(row.misses) == 1


def test_the_negative_log_likelihood_of_certain_and_of_even_answers() -> None:
    logits = np.array([[[50.0, 0.0], [0.0, 0.0]]])
    assert kept.negative_log_likelihood(logits, np.array([[0, 1]])) == pytest.approx([np.log(2) / 2])
    assert kept.negative_log_likelihood(logits + 1000, np.array([[0, 1]])) == pytest.approx([np.log(2) / 2])


def test_the_table_shows_controls_and_says_where_one_is_as_good(seeds: Path) -> None:
    row = kept.check(GOAL, seeds)
    lines = table.table([(GOAL, row), (SPEAKS, None)])
    assert any(line.startswith("| Bright |") and "0.9750" in line and line.endswith("| no |") for line in lines)
    assert any(line.startswith("| - a small student: at equal bytes | 300 |") for line in lines)
    assert "no better than a control, Bright: a small student keeps as much in 300 bytes" in lines
    assert lines[-1].startswith("open, Speaks: 20,000 bytes, 1x, perplexity at most 1.25 times the teacher's")


def test_without_seeds_every_goal_is_open_and_the_exit_code_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert claims.main(["--seeds", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert printed.startswith("No seeds are kept yet")
    assert printed.count("open, ") == 5
    assert claims.main(["--seeds", str(tmp_path), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["reached"], found["rows"], len(found["open"])) == (False, [], 5)


def test_all_goals_reached_is_exit_code_0_and_a_miss_is_1(
    seeds: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with np.load(seeds / "bright.npz") as arrays:
        sample = dict(arrays)
    monkeypatch.setattr(claims, "GOALS", (GOAL,))
    assert claims.main(["--seeds", str(seeds)]) == 1
    assert "not reached, Bright: quality" in capsys.readouterr().out
    sample["teacher"][1] = sample["trained_on"][1] = False
    np.savez(seeds / "bright.npz", **sample)
    assert claims.main(["--seeds", str(seeds), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["kept"] == {"middle": 1.0, "low": 1.0, "high": 1.0}
    monkeypatch.setattr(kept, "LARGEST_ALL", 10)
    assert claims.main(["--seeds", str(seeds)]) == 1


@pytest.mark.parametrize("fault", ["cut", "no sample", "no figures"])
def test_damaged_or_missing_files_are_named(
    fault: str, seeds: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if fault == "cut":
        (seeds / "bright.seed").write_bytes((seeds / "bright.seed").read_bytes()[:-9])
    else:
        (seeds / ("bright.npz" if fault == "no sample" else "bright.json")).unlink()
    monkeypatch.setattr(claims, "GOALS", (GOAL,))
    assert claims.main(["--seeds", str(seeds)]) == 3
    error = capsys.readouterr().err
    assert error.startswith("error: bright: ")
    assert error.count("\n") == 1


def test_the_seeds_in_the_repository_are_what_their_goals_say() -> None:
    # Fails as soon as a seed is kept that is damaged or too large; quality is `make claims`' matter.
    names = {goal.name for goal in goals.GOALS}
    assert {path.stem for path in kept.SEEDS.glob("*.seed")} <= names
    assert kept.too_large() == 0
