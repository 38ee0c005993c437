"""Public models that `python -m bench.public prepare` left in the cache, each exported once for all tests."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import seed_exporter
from tests.exporter.support.exporting import quick_export
from tests.support.shared import SharedFolder

CACHE = Path(
    os.environ.get("SEED_BENCH_CACHE")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seed-bench"
)
"""The folder of the prepared models, found when this is imported: tests have cache folders of their own."""
WITH_MEMORY = {"magika", "basicpitch", "ppcls", "minilm6"}
"""Models whose sessions are measured as well. For a larger one that takes a minute."""


@dataclass(frozen=True)
class ExportedModel:
    """A public model's seed at the default settings. Tests only read it."""

    seed: Path
    result: dict[str, Any]
    """The exporter's result as `seed-export --json` prints it."""


def tasks() -> Any:
    """Return the module `bench.public`. Skips the test where the packages that its tasks need are missing."""
    return pytest.importorskip(
        "bench.public", reason="the tasks of public models need more packages: pip install 'seed-runtime[bench]'"
    )


def prepared(name: str) -> Path:
    """Return the ONNX file of a public model. Skips the test if it isn't there."""
    path = CACHE / name / "model.onnx"
    if not path.exists():
        pytest.skip(f"{path} is missing; prepare it: python -m bench.public prepare {name}")
    return path


def exported(shared: SharedFolder, name: str) -> ExportedModel:
    """Return a public model exported at the default settings, made by the first test of the run that asks."""
    source = prepared(name)

    def export(folder: Path) -> None:
        if name in WITH_MEMORY:
            options = seed_exporter.Options(model_id=name)
            result = seed_exporter.export(source, output=folder / f"{name}.seed", options=options)
        else:
            result = quick_export(source, folder / f"{name}.seed", model_id=name)
        (folder / "result.json").write_text(json.dumps(result.as_json()))

    folder = shared.made(f"public-{name}", export)
    return ExportedModel(folder / f"{name}.seed", json.loads((folder / "result.json").read_text()))
