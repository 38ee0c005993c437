"""A session needs golden bytes, a plan and a folder; it knows no seed."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

import seed_runtime
from seed_runtime.assembly.cache import ModelCache
from seed_runtime.backends import Array, Feeds, TensorSpec
from seed_runtime.backends.tensors import check_feeds
from seed_runtime.backends.workers import Watch
from seed_runtime.errors import InputError, MemoryBudgetError
from seed_runtime.memory.footprint import Footprint, ModeFootprint
from seed_runtime.memory.plan import Plan, SessionPlan
from seed_runtime.session import Session
from tests.support.model_seeds import DETECTOR_METADATA, FEATURES, classifier, detector

X = TensorSpec("x", "float32", ("n",))
FOOTPRINT = Footprint((("x", 0),), ((1,), (8,)), (ModeFootprint("fast", 1, 0, (1, 16)),))


class Doubler:
    """A runner and its backend in one, which returns twice its input."""

    name, modes, inputs, outputs = "doubler", ("fast",), (X,), (X,)
    optional_inputs: tuple[TensorSpec, ...] = ()

    def __init__(self) -> None:
        self.opened: list[tuple[Path, str, int | None]] = []
        self.closed = 0
        self.metadata = {"k": "v"}

    def available(self) -> bool:
        return True

    def import_bytes(self) -> int:
        return 0

    def load(self) -> None:
        pass

    def open(self, folder: Path, mode: str, threads: int | None = None, *, watch: Watch | None = None) -> Doubler:
        self.opened.append((folder, mode, threads))
        return self

    def check(self, feeds: Feeds, made: Collection[str] = ()) -> None:
        check_feeds(self.inputs, feeds, made=made)

    def run(
        self, feeds: Feeds, outputs: Sequence[str] | None = None, *, watch: Watch | None = None
    ) -> dict[str, Array]:
        return {"x": 2 * feeds["x"]}

    def close(self) -> None:
        self.closed += 1


@contextlib.contextmanager
def folder_of(path: Path, log: list[str]) -> Iterator[Path]:
    log.append("held")
    yield path
    log.append("released")


def plan(limit: int | None = None, footprint: Footprint | None = FOOTPRINT) -> SessionPlan:
    return SessionPlan(5 << 20, limit, "fast", 3, footprint, 1 << 20)


def test_a_session_holds_its_folder_until_it_is_closed(tmp_path: Path) -> None:
    engine, log = Doubler(), list[str]()
    with Session(engine, plan(), Plan(7 << 20, None), folder_of(tmp_path, log)) as session:
        assert engine.opened == [(tmp_path, "fast", 3)]
        assert session.run({"x": np.ones(2, np.float32)})["x"].tolist() == [2, 2]
        assert (session.inputs, session.outputs, session.needed_bytes) == ((X,), (X,), 7 << 20)
        assert log == ["held"]
    session.close()
    assert (log, engine.closed) == (["held", "released"], 1)


def test_a_backend_that_can_not_open_the_model_releases_the_folder(tmp_path: Path) -> None:
    class Broken(Doubler):
        def open(self, *_: object, **__: object) -> Doubler:
            raise InputError("no such model")

    log: list[str] = []
    with pytest.raises(InputError, match="no such model"):
        Session(Broken(), plan(), Plan(None, None), folder_of(tmp_path, log))
    assert log[0] == "held"


def test_an_input_that_is_larger_than_planned_is_refused_before_it_runs(tmp_path: Path) -> None:
    with Session(Doubler(), plan(limit=1 << 20), Plan(1, 1), folder_of(tmp_path, [])) as session:
        with pytest.raises(MemoryBudgetError, match="this input"):
            session.run({"x": np.ones(8, np.float32)})
        with pytest.raises(InputError, match="expected"):
            session.run({"x": np.ones(8, np.int64)})


def test_a_session_without_a_sample_or_a_footprint_runs_and_says_so(tmp_path: Path) -> None:
    with Session(Doubler(), plan(footprint=None), Plan(None, None), folder_of(tmp_path, [])) as session:
        assert session.run({"x": np.ones(9, np.float32)})["x"].size == 9
        assert session.needed_bytes is None
        verdict = session.verify()
    assert (verdict.present, verdict.ok) == (False, True)


def test_metadata_can_be_read_from_the_seed_and_from_its_session(tmp_path: Path) -> None:
    path = tmp_path / "detector.seed"
    path.write_bytes(detector())
    seed = seed_runtime.open(path)
    assert seed.metadata() == DETECTOR_METADATA
    with seed.session(cache=ModelCache(tmp_path / "cache", 1 << 30)) as session:
        assert session.metadata == DETECTOR_METADATA


def test_a_seed_reads_its_skeleton_once_however_often_it_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "detector.seed"
    path.write_bytes(detector())
    seed = seed_runtime.open(path)
    inputs = seed.inputs()
    monkeypatch.setattr(type(seed), "skeleton_bytes", lambda self: pytest.fail("it was read again"))
    assert seed.inputs() == inputs
    assert seed.metadata() == DETECTOR_METADATA


def test_outputs_are_written_into_arrays_by_any_runner(tmp_path: Path) -> None:
    with Session(Doubler(), plan(), Plan(None, None), folder_of(tmp_path, [])) as session:
        feeds, into = {"x": np.ones(2, np.float32)}, np.zeros(2, np.float32)
        assert session.run_into(feeds, {"x": into}, []) == {}
        assert into.tolist() == [2, 2]
        with pytest.raises(InputError, match=r"has the shape \[2\], not \[3\]"):
            session.run_into(feeds, {"x": np.zeros(3, np.float32)}, [])


def test_onnx_runtime_writes_outputs_into_arrays_and_returns_others(tmp_path: Path) -> None:
    path = tmp_path / "classifier.seed"
    path.write_bytes(classifier())
    x = np.ones((2, FEATURES), np.float32)
    with seed_runtime.open(path).session(cache=ModelCache(tmp_path / "cache", 1 << 30)) as session:
        expected = session.run({"x": x})["scores"]
        into = np.zeros_like(expected)
        assert session.run_into({"x": x}, {"scores": into}, []) == {}
        np.testing.assert_array_equal(into, expected)
        np.testing.assert_array_equal(session.run_into({"x": x}, {}, ["scores"])["scores"], expected)
        with pytest.raises(InputError, match="can't run on x"):
            session.run_into({"x": x}, {"scores": np.zeros((3, expected.shape[1]), np.float32)}, [])
        with pytest.raises(InputError, match="no output 'y'"):
            session.run_into({"x": x}, {"y": into}, [])
