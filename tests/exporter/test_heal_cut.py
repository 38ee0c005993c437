"""What healing leaves dead is cut: the model is smaller, computes the same, and is as large as was predicted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import seed_runtime
from seed_exporter.build.streams import restored
from seed_exporter.evaluate.model_files import write_model_files
from seed_exporter.evaluate.run import run_all
from seed_exporter.graph.model import Graph
from seed_exporter.records import Planned, Work
from seed_exporter.results import Source
from seed_exporter.stages import front_size
from seed_exporter.stages import healing as stage
from tests.exporter.support.block_models import image_model, text_model
from tests.exporter.support.exporting import quick_export
from tests.exporter.support.pruned_models import Builder, whole

pytestmark = pytest.mark.slow


def image(b: Builder) -> np.ndarray:
    return b.rng.standard_normal((120, 1, 3, 16, 16)).astype(np.float32)


def text(b: Builder) -> np.ndarray:
    # Most tokens of the table are rare or missing, as in any text.
    return b.rng.choice(400, (160, 1, 12), p=(share := np.arange(1, 401) ** -2.0) / share.sum()).astype(np.float32)


def healed(
    inputs: Callable[[Builder], np.ndarray], size: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Any, Planned, dict[str, np.ndarray]]:
    """Heal a model; return the result, what was planned before the cut, and inputs for a call."""
    b = Builder(x=("n", 3, 16, 16)) if inputs is image else Builder(ids=("n", 12))
    graph = b.graph(image_model(b, norms=True) if inputs is image else text_model(b))
    data = inputs(b)
    name = "x" if inputs is image else "ids"
    np.savez(folder / "data.npz", **{name: data})
    held = []
    cut = stage.cut_healed
    monkeypatch.setattr(stage, "cut_healed", lambda planned, *rest: held.append(planned) or cut(planned, *rest))
    result = quick_export(whole(graph), folder / "m.seed", heal=folder / "data.npz", size=size, jobs=1)
    return result, held[0], {name: data[:8, 0]}


@pytest.fixture
def reserved(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the bytes that healings keep free for golden sample and footprint."""
    found: list[int] = []
    compute = front_size.front_bytes
    monkeypatch.setattr(front_size, "front_bytes", lambda *of: found.append(compute(*of)) or found[-1])
    return found


def streams_written(result: Any, seed: Path) -> int:
    """Return the size of a seed without golden sample and footprint [B]."""
    header = seed_runtime.open(seed).header
    sections = [section for section in (header.golden, header.footprint) if section is not None]
    return result.bytes - sum(front_size.SECTION_BYTES + len(section) for section in sections)


@pytest.mark.parametrize(("inputs", "size", "left"), [(image, 1650, 0.9), (text, 2100, 0.9)])
def test_a_healed_model_is_cut_and_computes_what_was_trained(
    inputs: Callable[[Builder], np.ndarray],
    size: int,
    left: float,
    tmp_path: Path,
    short_healing: Callable[..., Any],
    reserved: list[int],
    monkeypatch: pytest.MonkeyPatch,
):
    short_healing(steps=120, batch=8, looks=5)
    measured: list[int] = []

    def measure(graph: Graph, source: Source, work: Work) -> None:
        measured.append((work.subfolder("assembled") / "model.weights").stat().st_size)

    monkeypatch.setattr(stage, "measure_memory", measure)
    result, trained, feed = healed(inputs, size, tmp_path, monkeypatch)
    assert result.shrinkage is not None
    assert result.shrinkage.weights[1] < left * result.shrinkage.weights[0]
    assert any("times fewer multiply-adds" in note for note in result.notes)

    assert result.goal_met
    best = min((look for look in result.healing if look.size <= size), key=lambda look: look.damage)
    assert streams_written(result, tmp_path / "m.seed") == pytest.approx(best.size - reserved[0], rel=0.01)
    # The memory of the model that was cut, which nothing before it needs.
    assert measured == [seed_runtime.open(tmp_path / "m.seed").header.weights.size]

    seed = seed_runtime.open(tmp_path / "m.seed")
    seed.check()
    folder = tmp_path / "trained"
    folder.mkdir()
    write_model_files(trained.graph, folder, lambda weight: restored(weight, trained.plans[weight.name]))
    (expected,) = run_all(folder, [feed])
    with seed.session() as session:
        assert session.verify().present
        assert session.verify().ok
        for name, found in session.run(feed).items():
            error = np.sqrt(np.mean((found - expected[name]) ** 2) / np.mean(expected[name] ** 2))
            assert error <= 1e-5


def test_biases_that_stay_in_the_graph_are_as_they_were_trained_in_the_size_that_is_predicted(
    tmp_path: Path, short_healing: Callable[..., Any], reserved: list[int], without_measured_memory: None
):
    """Fewer than 16 channels have biases of less than 64 bytes, which are no weights."""
    short_healing(steps=120, batch=8, looks=5)
    b = Builder(x=("n", 3, 16, 16))
    value, into = "x", 3
    for index in range(4):
        parts = [b.constant(b.rng.uniform(0.5, 1.5, 14).astype(np.float32)) for _ in range(4)]
        value, into = b.conv(value, f"{index}", 14, into, 3), 14
        value = b.node("Relu", b.node("BatchNormalization", value, *parts))
    graph = b.graph(b.node("Gemm", b.node("Flatten", b.node("GlobalAveragePool", value)), b.weight("fc", 14, 9)))
    np.savez(tmp_path / "data.npz", x=image(b))
    result = quick_export(whole(graph), tmp_path / "m.seed", heal=tmp_path / "data.npz", size=1500, jobs=1)
    best = min((look for look in result.healing if look.size <= 1500), key=lambda look: look.damage)
    assert streams_written(result, tmp_path / "m.seed") == pytest.approx(best.size - reserved[0], rel=0.01)
