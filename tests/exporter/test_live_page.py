"""The page of `--report` while a model is healed: it is replaced at each look, and refreshes itself until the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from seed_exporter.heal.looks import Look, Training
from seed_exporter.report.healing import LivePage
from tests.exporter.support.command import Ran
from tests.exporter.support.exporting import layers

REFRESH = '<meta http-equiv="refresh"'
TRAINING = Training("bell", 3000, "on the CPU", (), 400, 0.25, 100.0)
LOOKS = (Look(0.2, 9000, 0.1), Look(0.5, 2900, 0.3), Look(0.7, 2990, 0.2))


def test_a_page_shows_steps_time_left_and_the_best_so_far_and_refreshes_itself(tmp_path: Path):
    page = LivePage(tmp_path / "r.html")
    page.show(TRAINING)
    text = (tmp_path / "r.html").read_text()
    assert REFRESH in text
    assert "0 % done, about 1 min 40 s left" in text
    assert "0 of about 400, 0.25 s each" in text
    page.show(replace(TRAINING, looks=LOOKS, seconds_left=30.0))
    text = (tmp_path / "r.html").read_text()
    assert "280 of about 400" in text
    assert text.count("<circle") == 6
    assert "best so far, which Ctrl-C writes</th><td>2.99 KB, damage 0.2</td>" in text


def test_before_the_goal_is_kept_the_smallest_is_the_best():
    assert TRAINING.best is None
    assert replace(TRAINING, looks=LOOKS[:1]).best == LOOKS[0]
    assert replace(TRAINING, looks=LOOKS).best == LOOKS[2]


def test_a_run_that_fails_leaves_a_page_that_says_so_and_is_loaded_no_more(tmp_path: Path):
    page = LivePage(tmp_path / "r.html")
    page.stop("no page so far")
    assert not (tmp_path / "r.html").exists()
    page.show(TRAINING)
    page.stop("the disk is <full>")
    text = (tmp_path / "r.html").read_text()
    assert REFRESH not in text
    assert "ended without a seed: the disk is &lt;full&gt;" in text


def test_a_page_that_cannot_be_written_ends_nothing(tmp_path: Path):
    LivePage(tmp_path / "missing" / "r.html").show(TRAINING)
    assert not (tmp_path / "missing").exists()


@pytest.mark.slow
def test_the_command_replaces_the_page_at_each_look_and_by_the_report_in_the_end(
    rng: np.random.Generator,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    short_healing: Callable[..., Any],
    without_measured_memory: None,
):
    short_healing(steps=40, batch=8, looks=5)
    onnx.save(layers(rng, 24, 48, 10), tmp_path / "m.onnx")
    np.savez(tmp_path / "data.npz", x=rng.standard_normal((48, 1, 24)).astype(np.float32))
    report, pages = tmp_path / "r.html", []
    show: Callable[..., None] = LivePage.show

    def shown(page: LivePage, training: Training) -> None:
        show(page, training)
        pages.append(report.read_text())

    monkeypatch.setattr(LivePage, "show", shown)
    ran = Ran(
        capfd, tmp_path / "m.onnx", "-o", tmp_path / "m.seed", "--heal", tmp_path / "data.npz", "--size", "3000",
        "--report", report, "--jobs", "1",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert len(pages) >= 5
    assert all(REFRESH in page for page in pages)
    assert pages[-1].count("<circle") > pages[2].count("<circle")
    final = report.read_text()
    assert REFRESH not in final
    assert "Where the bytes went" in final
    assert final.count("<circle") > 6
