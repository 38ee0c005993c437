"""A size that was asked for is kept and used by the seed that is built, whatever was estimated before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seed_exporter.build import draft
from tests.exporter.support.exporting import layers, quick_export


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_a_goal_is_kept_and_used_whatever_was_estimated(
    factor: float, rng: np.random.Generator, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimate = draft.estimate_size
    monkeypatch.setattr(draft, "estimate_size", lambda *arguments: int(factor * estimate(*arguments)))
    result = quick_export(layers(rng, 128, 256, 128), output, size=50_000)
    assert result.goal_met
    assert 0.98 * 50_000 <= output.stat().st_size <= 50_000


def test_a_seed_is_built_once_where_its_size_was_estimated_rightly(
    rng: np.random.Generator, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[int] = []
    build = draft.build

    def counted(*arguments: Any) -> draft.SeedDraft:
        made = build(*arguments)
        built.append(made.size)
        return made

    monkeypatch.setattr(draft, "build", counted)
    quick_export(layers(rng, 128, 256, 128), output, size=50_000)
    assert len(built) == 1
