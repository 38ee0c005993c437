"""Run by `dask worker --preload`: what QUICK says in place of seed-export. Holds no tests."""

from __future__ import annotations

from typing import Any

from seed_exporter.batch import worker
from tests.exporter.support.batches import QUICK


def dask_setup(_: Any) -> None:
    """Measure no memory in the jobs of this worker."""
    worker._COMMAND[:] = QUICK
