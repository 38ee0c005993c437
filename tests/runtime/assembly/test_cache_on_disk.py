"""When a model of the cache is on the disk, and who may use it before."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

import seed_runtime
from seed_runtime.assembly.assemble import assemble_into
from seed_runtime.assembly.cache import ModelCache
from seed_runtime.errors import CacheSpaceError, DiskSpaceError, InputError
from seed_runtime.format.header import Header
from seed_runtime.session import Session
from tests.support.described_models import color_seed
from tests.support.seed_builder import build_seed, decoded_weights

SEED, WEIGHTS = build_seed(streams=("raw",)), decoded_weights(["raw"])
PLENTY = 1 << 30


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@contextmanager
def held(root: Path, *, lasting: bool = True, sync_beside: bool = True) -> Iterator[Path]:
    """Use the model within the block; with `sync_beside` it may not be on the disk yet."""
    seed = seed_runtime.open(io.BytesIO(SEED))

    def make(part: Path) -> None:
        with seed._reader() as reader:
            assemble_into(reader, part)

    cache = ModelCache(root, PLENTY, lasting=lasting)
    with cache.hold(seed.digest, seed.header, make, lambda: None, sync_beside=sync_beside) as folder:
        yield folder


def test_a_model_that_a_power_cut_may_have_cut_is_made_again(root: Path) -> None:
    with held(root, sync_beside=False) as folder:
        assert (folder / "synced").exists()
    (folder / "model.weights").write_bytes(bytes(len(WEIGHTS)))
    (folder / "synced").unlink()
    with held(root):
        assert (folder / "model.weights").read_bytes() == WEIGHTS
    assert (folder / "synced").exists()


def test_a_model_can_be_used_before_it_is_on_the_disk_but_by_no_other_process(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seed_runtime.assembly.cache._FLUSH_AFTER_S", 0)
    flush, waited = threading.Event(), threading.Event()
    seed = seed_runtime.open(io.BytesIO(SEED))
    monkeypatch.setattr("seed_runtime.assembly.cache.sync_assembled", lambda folder, header: flush.wait())

    def never(part: Path) -> None:
        raise AssertionError("it is made twice")

    def use_it_as_well() -> None:
        with ModelCache(root, PLENTY).hold(seed.digest, seed.header, never, waited.set) as folder:
            assert (folder / "synced").exists()

    with ThreadPoolExecutor(1) as others, held(root) as folder:
        assert (folder / "model.weights").read_bytes() == WEIGHTS
        assert not (folder / "synced").exists()
        other = others.submit(use_it_as_well)
        assert waited.wait(30)
        assert not other.done()
        flush.set()
        other.result(30)
    assert (folder / "synced").exists()


def test_a_disk_that_turns_out_to_be_full_is_told_when_the_block_ends(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path, header: Header) -> None:
        raise DiskSpaceError(str(folder), 2, 1)

    monkeypatch.setattr("seed_runtime.assembly.cache.sync_assembled", full)
    used = []
    with pytest.raises(CacheSpaceError), held(root) as folder:
        used.append((folder / "model.weights").read_bytes())
    assert used == [WEIGHTS]
    monkeypatch.undo()
    assert not (folder / "synced").exists()
    with held(root):
        assert (folder / "model.weights").read_bytes() == WEIGHTS
    assert (folder / "synced").exists()


def test_a_cache_that_this_process_removes_is_not_flushed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    with held(root, lasting=False) as folder:
        assert (folder / "model.weights").read_bytes() == WEIGHTS
    assert not flushed
    with held(root.with_name("other")):
        pass
    assert flushed


def opened(cache: ModelCache) -> Session:
    return seed_runtime.open(io.BytesIO(color_seed())).session(cache=cache)


def test_an_error_of_the_block_is_not_hidden_by_a_full_disk(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path, header: Header) -> None:
        raise DiskSpaceError(str(folder), 2, 1)

    monkeypatch.setattr("seed_runtime.assembly.cache.sync_assembled", full)
    cache = ModelCache(root, PLENTY)
    with pytest.raises(InputError, match="no photo"), opened(cache):
        raise InputError("no photo")
    with pytest.raises(CacheSpaceError), opened(cache):
        pass
