"""`seed-export archive` loses nothing: seeds alone decide what it removes, and only where all of them are whole."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seed_exporter.archive import Archive, links
from seed_exporter.archive import archive as module
from seed_exporter.archive.links import INDEX, SEEDS
from seed_exporter.archive.weights import LATEST
from seed_exporter.loaders import load, state_dict
from seed_runtime.errors import DamagedArchiveError, UsageError
from tests.exporter.support.archives import Run, filled, names, same, seed_of
from tests.exporter.support.command import Ran

pytestmark = pytest.mark.usefixtures("without_measured_memory")


def files(folder: Path) -> set[str]:
    return set(os.listdir(folder / SEEDS))


def damage(path: Path) -> None:
    """Change the last byte, which is one of the weights; the header stays as it is."""
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def test_a_rule_that_is_applied_after_each_addition_keeps_every_nth(folder: Path, run: Run) -> None:
    paths = run.checkpoints(5)
    archive = Archive.create(folder)
    for path in paths:
        # Of a new process each time, and the index is lost.
        (folder / INDEX).unlink(missing_ok=True)
        archive = Archive(folder)
        with archive.writing():
            archive.add(path.stem, load(path), jobs=1)
            archive.prune(lambda found: [link for link in found if not (link.number - 1) % 2])
    assert names(archive) == ["step-0", "step-2", "step-4"]
    assert [link.number for link in archive.checkpoints] == [1, 3, 5]
    assert same(archive, run)


def test_other_checkpoints_with_equal_numbers_are_both_kept(folder: Path, run: Run, tmp_path: Path) -> None:
    """Two archives that were copied together: each counts from 1 on."""
    other = Run(tmp_path / "other", np.random.default_rng(9))
    filled(folder, run, 2)
    second = Archive.create(tmp_path / "second")
    with second.writing():
        for path in other.checkpoints(2):
            second.add(f"other-{path.stem}", load(path), jobs=1)
    for path in (tmp_path / "second" / SEEDS).iterdir():
        (folder / SEEDS / path.name).write_bytes(path.read_bytes())
    archive, before = Archive(folder), files(folder)
    with archive.writing():
        pass
    assert sorted(names(archive)) == ["other-step-0", "other-step-1", "step-0", "step-1"]
    assert files(folder) == before


def test_two_checkpoints_of_one_name_are_listed_and_neither_is_restored(folder: Path, run: Run, tmp_path: Path) -> None:
    other = Run(tmp_path / "other", np.random.default_rng(9))
    filled(folder, run, 1)
    filled(tmp_path / "second", other, 1)
    for path in (tmp_path / "second" / SEEDS).iterdir():
        (folder / SEEDS / path.name).write_bytes(path.read_bytes())
    archive = Archive(folder)
    with archive.writing():
        pass
    assert names(archive) == ["step-0", "step-0"]
    with pytest.raises(UsageError, match="2 checkpoints step-0"):
        archive.find("step-0")


def test_a_checkpoint_that_a_kill_left_twice_is_one_again(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = filled(folder, run, 3)
    with archive.writing():
        # Coded again, and killed before the old seed is one that only others need.
        monkeypatch.setattr(module, "sync_folder", stop_after(module.sync_folder, 1))
        with pytest.raises(KeyboardInterrupt):
            archive.prune(lambda found: found[1:])
    monkeypatch.undo()
    archive = Archive(folder)
    assert names(archive) == ["step-0", "step-1", "step-2"]
    with archive.writing():
        pass
    assert names(archive) == ["step-0", "step-1", "step-2"]
    assert same(archive, run)
    assert len(files(folder)) == len(archive.chains.links)


def stop_after(call: Any, count: int) -> Any:
    left = [count]

    def stopping(*arguments: Any) -> Any:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return call(*arguments)

    return stopping


def test_a_second_seed_stays_where_the_chosen_one_is_damaged(folder: Path, run: Run) -> None:
    archive = filled(folder, run, 2)
    key, last = (seed_of(folder, name) for name in ("step-0", "step-1"))
    copy = key.with_suffix(".base")
    copy.write_bytes(key.read_bytes())
    damage(key)
    with archive.writing():
        pass
    assert copy.exists()
    key.write_bytes(copy.read_bytes())
    with archive.writing():
        pass
    assert files(folder) == {key.name, last.name}
    assert same(Archive(folder), run)


def test_seeds_of_one_checkpoint_are_told_by_their_tensors(folder: Path, run: Run, tmp_path: Path) -> None:
    from seed_exporter.archive import checkpoints

    chain, keys = filled(folder, run, 2), filled(tmp_path / "keys", run, 2, chain=0)
    first, second = (chain.decoded(link) for link in chain.checkpoints)
    key = keys.decoded(keys.checkpoints[1])
    assert checkpoints.same(second, key)
    assert not checkpoints.same(first, key)


def test_an_index_that_lies_decides_nothing(folder: Path, run: Run) -> None:
    filled(folder, run, 3, chain=1)
    before = files(folder)
    index = json.loads((folder / INDEX).read_bytes())
    for row in index["seeds"]:
        row.update(number=1, name="step-0", base=None, depth=0)
    (folder / INDEX).write_text(json.dumps(index))
    archive = Archive(folder)
    with archive.writing():
        archive.prune(lambda found: found)
    assert files(folder) == before
    assert names(archive) == ["step-0", "step-1", "step-2"]
    assert same(archive, run)


def test_nothing_is_removed_while_a_file_is_damaged_or_missing(folder: Path, run: Run) -> None:
    archive = filled(folder, run, 4)
    with archive.writing():
        archive.prune(lambda found: [found[0], found[2], found[3]])
    middle = seed_of(folder, "step-2")
    data = middle.read_bytes()
    for spoil in (lambda: middle.write_bytes(data[:90]), middle.unlink):
        spoil()
        before, archive = files(folder), Archive(folder)
        with archive.writing(), pytest.raises(DamagedArchiveError):
            archive.prune(lambda found: found[:1])
        with pytest.raises(UsageError, match="has a checkpoint step-3 already"):
            archive.check_name("step-3")
        assert files(folder) == before
        middle.write_bytes(data)
    assert same(Archive(folder), run)


def test_a_file_that_cannot_be_read_is_no_damaged_one(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = filled(folder, run, 2)
    before = files(folder)

    class Failing(links.SeedReader):
        def __init__(self, *arguments: Any) -> None:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(links, "SeedReader", Failing)
    with pytest.raises(OSError, match="Input/output"), archive.writing():
        pass
    assert files(folder) == before


def test_verify_reads_the_seeds_and_not_what_is_decoded_already(folder: Path, run: Run) -> None:
    archive = filled(folder, run, 2)
    assert (folder / LATEST).is_dir()
    damage(seed_of(folder, "step-1"))
    assert [name for name, _ in archive.verify()] == ["step-1"]
    assert [name for name, _ in Archive(folder).verify()] == ["step-1"]


def test_a_checkpoint_is_not_coded_on_a_damaged_file(folder: Path, run: Run) -> None:
    archive = filled(folder, run, 2)
    damage(seed_of(folder, "step-1"))
    with archive.writing():
        assert archive.add("step-2", load(run.checkpoints(3)[2]), jobs=1).base == "step-0"
    damage(seed_of(folder, "step-0"))
    damage(seed_of(folder, "step-2"))
    with archive.writing():
        assert archive.add("step-3", load(run.checkpoints(4)[3]), jobs=1).base is None


@pytest.mark.parametrize("where", ["folder", "part", "weights"])
def test_links_in_the_place_of_decoded_weights_lead_nowhere(folder: Path, run: Run, tmp_path: Path, where: str) -> None:
    archive = filled(folder, run, 1)
    target = tmp_path / "target"
    target.mkdir()
    for name in ("a", "b", "c", "part", "0" * 64):
        (target / name).write_text("mine")
    latest = folder / LATEST
    if where == "folder":
        (latest / archive.checkpoints[0].digest).unlink()
        latest.rmdir()
        latest.symlink_to(target)
        with pytest.raises(UsageError, match="remove it"), archive.writing():
            pass
    else:
        (latest / ("part" if where == "part" else archive.checkpoints[0].digest)).unlink(missing_ok=True)
        (latest / ("part" if where == "part" else archive.checkpoints[0].digest)).symlink_to(target / "a")
        (latest / "notes").write_text("mine")
        archive = Archive(folder)
        with archive.writing():
            for path in run.checkpoints(4)[1:]:
                archive.add(path.stem, load(path), jobs=1)
        assert (latest / "notes").read_text() == "mine"
    assert all((target / name).read_text() == "mine" for name in ("a", "b", "c", "part", "0" * 64))
    assert same(Archive(folder), run)


def test_an_addition_has_succeeded_once_its_seed_is_there(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = filled(folder, run, 1)

    def full(*arguments: Any, **options: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    with archive.writing():
        monkeypatch.setattr(os, "replace", only_within(SEEDS, os.replace, full))
        assert archive.add("step-1", load(run.checkpoints(2)[1]), jobs=1).link.number == 2
    monkeypatch.undo()
    assert not (folder / LATEST / "part").exists()
    assert same(Archive(folder), run)


def only_within(part: str, call: Any, other: Any) -> Any:
    return lambda source, target, **options: (call if part in str(target) else other)(source, target, **options)


def test_a_full_disk_can_be_pruned(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = filled(folder, run, 5)

    def full(*arguments: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    with archive.writing(), monkeypatch.context() as patch:
        patch.setattr(archive, "_put", full)
        pruned = archive.prune(lambda found: [found[0], found[1]])
        assert (pruned.removed, pruned.recoded) == (["step-2", "step-3", "step-4"], [])
        assert os.listdir(folder / LATEST) == []
        assert pruned.after < pruned.before
        pruned = archive.prune(lambda found: found[1:])
        assert (pruned.recoded, names(archive)) == ([], ["step-1"])
    assert same(Archive(folder), run)


def test_verify_goes_on_where_a_prune_moved_seeds(folder: Path, run: Run) -> None:
    filled(folder, run, 4)
    reader, writer = Archive(folder), Archive(folder)
    with writer.writing():
        writer.prune(lambda found: found[2:])
    assert reader.verify() == []
    assert reader.bytes == writer.bytes


def test_a_file_that_goes_while_it_is_listed_is_no_damaged_one(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(folder, run, 1)
    there = list(links.files_of(folder))
    monkeypatch.setattr(links, "files_of", lambda folder: iter([*there, ("0" * 64, ".seed")]))
    archive = Archive(folder)
    assert (names(archive), archive.chains.damaged) == (["step-0"], [])
    assert archive.bytes == archive.checkpoints[0].bytes


def test_a_dry_prune_writes_nothing(folder: Path, run: Run, capfd: Any) -> None:
    filled(folder, run, 3)
    (folder / SEEDS / ".seed-1.part").write_text("left by a kill")
    (folder / INDEX).unlink()
    (folder / "lock").unlink()
    before = sorted(folder.rglob("*"))
    assert "2 checkpoints would be removed" in Ran(capfd, "archive", folder, "prune", "--last", "1", "--dry-run").out
    assert sorted(folder.rglob("*")) == before


def test_a_seed_that_would_be_restored_otherwise_is_not_added(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from seed_exporter.archive import checkpoints
    from seed_runtime.errors import SeedError

    archive = filled(folder, run, 1)
    before = files(folder)
    monkeypatch.setattr(checkpoints, "restore_names", lambda model, holes: swap(model))
    with archive.writing(), pytest.raises(SeedError, match="restored otherwise"):
        archive.add("step-1", load(run.checkpoints(2)[1]), jobs=1)
    assert files(folder) == before


def swap(model: Any) -> None:
    """Give two weights each other's name, and all their own ones."""
    for tensor, name in zip(model.graph.initializer, ("w1", "w0", "w2", "b0", "b1", "b2"), strict=False):
        tensor.name = name


def tensor(number: int) -> tuple[str, tuple[int, ...], bytes]:
    values = np.random.default_rng(number).standard_normal(400).astype(np.float32)
    return "float32", (20, 20), values.tobytes()


@pytest.mark.parametrize(
    "tensors",
    [
        {"a": tensor(0), "tensor:a": tensor(1)},
        {"0": tensor(0), "tensor:0": tensor(1)},
        {"tensor:0": tensor(0), "0": tensor(1), "tensor::0": tensor(2)},
        {"1": tensor(0), "0": tensor(1), "2": tensor(0)},
    ],
)
def test_tensors_are_restored_whatever_their_keys(folder: Path, tensors: dict[str, Any]) -> None:
    from seed_exporter.archive import checkpoints

    archive = Archive.create(folder)
    changed = {**tensors, "0": tensor(7)}
    with archive.writing():
        archive.add("first", state_dict.graph_of(tensors), jobs=1)
        archive.add("second", state_dict.graph_of(changed), jobs=1)
    archive = Archive(folder)
    assert checkpoints.tensors_of(archive.decoded(archive.find("first"))) == tensors
    assert checkpoints.tensors_of(archive.decoded(archive.find("second"))) == changed
