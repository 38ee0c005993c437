"""Fixtures that the tests of `seed-run` share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.model_seeds import classifier


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    """Write the seed of a small classifier and return its path."""
    path = tmp_path / "model.seed"
    path.write_bytes(classifier())
    return path
