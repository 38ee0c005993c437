"""`--heal` as a whole: sizes, interruptions, checkpoints, what is refused. Training is skipped without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import seed_exporter
import seed_runtime
from seed_exporter.heal.looks import Look
from seed_exporter.heal.settings import HealSettings
from seed_exporter.report.healing import curve
from seed_exporter.results import InterruptedExport
from seed_runtime.errors import InputError, UsageError
from tests.exporter.support.exporting import layers, quick_export

SIZE = 3000
NO_TORCH = {"exc_type": ImportError}


@pytest.fixture
def model(rng: np.random.Generator) -> onnx.ModelProto:
    return layers(rng, 24, 48, 10)


@pytest.fixture
def data(rng: np.random.Generator, tmp_path: Path) -> Path:
    path = tmp_path / "data.npz"
    np.savez(path, x=rng.standard_normal((48, 1, 24)).astype(np.float32), labels=rng.integers(0, 10, 48))
    return path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let runs be short, in one thread, and return the room's module."""
    torch = pytest.importorskip("torch", **NO_TORCH)
    healing = pytest.importorskip("seed_exporter.heal.healing", **NO_TORCH)
    settings = healing.HealSettings
    monkeypatch.setattr(healing, "HealSettings", lambda: settings(steps=40, batch=8, looks=5))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield healing
    torch.set_num_threads(before)


def healed(model: Any, output: Path, data: Path, **options: Any) -> seed_exporter.Result:
    return quick_export(model, output, **{"heal": data, "size": SIZE, **options})


@pytest.mark.slow
def test_the_size_that_was_predicted_is_written_within_a_hundredth_and_keeps_the_goal(
    rng: np.random.Generator, output: Path, data: Path, quick: Any
) -> None:
    result = healed(layers(rng, 24, 256, 32, 10), output, data, size=12000)
    assert result.goal_met
    assert output.stat().st_size == result.bytes <= 12000
    best = min((look for look in result.healing if look.size <= 12000), key=lambda look: look.damage)
    assert result.bytes == pytest.approx(best.size, rel=0.01)
    assert result.inputs == "real"
    seed_runtime.open(output).check()


@pytest.mark.slow
def test_a_size_that_is_not_reached_leaves_the_smallest_so_far(
    model: onnx.ModelProto, output: Path, data: Path, quick: Any
) -> None:
    result = healed(model, output, data, size=500)
    assert not result.goal_met
    assert result.bytes == pytest.approx(min(look.size for look in result.healing), abs=100)


@pytest.mark.slow
def test_an_interruption_writes_the_best_so_far_and_the_training_goes_on_from_its_checkpoint(
    model: onnx.ModelProto, output: Path, data: Path, quick: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss, calls = quick.Healing.loss, []

    def interrupted(run: Any, batch: Any) -> Any:
        calls.append(0)
        if len(calls) == 30:
            raise KeyboardInterrupt
        return loss(run, batch)

    monkeypatch.setattr(quick.Healing, "loss", interrupted)
    folder = tmp_path / "state"
    with pytest.raises(InterruptedExport) as caught:
        healed(model, output, data, resume=folder)
    assert output.stat().st_size == caught.value.result.bytes
    assert 0.5 < caught.value.result.healing[-1].share < 1

    calls.clear()
    monkeypatch.setattr(quick.Healing, "loss", lambda run, batch: calls.append(0) or loss(run, batch))
    result = healed(model, output, data, resume=folder)
    assert 8 < len(calls) < 30
    assert result.healing[-1].share == 1
    with pytest.raises(InputError, match="another size; give --resume another folder"):
        healed(model, output, data, resume=folder, size=SIZE - 1)
    (folder / "training.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match="damaged"):
        healed(model, output, data, resume=folder)


@pytest.mark.slow
def test_a_module_is_healed_as_it_is(output: Path, data: Path, quick: Any) -> None:
    torch = pytest.importorskip("torch", **NO_TORCH)
    pytest.importorskip("onnxscript", **NO_TORCH)
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(24, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)).eval()
    options = seed_exporter.Options(heal=data, size=4500)
    batch = torch.export.Dim("batch")
    result = seed_exporter.export(
        module, (torch.zeros(2, 24),), output=output, options=options, input_names=["x"],
        dynamic_shapes=({0: batch},),
    )  # fmt: skip
    assert result.goal_met
    assert result.healing[-1].share == 1


@pytest.mark.slow
def test_a_smaller_model_learns_the_answers_of_its_teacher(
    model: onnx.ModelProto, output: Path, data: Path, rng: np.random.Generator, tmp_path: Path, quick: Any
) -> None:
    teacher = tmp_path / "teacher.onnx"
    onnx.save(model, teacher)
    small = layers(rng, 24, 32, 10)
    alone = healed(small, output, data, size=5000, calib=data)
    taught = healed(small, tmp_path / "taught.seed", data, size=5000, calib=data, teacher=teacher)
    # By itself there is nothing to learn.
    assert alone.healing[-1].damage < 0.1
    assert taught.healing[-1].damage < 0.9 * taught.healing[0].damage
    onnx.save(onnx.ModelProto.FromString(model.SerializeToString().replace(b"x", b"z")), teacher)
    with pytest.raises(InputError, match=r"has other inputs \(z \[any, 24\]\) than the model \(x"):
        healed(small, output, data, teacher=teacher)


@pytest.mark.slow
def test_too_little_data_is_refused(
    model: onnx.ModelProto, output: Path, rng: np.random.Generator, tmp_path: Path, quick: Any
) -> None:
    path = tmp_path / "few.npz"
    np.savez(path, x=rng.standard_normal((12, 1, 24)).astype(np.float32))
    with pytest.raises(InputError, match="at least 16 inputs"):
        healed(model, output, path)
    assert not output.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": None}, "give it one, such as --target 20x"),
        ({"size": None, "quality": 0.9}, "--heal reaches a size"),
        ({"method": "moments"}, "leave out --method moments"),
        ({"heal": None, "resume": Path("state")}, "add --heal"),
        ({"heal": None, "teacher": Path("teacher.onnx")}, "give heal=data.npz as well"),
        ({"heal": None, "heal_settings": HealSettings()}, "give heal=data.npz as well"),
    ],
)
def test_options_that_do_not_go_with_healing_are_named(
    options: dict, said: str, model: onnx.ModelProto, output: Path, data: Path
) -> None:
    with pytest.raises(UsageError, match=said):
        healed(model, output, data, **options)


def test_without_torch_the_extra_is_named_before_the_model_is_read(
    output: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "seed_exporter.heal.healing", raising=False)
    with pytest.raises(UsageError, match=r"seed-runtime\[torch\].*no --heal"):
        healed("missing.onnx", output, data)


def test_a_curve_shows_every_look() -> None:
    looks = [Look(0.0, 9000, 0.5), Look(0.5, 3000, 0.2), Look(1.0, 2900, 0.1)]
    drawing = curve(looks)
    assert drawing.count("<circle") == 6
    assert "50 % of the run: 3.00 KB" in drawing
    assert curve(looks[:1]) == ""
