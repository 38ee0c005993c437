"""Healing of trained networks, and the published method's controls, on tiny data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.claims_data import tiny_data

# PyTorch, which the default tests run without.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    torch.set_num_threads(1)
    return tiny_data(tmp_path_factory.mktemp("data"))


def trained(name: str, data: Path, out: Path) -> Path:
    from bench.claims import teachers

    command = [name, "--data", str(data), "--out", str(out), "--steps", "3", "--batch", "8", "--tiny"]
    assert teachers.main(command) == 0
    return out


@pytest.mark.parametrize(
    ("kind", "shapes"),
    [
        ("glyphs", {"image": (8, 3, 64, 64), "labels": (8,)}),
        ("sections", {"input_ids": (8, 32), "attention_mask": (8, 32), "labels": (8,)}),
        ("english", {"input_ids": (2, 32), "labels": (2, 32)}),
    ],
)
def test_batches_to_heal_with_are_named_as_the_inputs_and_no_longer_than_their_group(
    kind: str, shapes: dict[str, tuple[int, ...]], data: Path
) -> None:
    import torch

    from bench.claims import runs
    from bench.claims.heal_inputs import HealInputs

    inputs = HealInputs(kind, runs.task_of(kind, data, torch.device("cpu"), tiny=True))
    first, second = inputs.draw(8), inputs.draw(8)
    assert {name: tuple(tensor.shape) for name, tensor in first.items()} == shapes
    assert {name: tuple(tensor.shape) for name, tensor in second.items()} == shapes
    assert not torch.equal(first[next(iter(shapes))], second[next(iter(shapes))])
    assert inputs.batches == 2
    if kind == "sections":
        # A quarter is English, which nobody labelled.
        assert (first["labels"] == -100).tolist() == [False] * 6 + [True] * 2
        assert torch.equal(first["attention_mask"], (first["input_ids"] != 0).long())


def test_what_judges_is_not_trained_on_and_not_held_out(data: Path) -> None:
    import torch

    from bench.claims import runs
    from bench.claims.heal_inputs import HealInputs

    with np.load(data / "sections-train.npz") as arrays:
        validates = arrays["validates"]
        allowed = {tuple(row) for row in arrays["ids"][validates]}
    judges = HealInputs("sections", runs.task_of("sections", data, torch.device("cpu"))).judges()
    assert len(judges["input_ids"]) == validates.sum()
    assert {tuple(row) for row in judges["input_ids"]} == allowed


def test_a_healed_network_is_judged_as_its_training_was(data: Path, tmp_path: Path) -> None:
    import seed_runtime
    from bench.claims import heal

    teacher, out = trained("mobilenetv2", data, tmp_path / "teacher"), tmp_path / "healed"
    command = ["--start", str(teacher), "--data", str(data), "--out", str(out), "--time-limit", "10", "--tiny"]
    assert heal.main(command) == 0
    result = json.loads((out / "result.json").read_text())
    assert (result["name"], result["measure"], result["n"]) == ("mobilenetv2", "accuracy", 60)
    assert heal.goal_of(teacher) == int(4 * result["parameters"] / 152)
    assert result["bytes"] == (out / "model.seed").stat().st_size
    assert result["runtime_difference"] < 1e-4
    looks = [json.loads(line) for line in (out / "looks.jsonl").read_text().splitlines()]
    assert looks
    assert all(
        set(look) == {"share", "size", "damage", "price", "gradient", "skipped", "seconds", "batches"} for look in looks
    )
    with np.load(out / "verdicts.npz") as found, np.load(teacher / "verdicts.npz") as before:
        assert set(found) == set(before)
        assert result["held"] == pytest.approx(found["verdicts"].mean())
        answers, images = found["answer"], 8
    from bench.claims.data.files import read_arrays
    from bench.claims.inputs import glyph_inputs

    with seed_runtime.open(out / "model.seed", enforce=False).session() as session:
        (logits,) = session.run(
            {"image": glyph_inputs(read_arrays(data / "glyphs-held.npz.xz")["x"][:images])}
        ).values()
    assert answers[:images].tolist() == logits.argmax(1).tolist()

    written = (out / "model.seed").read_bytes()
    assert heal.main(command) == 0  # finished: nothing is healed again
    assert (out / "model.seed").read_bytes() == written


def test_goals_hold_for_bytes_and_for_ratio() -> None:
    from bench.claims import heal

    assert heal.goal_size("resnet50", 25_557_032) == 58_163
    assert heal.goal_size("distilbert", 66_977_000) == int(4 * 66_977_000 / 76) < 3_565_158
    with pytest.raises(ValueError, match="small-text has no goal of its own; give --size, or as --teacher a network"):
        heal.goal_size("small-text", 1)


def test_settings_are_given_by_name() -> None:
    from bench.claims import heal

    found = heal.settings_of(["fold=0.75", "steps=7", "mixed_precision=false"])
    assert (found.fold, found.steps, found.mixed_precision) == (0.75, 7, False)
    with pytest.raises(ValueError, match="--set fald=1: healing has the settings steps, batch"):
        heal.settings_of(["fald=1"])


@pytest.mark.parametrize("name", ["resnet50", "berttiny"])
def test_weights_of_an_assembled_seed_find_their_places_in_the_network(name: str, data: Path, tmp_path: Path) -> None:
    import torch

    import seed_exporter
    import seed_runtime
    from bench.claims import checkpoints
    from bench.claims.controls import restored_state
    from bench.claims.exporting import export

    teacher = trained(name, data, tmp_path / "teacher")
    model = export(teacher, tmp_path / "model.onnx")
    seed_exporter.export(
        model, output=tmp_path / "model.seed", options=seed_exporter.Options(method="lossless", model_id="x")
    )
    seed = seed_runtime.open(tmp_path / "model.seed", enforce=False).assemble(tmp_path / "assembled")
    state = checkpoints.load(teacher)[0]
    # Statistics of batch norms, biases and matrices alike.
    found = restored_state(state, model, seed / "model.onnx")
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], state[key]) for key in state)


def test_the_published_method_and_random_weights_get_the_same_fine_tune(data: Path, tmp_path: Path) -> None:
    from bench.claims import checkpoints, controls

    teacher, out = trained("mobilenetv2", data, tmp_path / "teacher"), tmp_path / "controls"
    command = ["--start", str(teacher), "--data", str(data), "--out", str(out), "--steps", "2", "--tiny"]
    assert controls.main(command) == 0
    results = {
        name: json.loads((out / name / "result.json").read_text())
        for name in ("moments", "moments-tuned", "random-tuned")
    }
    assert [results[name].get("steps") for name in results] == [None, 2, 2]
    assert {result["n"] for result in results.values()} == {60}
    before, after = checkpoints.load(teacher)[0], checkpoints.load(out / "moments")[0]
    assert any((before[key] != after[key]).any() for key in before)


def test_what_a_hold_left_comes_back_without_weights_and_weights_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import tarfile

    import torch

    from bench.claims import checkpoints, collect, pieces

    out, to = tmp_path / "out", tmp_path / "to"
    assert collect.main([str(out), str(to)]) == collect.DATA_ERROR
    assert "holds no results" in capsys.readouterr().err
    checkpoints.save(out / "a", {"w": torch.zeros(4000, 1000), "v": torch.ones(4000, 1000)}, {"name": "x"})
    (out / "a" / "result.json").write_text("{}")
    (out / "a-heal" / "state").mkdir(parents=True)
    (out / "a-heal" / "state" / "training.npz").write_bytes(b"large")
    (out / "a-heal" / "model.seed").write_bytes(b"seed")
    (out / "a.log").write_text("log")
    assert collect.main([str(out), str(to)]) == 0
    with tarfile.open(to / collect.ARCHIVE) as file:
        assert set(file.getnames()) == {"a.log", "a/result.json", "a-heal/model.seed"}

    monkeypatch.setattr(collect, "PART", pieces.SIZE)
    for part in ("1", "2"):
        assert collect.main([str(out), str(to), "--checkpoint", "a", "--part", part]) == 0
    state, about = checkpoints.load(to / "a")
    assert about == {"name": "x"}
    assert (float(state["w"].sum()), float(state["v"].sum())) == (0, 4_000_000)
    assert collect.main([str(out), str(to), "--checkpoint", "a", "--part", "3"]) == collect.DATA_ERROR
    assert "has 2 parts; give --part 1 to 2" in capsys.readouterr().err


def test_networks_and_healings_come_back_together_in_parts_of_few_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from bench.claims import checkpoints, collect, pieces, states
    from seed_exporter.heal.checkpoint import FILE

    monkeypatch.setattr(pieces, "SIZE", 100_000)
    monkeypatch.setattr(collect, "PART", 350_000)
    monkeypatch.setattr(collect, "LARGEST", 50_000)
    monkeypatch.setattr(collect, "FILES_MOST", 4)
    out, to = tmp_path / "out", tmp_path / "to"
    checkpoints.save(out / "a", {"w": torch.rand(500, 500)}, {"name": "x"})  # 6 files
    for name, size in (("a-heal", 40_000), ("b-heal", 10)):
        (out / name / "state").mkdir(parents=True)
        np.savez(out / name / "state" / FILE, x=np.random.default_rng(0).random(size))  # 5 files, and 2
    (out / "a.log").write_text("log")
    wanted = [str(out), str(to), "--results", "--state", "a-heal", "none", "b-heal", "--checkpoint", "a"]

    assert collect.main(wanted) == collect.DATA_ERROR  # of one job there is nothing
    first = capsys.readouterr()
    assert "none" in first.err
    count = int(first.out.split(" of ")[1].split()[0])
    assert count == 4
    assert len([path for path in to.rglob("*") if path.is_file()]) == 4
    for part in range(2, count + 1):
        before = {path for path in to.rglob("*") if path.is_file()}
        assert collect.main([*wanted, "--part", str(part)]) == collect.DATA_ERROR
        after = {path for path in to.rglob("*") if path.is_file()}
        assert len(after - before) <= 4
        assert sum(path.stat().st_size for path in after - before) <= 351_000
    assert collect.main([*wanted, "--part", str(count + 1)]) == collect.DATA_ERROR
    assert f"give --part 1 to {count}" in capsys.readouterr().err

    assert checkpoints.load(to / "a")[1] == {"name": "x"}
    for name in ("a-heal", "b-heal"):
        states.join(to / name / "state")
        assert (to / name / "state" / FILE).is_file()
