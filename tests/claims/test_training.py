"""Teachers and students: parameter counts as published, and every command on tiny data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from tests.support.claims_data import tiny_data

# PyTorch, which the default tests run without.
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def one_thread() -> None:
    import torch

    # What is trained here is so small that threads wait for each other longer than they work.
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_data(tmp_path_factory.mktemp("data"))


def test_the_networks_have_the_published_numbers_of_parameters() -> None:
    import torch

    from bench.claims import models

    for name, settings in models.SETTINGS.items():
        kind = models.KINDS[name]
        classes = {} if kind == "english" else {"classes": 1000 if kind == "glyphs" else 32}
        with torch.device("meta"):
            model = models.build(name, settings | classes)
        # Texts' published numbers are without the classifier: BERT's pooler counts, DistilBERT has none.
        head = {"berttiny": ["head"], "distilbert": ["head", "pooler"]}.get(name, [])
        heads = sum(models.parameters(getattr(model, part)) for part in head)
        assert models.parameters(model) - heads == models.PARAMETERS[name], name


def test_blanks_after_a_text_don_t_change_its_answer() -> None:
    import torch

    from bench.claims import judging, models

    torch.manual_seed(0)
    model = models.build("berttiny", {**models.TINY["berttiny"], "words": 50, "classes": 4}).eval()
    short = torch.tensor([[2, 17, 9, 3]])
    long = torch.nn.functional.pad(short, (0, 12))
    torch.testing.assert_close(judging.logits_of(model, short), judging.logits_of(model, long))


def test_a_token_of_gpt2_knows_nothing_of_those_after_it() -> None:
    import torch

    from bench.claims import models

    torch.manual_seed(0)
    model = models.build("gpt2", {**models.TINY["gpt2"], "words": 50}).eval()
    ids = torch.randint(50, (1, 16))
    changed = ids.clone()
    changed[0, 9:] = (changed[0, 9:] + 1) % 50
    torch.testing.assert_close(model(ids)[:, :9], model(changed)[:, :9])
    assert not torch.allclose(model(ids)[:, 9:], model(changed)[:, 9:])


@pytest.mark.parametrize("name", ["resnet50", "berttiny", "gpt2"])
def test_a_teacher_is_trained_and_judged_and_its_export_answers_as_it_does(
    name: str, data: Path, tmp_path: Path
) -> None:
    import torch

    from bench.claims import judging, runs, teachers
    from seed_runtime import backends

    out, target = tmp_path / name, tmp_path / "model.onnx"
    command = [name, "--data", str(data), "--out", str(out), "--steps", "6", "--batch", "16", "--tiny"]
    assert teachers.main(command) == 0
    result = json.loads((out / "result.json").read_text())
    assert result["measure"] == ("perplexity" if name == "gpt2" else "accuracy")
    with np.load(out / "verdicts.npz") as verdicts:
        held = verdicts["verdicts"]
    assert len(held) == result["n"]
    assert result["held"] == pytest.approx(np.exp(held.mean()) if name == "gpt2" else held.mean())

    assert teachers.main(["export", "--start", str(out), "--out", str(target)]) == 0
    backends.get().load()
    import onnxruntime

    session = onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])
    model = runs.load(out, torch.device("cpu"))
    rng = np.random.default_rng(1)
    for shape in ((1, 5), (3, 30)):
        if name == "resnet50":
            x = rng.standard_normal((shape[0], 3, 64, 64)).astype(np.float32)
            feeds, expected = {"image": x}, model(torch.from_numpy(x))
        else:
            ids = rng.integers(5, 50, shape)
            feeds = {"input_ids": ids}
            expected = (
                model(torch.from_numpy(ids)) if name == "gpt2" else judging.logits_of(model, torch.from_numpy(ids))
            )
            if name == "berttiny":
                feeds["attention_mask"] = np.ones(shape, np.int64)
        np.testing.assert_allclose(session.run(None, feeds)[0], expected.numpy(), rtol=1e-3, atol=1e-4)


def test_a_teacher_learns_and_the_same_command_goes_on_where_it_stopped(data: Path, tmp_path: Path) -> None:
    from bench.claims import checkpoints, teachers

    out = tmp_path / "out"
    command = ["mobilenetv2", "--data", str(data), "--out", str(out), "--steps", "80", "--batch", "16", "--tiny"]
    assert teachers.main(command) == 0
    state, about = checkpoints.load(out)
    assert json.loads((out / "result.json").read_text())["held"] > 0.6
    checkpoints.save(out, state, about | {"share": 0.8, "done": {"steps": 64, "skipped": 0}})
    assert teachers.main(command) == 0
    result = json.loads((out / "result.json").read_text())
    assert result["steps"] == 80
    assert result["held"] > 0.6

    before = (out / "weights.json").read_bytes()
    assert teachers.main(command) == 0  # finished: nothing is trained again
    assert (out / "weights.json").read_bytes() == before

    further = tmp_path / "further"
    assert teachers.main([*command[:4], str(further), *command[5:], "--start", str(out)]) == 0
    assert json.loads((further / "result.json").read_text())["from"]


@pytest.mark.parametrize(
    ("student", "teacher"), [("small-vision", "resnet50"), ("small-text", "distilbert"), ("looped-language", "gpt2")]
)
def test_a_student_learns_its_teacher_s_answers(student: str, teacher: str, data: Path, tmp_path: Path) -> None:
    from bench.claims import students, teachers

    common = ["--data", str(data), "--steps", "4", "--batch", "8", "--tiny"]
    assert teachers.main([teacher, "--out", str(tmp_path / "teacher"), *common]) == 0
    out = tmp_path / "student"
    assert students.main([student, "--out", str(out), "--teacher", str(tmp_path / "teacher"), *common]) == 0
    assert json.loads((out / "result.json").read_text())["name"] == student


def test_a_gradient_that_is_not_finite_changes_nothing_and_is_counted(tmp_path: Path) -> None:
    import torch

    from bench.claims import training

    model, seen = torch.nn.Linear(2, 1), []

    def batch_of() -> dict[str, torch.Tensor]:
        return {"x": torch.ones(1, 2)}

    def loss_of(batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        seen.append([each.detach().clone() for each in model.parameters()])
        factor = float("nan") if len(seen) == 2 else 1.0
        return model(batch["x"]).sum() * factor

    settings = training.Settings(0.1, warm=1)
    result = training.train(model, batch_of, loss_of, lambda: 0.0, training.Limit(0, 4), settings, tmp_path, {}, "x")
    assert (result["steps"], result["skipped"]) == (4, 1)
    first, second, third, fourth = seen
    assert not torch.equal(first[0], second[0])
    assert all(torch.equal(one, other) for one, other in zip(second, third, strict=True))
    assert not torch.equal(third[0], fourth[0])


def test_a_batch_of_descriptions_is_of_about_one_length_and_none_is_cut(data: Path) -> None:
    import torch

    from bench.claims.text_task import Sections

    with np.load(data / "sections-train.npz") as arrays:
        kept = dict(arrays)
    rows = np.flatnonzero(~kept["validates"])
    kept["ids"][:, 50:] = 0
    kept["ids"][rows[1::2], 20:150] = 9
    folder = data / "lengths"
    folder.mkdir()
    np.savez(folder / "sections-train.npz", **kept)
    for name in ("sections-held.npz", "wordpieces.npy"):
        (folder / name).write_bytes((data / name).read_bytes())
    sections = Sections(folder, torch.device("cpu"))
    widths = set()
    for _ in range(40):
        ids, label = sections.batch(8)
        assert ids.shape[0] == len(label) == 8
        assert torch.equal(label, ids[:, 1] - 5)
        lengths = (ids != 0).sum(1)
        assert ids.shape[1] - 32 < int(lengths.max()) <= ids.shape[1]
        widths.add(ids.shape[1])
    assert widths == {32, 160}


def test_a_damaged_checkpoint_is_refused_with_what_to_do(data: Path, tmp_path: Path) -> None:
    import torch

    from bench.claims import checkpoints

    with pytest.raises(checkpoints.CheckpointError, match=r"no weights\.json; train again"):
        checkpoints.load(tmp_path)
    big = torch.arange(10_000_000, dtype=torch.float32).remainder(100).view(10_000, 1000)
    checkpoints.save(tmp_path, {"big": big, "small": torch.tensor([1e-30, 7.0])}, {"name": "x"})
    pieces = sorted(tmp_path.glob("weights-*.bin"))
    assert len(pieces) == 2
    assert all(piece.stat().st_size < 2**24 for piece in pieces)
    state, about = checkpoints.load(tmp_path)
    assert torch.equal(state["big"], big)
    assert state["small"].tolist() == torch.tensor([1e-30, 7.0]).tolist()
    assert about == {"name": "x"}
    pieces[0].write_bytes(pieces[0].read_bytes()[:-1])
    with pytest.raises(ValueError, match="missing or damaged; train again"):
        checkpoints.load(tmp_path)


def test_tokens_that_are_missing_name_the_command_that_makes_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from bench.claims import teachers

    assert teachers.main(["berttiny", "--data", str(tmp_path), "--out", str(tmp_path), "--tiny"]) == 3
    assert "run python -m bench.claims.tokens --data" in capsys.readouterr().err


def test_a_program_that_was_given_a_gpu_doesn_t_run_without_one(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from bench.claims import teachers, training

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv(training.ON_GPU, "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    command = ["resnet50", "--data", str(data), "--out", str(tmp_path / "a"), "--tiny", "--steps", "1"]
    assert teachers.main(command) == teachers.DATA_ERROR
    assert "finds no GPU, with CUDA_VISIBLE_DEVICES=7" in capsys.readouterr().err
