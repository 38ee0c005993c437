"""Samples stay on the disk in their own type: many of them take no more memory than few."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.seed_run import seed_run
from tests.support.shared import SharedFolder
from tests.support.tuned_model import damaged_seed, data

MANY = 120_000
"""Samples of 192 bytes, 92 MB as float32."""


@pytest.mark.slow
def test_many_samples_take_no_more_memory_than_few(shared_folder: SharedFolder, tmp_path: Path) -> None:
    seed = str(damaged_seed(shared_folder, "bn").path)
    peaks = {}
    for count in (600, MANY):
        pictures = data(600)
        x = np.resize((pictures["x"] * 30 + 128).clip(0, 255).astype(np.uint8), (count, 3, 8, 8))
        np.savez(tmp_path / f"{count}.npz", x=x, labels=np.resize(pictures["labels"], count))
        options = ["--mode", "small", "--steps", "3", "--threads", "1", "--json"]
        shown = seed_run(seed, "--fine-tune", str(tmp_path / f"{count}.npz"), *options)
        peaks[count] = json.loads(shown.stdout)["peak_rss_mib"]
    # Rows of labels, what is drawn of them, and up to 512 samples at once.
    assert peaks[MANY] < peaks[600] + 16
