"""A training run, and the folder of its archive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.exporter.support.archives import Run


@pytest.fixture
def run(tmp_path: Path, rng: np.random.Generator) -> Run:
    """Return a training run whose checkpoints are written on demand."""
    return Run(tmp_path / "run", rng)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "archive"
