"""Keeping a seed: the sample is spread over the held-out side, and controls stand beside it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bench.claims import keep
from bench.claims.data.files import write_arrays
from tests.claims.test_kept import classifier
from tests.support.model_seeds import build_model_seed

COUNT = 60


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Data, a seed, and folders as training leaves them."""
    x = np.zeros((COUNT, 48, 24), np.uint8)
    x[::2] = 0xFF
    label = (np.arange(COUNT) % 2).astype(np.uint16)
    write_arrays(tmp_path / "glyphs-held.npz.xz", {"x": x, "y": label})
    (tmp_path / "made.seed").write_bytes(build_model_seed(classifier()))
    right = np.ones(COUNT, bool)
    for name, wrong in (("teacher", 1), ("further", 0), ("student", 6)):
        folder = tmp_path / name
        folder.mkdir()
        verdicts = right.copy()
        verdicts[:wrong] = False
        np.savez(folder / "verdicts.npz", verdicts=verdicts, answer=label, cluster=np.arange(COUNT) // 5)
        (folder / "result.json").write_text(
            json.dumps({"parameters": 3_504_872, "held": float(verdicts.mean()), "steps": 900})
        )
    return tmp_path


def command(made: Path) -> list[str]:
    folders = ["--teacher", str(made / "teacher"), "--trained-on", str(made / "further"), "--data", str(made)]
    healing = ["--seconds", "100", "--steps", "900", "--control", "a student", "60000", str(made / "student")]
    return ["mobilenetv2", "--seed", str(made / "made.seed"), *folders, *healing, "--out", str(made / "seeds")]


def test_a_kept_seed_is_checked_against_the_better_teacher(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert keep.main(command(made)) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["name"], row["quality"], row["reference"], row["misses"]) == ("mobilenetv2", 1.0, 1.0, [])
    assert sorted(path.name for path in (made / "seeds").iterdir()) == [
        f"mobilenetv2.{end}" for end in ("json", "npz", "seed")
    ]
    beside = json.loads((made / "seeds" / "mobilenetv2.json").read_text())
    assert beside["healing"] == {"seconds": 100, "steps": 900}
    assert "copyright file" in beside["licence"]
    (student,) = beside["controls"]
    assert (student["label"], student["bytes"]) == ("a student", 60000)
    assert student["kept"][0] == pytest.approx(0.9)


def test_the_sample_is_spread_over_the_whole_held_out_side(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(keep.MOST, "glyphs", 12)
    assert keep.main(command(made)) == 0
    with np.load(made / "seeds" / "mobilenetv2.npz") as sample:
        assert sample["cluster"].tolist() == list(range(12))
        assert len(sample["x"]) == len(sample["label"]) == len(sample["teacher"]) == 12


def test_verdicts_of_other_data_are_refused(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_arrays(made / "glyphs-held.npz.xz", {"x": np.zeros((9, 48, 24), np.uint8), "y": np.zeros(9, np.uint16)})
    assert keep.main(command(made)) == 3
    assert "has 9 held-out samples, the verdicts are of 60" in capsys.readouterr().err
    assert not (made / "seeds").exists()


def test_every_goal_can_be_kept() -> None:
    assert set(keep.KINDS) == {goal.name for goal in keep.GOALS}
    assert set(keep.KINDS.values()) == set(keep.MOST) == set(keep.LICENCES)
