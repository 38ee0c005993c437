"""Streams and skeleton as one seed: its size before it is written, its assembled model, its file."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

import seed_runtime
from seed_exporter import loaders
from seed_exporter.build import draft
from seed_exporter.build.streams import encode
from seed_runtime.errors import DigestError
from seed_runtime.skeletons.onnx import MODEL_FILE, WEIGHTS_FILE
from tests.exporter.support.exporting import NOBODY, graph_of, layers, uniform


@pytest.fixture
def seed(rng: np.random.Generator) -> draft.SeedDraft:
    graph = loaders.load(layers(rng, 24, 64, 32))
    return draft.build(graph, encode(graph, uniform(graph, 0.1, 10), jobs=1), NOBODY)


def test_the_size_is_known_before_the_file_is_written(seed: draft.SeedDraft, tmp_path: Path) -> None:
    path = tmp_path / "model.seed"
    assert seed.write(path) == seed.size == path.stat().st_size


def test_assembling_gives_what_a_device_assembles(seed: draft.SeedDraft, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    assembled = seed.assemble(ours)
    assembled.write(tmp_path / "model.seed")
    seed_runtime.open(tmp_path / "model.seed").assemble(theirs)
    for name in (MODEL_FILE, WEIGHTS_FILE):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()


def test_a_seed_that_was_never_assembled_has_no_digest_and_is_refused(seed: draft.SeedDraft, tmp_path: Path) -> None:
    seed.write(tmp_path / "model.seed")
    with pytest.raises(DigestError):
        seed_runtime.open(tmp_path / "model.seed").check()


def test_overhead_stays_within_four_kilobytes(seed: draft.SeedDraft) -> None:
    coded = sum(stream.size for stream in seed.streams)
    assert seed.size - coded - sum(map(len, seed.parts)) <= 4096


def test_the_header_says_what_the_streams_fill(seed: draft.SeedDraft) -> None:
    header = seed.header
    assert sum(stream.holes for stream in header.streams) == len(header.holes) == 4
    assert [hole.offset % 64 for hole in header.holes] == [0] * 4
    assert header.weights.working_bytes > 0
    assert header.weights.size == header.holes[-1].offset + header.holes[-1].size
    sources = [name for stream in seed.streams for name in stream.names]
    assert [hole.name_digest for hole in header.holes] == [sha256(name.encode()).digest()[:3] for name in sources]


@pytest.mark.usefixtures("threads_for_small_models")
def test_the_same_weights_give_the_same_bytes(rng: np.random.Generator, tmp_path: Path) -> None:
    array = rng.standard_normal((60, 60)).astype(np.float32)
    files = []
    for jobs in (1, 2):
        graph = graph_of(a=array, b=array[:30] * 2)
        built = draft.build(graph, encode(graph, uniform(graph, 0.1, 10), jobs=jobs), NOBODY)
        built.assemble(tmp_path).write(tmp_path / "model.seed")
        files.append((tmp_path / "model.seed").read_bytes())
    assert files[0] == files[1]


def test_a_model_without_weights_is_a_seed_without_streams(tmp_path: Path) -> None:
    graph = graph_of()
    built = draft.build(graph, [], NOBODY).assemble(tmp_path)
    replace(built, header=built.header).write(tmp_path / "model.seed")
    opened = seed_runtime.open(tmp_path / "model.seed")
    opened.check()
    assert (opened.header.holes, opened.header.streams, opened.header.weights.size) == ((), (), 0)
