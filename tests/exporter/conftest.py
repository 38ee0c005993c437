"""Fixtures that several tests of the exporter use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from seed_exporter.build import streams
from seed_exporter.evaluate import footprint
from tests.exporter.support.exporting import layers


@pytest.fixture
def without_measured_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure no memory in exports of this process: that starts nine other processes, and has tests of its own."""
    monkeypatch.setattr(footprint, "measure", lambda *_, **__: None)


@pytest.fixture
def all_sizes_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure memory at all sizes, however busy this machine is: in `TIME_S` it may get to the small ones only."""
    monkeypatch.setattr(footprint, "TIME_S", 600)


@pytest.fixture
def threads_for_small_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plan and code models of any size in as many threads as there are jobs; small ones have one otherwise."""
    monkeypatch.setattr(streams, "ONE_THREAD_MAX", 0)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Return a path for a seed, where nothing is yet."""
    return tmp_path / "model.seed"


@pytest.fixture
def model_file(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Write a model of two dense layers, x: [batch, 48] -> y: [batch, 64], and return its path."""
    path = tmp_path / "model.onnx"
    onnx.save(layers(rng, 48, 96, 64), path)
    return path


@pytest.fixture
def model(rng: np.random.Generator) -> onnx.ModelProto:
    """Return a model of three dense layers, x: [batch, 48] -> y: [batch, 20]."""
    return layers(rng, 48, 96, 96, 20)


@pytest.fixture
def short_healing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Give a function that sets how long healing takes, in one thread, and returns the room's module."""
    no_torch = {"exc_type": ImportError}
    torch = pytest.importorskip("torch", **no_torch)
    healing = pytest.importorskip("seed_exporter.heal.healing", **no_torch)
    settings, threads = healing.HealSettings, torch.get_num_threads()

    def shorten(**chosen: int) -> Any:
        monkeypatch.setattr(healing, "HealSettings", lambda: settings(**chosen))
        return healing

    torch.set_num_threads(1)
    yield shorten
    torch.set_num_threads(threads)
