"""Each topic of what matters, and the fine-tune of its classifier, measured at their smallest on drawn pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import finetune, finetune_runs
from bench.claims.data.files import write_arrays
from bench.matters import __main__ as command
from bench.matters import published, training, transfer

# PyTorch, which the default tests run without.
pytestmark = pytest.mark.slow

POINTS = (0x41, 0x42, 0x43, 0x4E00, 0x4E01, 0x4E03)
"""Three Latin letters, three ideographs."""
FONTS = 20


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network and batches at which a run takes seconds."""
    from bench.matters import glyphs

    monkeypatch.setattr(glyphs, "WIDTHS", (8, 12, 24, 24))
    monkeypatch.setattr(glyphs, "BATCH", 16)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures in the shape of the real ones: a bar whose place tells the class."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for side, count in (("train", 600), ("held", 60)):
        y = np.arange(count) % len(POINTS)
        x = rng.integers(0, 3, (count, 48, 24), dtype=np.uint8)
        for image, label in zip(x, y, strict=True):
            image[8 * label : 8 * label + 8] = 0xFF
        font = (np.arange(count) // len(POINTS) % FONTS).astype(np.uint16)
        fonts = np.array("\n".join(f"package{number}\tfamily{number}\tx.ttf" for number in range(FONTS)))
        points = np.array(POINTS, np.uint32)
        arrays = {"x": x, "y": y.astype(np.uint16), "font": font, "fonts": fonts, "classes": points}
        write_arrays(folder / f"glyphs-{side}.npz.xz", arrays)
    return folder


def accuracies(rows: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    return {row["title"]: (row["before"]["accuracy"], row["after"]["accuracy"]) for row in rows}


def test_the_published_method_is_measured_part_by_part_from_whole_seeds(data: Path) -> None:
    found = published.run(True, data)
    assert [row["title"] for row in found["sweep"]] == ["20 components", "2 components"]
    assert found["sweep"][0]["bytes"] > found["sweep"][1]["bytes"] > 500
    storage = found["storage"][1]
    assert storage["factors"]["bytes"] < storage["float16"]
    assert storage["integers"]["bytes"] <= storage["factors"]["bytes"]
    # All components of all matrices are the original, but for the rounding to float16.
    assert found["controls"][0]["before"]["agreement"] == 1
    assert len(accuracies(found["sparse"])) == 5
    assert published.section({"published": found})
    assert set(published.charts({"published": found})) == {"published-parts", "published-sweep"}


def test_starts_for_another_script_get_the_same_fine_tune(data: Path) -> None:
    found = transfer.run(True, data)
    assert next(row["title"] for row in found["rows"]) == transfer.RANDOM
    assert found["rows"][-1]["title"] == transfer.META
    assert found["rows"][2]["bytes"] <= found["rows"][3]["bytes"]
    assert all(set(row["accuracy"]) == {"2", "4"} for row in found["rows"])
    assert any("meta-learned start was tried" in line for line in transfer.section({"transfer": found}))


def test_healing_with_noise_is_measured_beside_straight_through(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "SIZE", 16_000)
    found = training.run(True, data)
    assert [run["variant"] for run in found["runs"]] == ["straight-through", "a random half is rounded in each step"]
    assert all(1000 < run["bytes"] <= 16_000 and 0 <= run["quality"] <= 1 for run in found["runs"])
    assert found["source"].startswith("3 characters, ")  # the European half of them


def test_healing_on_pictures_that_are_seen_often_is_judged_on_other_families(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.matters import few_pictures, seen_often

    monkeypatch.setattr(few_pictures, "WIDTHS", (8, 12, 24, 24))
    monkeypatch.setattr(few_pictures, "JUDGES", 20)
    task, unseen = few_pictures.load(data)
    assert task.classes == 3  # the letters among them
    assert len(task.train[0]) + len(unseen[0]) == 300
    found = seen_often.run(True, data)
    assert [run["variant"] for run in found["runs"]] == ["as it is", "half of the inputs mixed"]
    assert found["n"] == len(unseen[0])
    assert any("half of the inputs mixed" in line for line in seen_often.section({"seen_often": found}))


def test_a_fine_tune_is_judged_from_whole_files(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(finetune_runs, "PICTURES", 40)  # of three characters
    assert finetune.main(["--quick", "--json", "--data", str(data)]) == 0
    found = json.loads(capsys.readouterr().out)
    (row,) = found["rows"]
    assert found["judged"] == 15  # of 30 held out
    assert row["tried"][:2] == ["bn", "head"]
    assert set(row["kept"]) <= set(row["tried"])
    assert bool(row["delta"]) == bool(row["kept"])
    if row["before"] < found["original"]:
        won = (row["after"] - row["before"]) / (found["original"] - row["before"])
        assert row["won_back"] == pytest.approx(won, rel=0.01)
    assert [step["tier"] for step in found["steps_beside"]] == ["small", "full"]
    assert min(step["pairs"] for step in found["steps_beside"]) > 20
    assert len(finetune.table(found)) == 2 + 1 + 5


def rounded_by(change: Any, *, trains: bool) -> tuple[np.ndarray, np.ndarray]:
    """Weights in steps, and what a variant makes of them in training or in a look at a state."""
    import torch

    units = torch.linspace(-2, 2, 1000).view(1, 10, 10, 10).requires_grad_()
    growth = torch.zeros(1)

    def quantize(units: Any, growth: Any, *rest: Any) -> tuple[Any, Any]:
        return units + (units.round() - units).detach(), rest

    torch.manual_seed(0)
    with torch.set_grad_enabled(trains):
        made, _ = change(quantize, units, growth)
        if trains:
            made.sum().backward()
            assert torch.equal(units.grad, torch.ones_like(units))
    return units.detach().numpy(), made.detach().numpy()


def test_a_random_half_is_left_as_it_is_in_training_and_none_in_a_look() -> None:
    units, made = rounded_by(training._half_rounded, trains=True)
    kept = np.isclose(made, units)
    assert 0.4 < kept.mean() < 0.6
    assert np.allclose(made[~kept], np.rint(units[~kept]))
    units, made = rounded_by(training._half_rounded, trains=False)
    assert np.array_equal(made, np.rint(units))


def test_uniform_noise_reaches_half_a_step_in_training_and_none_is_in_a_look() -> None:
    units, made = rounded_by(training._uniform_noise, trains=True)
    assert 0.45 < np.abs(made - units).max() <= 0.5
    assert abs((made - units).mean()) < 0.03
    units, made = rounded_by(training._uniform_noise, trains=False)
    assert np.array_equal(made, np.rint(units))


def test_one_scale_gives_all_rows_columns_and_taps_their_means() -> None:
    import torch

    parts = [torch.rand(2, count) for count in (3, 4, 5)]
    made = training._one_scale(lambda *inputs: inputs, None, None, *parts, 8.0)
    for part, mean in zip(parts, made[2:5], strict=True):
        assert torch.allclose(mean, part.mean(1, keepdim=True).expand(-1, part.shape[1]))
    assert made[5] == 8.0


def test_data_that_are_not_there_end_the_command_with_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["--run", "published", "--quick", "--data", str(tmp_path)]) == command.DATA_ERROR
    assert "python -m bench.matters --help" in capsys.readouterr().err
