"""What the tests of signatures share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.signing import trusted_key


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """Return a key whose seeds this machine accepts."""
    return trusted_key(tmp_path)
