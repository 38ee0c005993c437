"""Seeds of the exporter, trained by the runtime: each tier wins back what its tensors lost."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

import seed_runtime
from seed_runtime import golden
from seed_runtime.backends.onnxruntime import OnnxRuntimeBackend
from seed_runtime.cli import main
from seed_runtime.delta import write_delta
from seed_runtime.errors import GoalNotMetError, InputError, MemoryBudgetError, SeedError, UnsupportedError, UsageError
from seed_runtime.seed import Seed
from seed_runtime.tune import Progress, Settings, TuneResult, tune, tuning
from seed_runtime.tune.joined import Run
from seed_runtime.tune.samples import check_samples, split
from tests.support.shared import SharedFolder
from tests.support.signing import accepted_file, needs_ssh_keygen, sign_seed, trusted_key
from tests.support.tuned_model import CLASSES, damaged_seed, data


@pytest.fixture(scope="session")
def seed_of(shared_folder: SharedFolder) -> Callable[[str], Seed]:
    return lambda damage: damaged_seed(shared_folder, damage)


def run(seed: Seed, arrays: dict[str, np.ndarray], **settings) -> TuneResult:
    return tune(seed, arrays, Settings(threads=1, **settings))


def test_statistics_of_batch_norms_are_estimated_without_labels(seed_of) -> None:
    seed = seed_of("bn")
    found = run(seed, {"x": data()["x"]}, mode="bn")
    assert found.metric == "fit of batch norms"
    assert found.after.value > 0.3 * found.before.value
    assert found.mode == "bn"
    assert {len(value) for value in found.tensors.values()} == {12, 16}
    assert len(found.tensors) == 4


@pytest.mark.parametrize(
    ("tier", "optimizer", "rate"),
    [("head", "adam", None), ("small", "adam", 0.03), ("small", "sgd", 0.1), ("full", "adam", 0.03)],
)
def test_a_tier_wins_back_what_its_tensors_lost(tier: str, optimizer: str, rate: float | None, seed_of) -> None:
    damage = "head" if tier == "head" else "small"
    found = run(seed_of(damage), data(), mode=tier, steps=60, rate=rate, optimizer=optimizer)
    assert found.metric == "accuracy"
    assert found.after.value >= found.before.value + 0.3
    assert [(each.tier, each.kept) for each in found.tiers] == [(tier, True)]
    assert found.steps == (0 if tier == "head" else 60)


def test_auto_climbs_while_the_score_rises(seed_of) -> None:
    seed = seed_of("small")
    found = run(seed, data(), steps=40, rate=0.03)
    tiers = [each.tier for each in found.tiers]
    assert tiers[:3] == ["bn", "head", "small"]
    scores = [each.score for each in found.tiers if each.kept]
    assert all(later > earlier for earlier, later in pairwise(scores))
    assert found.after == scores[-1]
    assert found.after.value >= found.before.value + 0.4
    assert found.steps <= 40


def test_what_is_learned_gives_the_score_that_is_reported(seed_of, tmp_path: Path) -> None:
    seed, arrays = seed_of("small"), data()
    found = run(seed, arrays, mode="small", steps=40, rate=0.03)
    folder = seed.assemble(tmp_path / "model")
    weights = bytearray((folder / "model.weights").read_bytes())
    for number, value in found.tensors.items():
        hole = seed.header.holes[number]
        assert value.shape == hole.dims
        weights[hole.offset : hole.offset + hole.size] = value.astype(np.float32).tobytes()
    (folder / "model.weights").write_bytes(weights)
    y = ort.InferenceSession(folder / "model.onnx").run(None, {"x": arrays["x"]})[0]
    # Of all samples, most of which were trained on.
    assert (y.argmax(axis=1) == arrays["labels"]).mean() > found.before.value + 0.3


def test_the_same_samples_and_settings_give_the_same_result(seed_of) -> None:
    seed, arrays = seed_of("small"), data()
    first, second = (run(seed, arrays, mode="small", steps=12) for _ in range(2))
    assert first.after == second.after
    assert all(np.array_equal(value, second.tensors[number]) for number, value in first.tensors.items())


def test_nothing_is_kept_where_the_held_out_score_does_not_rise(seed_of) -> None:
    found = run(seed_of("head"), data(), mode="small", steps=2, rate=900.0)
    assert (found.tensors, found.mode, found.after) == ({}, "", found.before)
    assert [(each.tier, each.kept) for each in found.tiers] == [("small", False)]


def test_gradients_of_micro_batches_add_up(seed_of, monkeypatch: pytest.MonkeyPatch) -> None:
    seed, arrays = seed_of("small"), data()
    whole = run(seed, arrays, mode="small", steps=3)
    monkeypatch.setattr("seed_runtime.tune.micro_batches.Budget.largest", lambda self, what, most, *rest: min(most, 5))
    parts = run(seed, arrays, mode="small", steps=3)
    assert parts.tiers[0].micro_batch == 5
    for number, value in whole.tensors.items():
        np.testing.assert_allclose(parts.tensors[number], value, rtol=1e-3, atol=1e-4)


def test_progress_has_loss_score_memory_and_time(seed_of) -> None:
    reports: list[Progress] = []
    run(seed_of("small"), data(), mode="small", steps=6, progress=reports.append)
    assert [(each.tier, each.step, each.steps) for each in reports] == [("small", step, 6) for step in range(1, 7)]
    assert all(each.loss > 0 and each.memory > 1 << 20 and each.seconds_left >= 0 for each in reports)
    assert 0 <= reports[-1].score <= 1


def test_an_interrupt_leaves_the_best_so_far(seed_of) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.step == 30:
            os.kill(os.getpid(), signal.SIGINT)

    found = run(seed_of("small"), data(), mode="small", steps=60, rate=0.03, progress=interrupt)
    assert isinstance(found.interruption, KeyboardInterrupt)
    assert found.after > found.before
    assert found.tensors


def test_a_time_limit_ends_the_run_and_what_was_learned_by_then_is_kept(seed_of, monkeypatch) -> None:
    # Far from a look: of 12 in 100,000 steps the first one would come after 8,334.
    monkeypatch.setattr("seed_runtime.tune.progress.RunProgress.is_over", property(lambda self: len(reports) >= 30))
    reports: list[Progress] = []
    found = run(seed_of("small"), data(), mode="small", steps=100_000, rate=0.03, progress=reports.append)
    assert found.steps == 30
    assert found.after > found.before
    assert found.interruption is None


@pytest.mark.parametrize("mode", ["head", "small"])
def test_a_time_limit_ends_a_tier_of_runs_that_are_all_short(mode: str, seed_of, monkeypatch) -> None:
    runs = 0
    call = Run.__call__

    def counted(self, *given, **named):
        nonlocal runs
        found = call(self, *given, **named)
        runs += 1
        return found

    monkeypatch.setattr(Run, "__call__", counted)
    monkeypatch.setattr("seed_runtime.tune.progress.RunProgress.is_over", property(lambda self: runs >= 3))
    # One sample at a time: a round, a look at the scores, or a step takes dozens of runs.
    monkeypatch.setattr("seed_runtime.tune.micro_batches.Budget.largest", lambda *given, **named: 1)
    with pytest.raises(GoalNotMetError, match="nothing was scored"):
        run(seed_of("small"), data(), mode=mode)
    assert runs == 3


@pytest.mark.parametrize("mode", ["bn", "head", "small"])
def test_the_scores_are_those_of_the_seed_that_is_written(mode: str, seed_of, tmp_path: Path) -> None:
    seed, arrays = seed_of("bn" if mode == "bn" else "small"), data()
    found = run(seed, arrays, mode=mode, steps=40, rate=0.03)
    steps = found.quantization_steps
    write_delta(seed, found.tensors, tmp_path / "t.seed", step=lambda hole, difference: steps[hole])
    tuned = seed.apply(tmp_path / "t.seed")
    with tuned.assembled_weights() as weights:
        for number, value in found.tensors.items():
            assert np.array_equal(weights.read(number, 0, value.size), value.ravel())
    train = check_samples(arrays, seed.inputs())
    held = split(train, arrays["labels"], np.random.default_rng(0)).held_out
    assert found.held_out == len(held)
    with tuned.session(threads=1) as session:
        y = session.run({"x": arrays["x"][held]})["y"]
    assert (y.argmax(axis=1) == arrays["labels"][held]).mean() == pytest.approx(found.after.value)


def test_a_delta_keeps_its_size(seed_of, tmp_path: Path) -> None:
    seed, limit = seed_of("small"), 400
    found = run(seed, data(), steps=40, rate=0.03, delta_size=limit)
    assert found.after.value >= found.before.value + 0.3
    step, scores = (lambda hole, difference: found.quantization_steps[hole]), (found.metric, 0.4, 0.8)
    size = write_delta(seed, found.tensors, tmp_path / "tuned.seed", mode=found.mode, step=step, scores=scores)
    assert 300 < size <= limit


def test_a_tier_whose_delta_is_larger_than_allowed_is_left_out(seed_of) -> None:
    notes: list[str] = []
    found = run(seed_of("small"), data(), steps=40, rate=0.03, delta_size=200, notice=notes.append)
    assert not found.tensors
    assert "small is left out: its delta takes more than 200 bytes; see --delta-size" in notes


def test_labels_that_say_nothing_seldom_teach_anything(seed_of) -> None:
    labels = np.random.default_rng(7).integers(0, CLASSES, 60)
    arrays = {name: array[:60] for name, array in data(60).items()} | {"labels": labels}
    kept = [bool(run(seed_of("head"), arrays, mode="head", rng_seed=draw).tensors) for draw in range(8)]
    assert sum(kept) <= 4


def test_a_single_step_is_one_step(seed_of, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(tuning, "choose_tiers", lambda *given: ("small", "full"))
    found = run(seed_of("small"), data(), steps=1, notice=lines.append)
    assert (found.steps, [(each.tier, each.steps) for each in found.tiers]) == (1, [("small", 1)])


@pytest.mark.parametrize("limit", [None, 1_000_000_000_000])  # beyond what this process holds
def test_memory_of_a_step_is_kept_for_the_next_one_where_nothing_limits_it(
    limit: int | None, seed_of, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_joined, kept = OnnxRuntimeBackend.open_joined, []

    def watched(self, *arguments, reuse_memory: bool = False, **options):
        kept.append(reuse_memory)
        return open_joined(self, *arguments, reuse_memory=reuse_memory, **options)

    monkeypatch.setattr(OnnxRuntimeBackend, "open_joined", watched)
    monkeypatch.setattr("seed_runtime.tune.tuning.cgroup_limit", lambda: None)
    run(seed_of("small"), data(), mode="small", steps=1, max_memory=limit)
    assert set(kept) == {limit is None}


def test_an_impossible_budget_is_refused_before_the_first_step(seed_of) -> None:
    steps: list[Progress] = []
    with pytest.raises(MemoryBudgetError):
        run(seed_of("small"), data(), mode="small", max_memory=20_000_000, progress=steps.append)
    assert steps == []


def test_a_tier_that_takes_too_much_memory_is_refused_and_auto_goes_on_without_it(
    seed_of, monkeypatch: pytest.MonkeyPatch
) -> None:
    def largest(self, what: str, most: int, *rest: object, **more: object) -> int:
        if what == "training small":
            raise MemoryBudgetError(what, 2, 1)
        return most

    monkeypatch.setattr("seed_runtime.tune.micro_batches.Budget.largest", largest)
    with pytest.raises(MemoryBudgetError):
        run(seed_of("head"), data(), mode="small")
    found = run(seed_of("head"), data(), steps=4)
    assert [each.tier for each in found.tiers] == ["bn", "head", "full"]


FEW = {name: array[:20] for name, array in data(40).items()}
BAD: dict[str, tuple[str, dict[str, np.ndarray], dict[str, object], type[SeedError], str]] = {
    "too few for batch norms": ("small", FEW, {"mode": "bn"}, InputError, "takes 32 samples, and there are 20"),
    "no labels": ("small", {"x": data(40)["x"]}, {"mode": "head"}, InputError, "takes 'labels'"),
    "no training graph": ("no training graph", data(40), {}, UnsupportedError, "with --finetune-graph"),
    "a label out of range": (
        "small",
        data(40) | {"labels": np.full(40, 5)},
        {},
        InputError,
        "holds class 5, and the model has classes 0 to 4",
    ),
    "an unknown mode": ("small", data(40), {"mode": "most"}, UsageError, "use one of auto, bn, head, small, full"),
    "a negative random state": ("small", data(40), {"rng_seed": -1}, UsageError, "--rng-seed is a number from 0 on"),
    "no steps": ("small", data(40), {"steps": 0}, UsageError, "--steps is a number from 1 on; 0 is below"),
    "wide floats": (
        "small",
        data(40) | {"x": data(40)["x"].astype(np.float64)},
        {},
        InputError,
        r"'x' is float64, and the model takes float32; convert it with .astype\(np.float32\)",
    ),
    "classes as floats": (
        "small",
        data(40) | {"labels": data(40)["labels"].astype(np.float64)},
        {},
        InputError,
        r"'labels' is float64; give numbers of classes as integers: .astype\(int\)",
    ),
    "classes in a column": (
        "small",
        data(40) | {"labels": data(40)["labels"][:, None]},
        {},
        InputError,
        r"has a second axis of length 1; give one number a sample: labels\[:, 0\]",
    ),
    "a rate of 0": ("small", data(40), {"rate": 0.0}, UsageError, "--lr is a number above 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_with_the_next_step(case: str, seed_of) -> None:
    damage, arrays, settings, kind, problem = BAD[case]
    with pytest.raises(kind, match=problem):
        run(seed_of(damage), arrays, **settings)


def test_classes_that_have_no_sample_are_told(seed_of) -> None:
    arrays, lines = data(), []
    rows = arrays["labels"] != 3
    run(seed_of("head"), {name: array[rows] for name, array in arrays.items()}, mode="head", notice=lines.append)
    assert lines == ["labels have no sample of 1 of the model's 5 classes: it may forget them"]


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    np.savez(tmp_path / "data.npz", **data())
    return tmp_path / "data.npz"


def test_the_command_writes_what_was_learned_as_a_seed_to_apply(
    seed_of, samples: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    seed, tuned = seed_of("head").path, tmp_path / "tuned.seed"
    arguments = [str(seed), "--fine-tune", str(samples), "--mode", "head", "-o", str(tuned), "--json", "--threads", "1"]
    assert main(arguments) == 0
    facts = json.loads(capfd.readouterr().out)
    assert facts["mode"] == "head"
    assert facts["after"] > facts["before"] + 0.3
    assert facts["bytes"] == tuned.stat().st_size < seed.stat().st_size / 2
    assert [(each["tier"], each["kept"]) for each in facts["tiers"]] == [("head", True)]
    applied = seed_runtime.open(seed).apply(tuned)
    assert applied.header.tuned is not None
    assert (applied.header.tuned.mode, applied.header.tuned.metric) == ("head", "accuracy")
    for given in ([], ["--apply", str(tuned)]):
        assert main([str(seed), *given, "--inspect", "--json"]) == 0
        shown = json.loads(capfd.readouterr().out)
        assert sum(shown["parts_bytes"].values()) == shown["bytes"]
        assert min(shown["parts_bytes"].values()) >= 0
        assert bool(shown["parts_bytes"]["training"]) is not bool(given)
    with applied.session(threads=1) as session:
        y = session.run({"x": data()["x"]})["y"]
    assert (y.argmax(axis=1) == data()["labels"]).mean() > facts["before"] + 0.3


def test_what_is_written_has_a_golden_sample_of_its_own_weights(seed_of, tmp_path: Path) -> None:
    seed = seed_of("head")
    found = run(seed, data(), mode="head")
    step = lambda hole, difference: found.quantization_steps[hole]  # noqa: E731
    size = write_delta(seed, found.tensors, tmp_path / "plain.seed", step=step)
    assert write_delta(seed, found.tensors, tmp_path / "t.seed", step=step, golden=found.golden) <= size + 200
    tuned = seed.apply(tmp_path / "t.seed")
    with tuned.session(threads=1) as session:
        verdict = session.verify()
        assert (verdict.present, verdict.ok) == (True, True)
        assert golden.verify(seed.header.golden, session._runner).ok is False


@needs_ssh_keygen
def test_a_device_that_requires_signatures_runs_what_it_learned(
    seed_of, samples: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    signed, tuned, plain = tmp_path / "signed.seed", tmp_path / "tuned.seed", seed_of("head").path.read_bytes()
    signed.write_bytes(sign_seed(plain, trusted_key(tmp_path)))
    options = ["--fine-tune", str(samples), "--mode", "head", "--threads", "1", "-q", "-o", str(tuned)]
    assert main([str(signed), *options]) == 0
    capfd.readouterr()
    assert main([str(signed), "--apply", str(tuned), "--verify", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["golden"] is True
    accepted_file().unlink()
    assert main([str(signed), "--apply", str(tuned), "--verify"]) == 11


def test_the_command_writes_nothing_where_nothing_got_better(
    seed_of, samples: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tuned = tmp_path / "tuned.seed"
    wild = ["--mode", "small", "--steps", "2", "--lr", "900", "-o", str(tuned), "--threads", "1"]
    assert main([str(seed_of("head").path), "--fine-tune", str(samples), *wild]) == 15
    shown = capfd.readouterr()
    assert "nothing got better" in shown.err
    assert "before" in shown.out
    assert not tuned.exists()


def test_a_folder_that_is_not_there_is_refused_before_the_training(
    seed_of, samples: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = str(tmp_path / "none" / "tuned.seed")
    assert main([str(seed_of("head").path), "--fine-tune", str(samples), "-o", output]) == UsageError.exit_code
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "none" in shown.err


def test_without_an_output_the_command_says_that_nothing_was_written(
    seed_of, samples: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([str(seed_of("head").path), "--fine-tune", str(samples), "--mode", "head", "--threads", "1"]) == 0
    assert "nothing was written; give -o tuned.seed" in capfd.readouterr().out


def test_what_was_learned_can_be_trained_again(seed_of, samples: Path, tmp_path: Path) -> None:
    seed, first, second = str(seed_of("small").path), str(tmp_path / "1.seed"), str(tmp_path / "2.seed")
    for before, mode, output in (([], "head", first), (["--apply", first], "small", second)):
        assert (
            main([seed, *before, "--fine-tune", str(samples), "--mode", mode, "--lr", "0.03", "-o", output, "-q"]) == 0
        )
    assert seed_runtime.open(seed).apply(first).apply(second).header.tuned.mode == "small"
