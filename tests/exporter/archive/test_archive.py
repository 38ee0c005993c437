"""`seed-export archive`: what is added is restored bit for bit, whatever is pruned, lost, or killed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from seed_exporter.archive import Archive
from seed_exporter.archive.links import INDEX, SEEDS
from seed_exporter.archive.tensor_names import KEY, restore_names
from seed_exporter.loaders import load
from seed_runtime.errors import DamagedArchiveError, FormatError, MissingCheckpointError, UsageError
from seed_runtime.system.locks import BusyError, FileLock
from tests.exporter.support.archives import Run, filled, kill_everywhere, names, same, tensors
from tests.exporter.support.command import Ran, refused

pytestmark = pytest.mark.usefixtures("without_measured_memory")


def test_checkpoints_are_restored_bit_for_bit_from_chains_with_key_seeds(folder: Path, run: Run) -> None:
    archive = filled(folder, run, 7, chain=2)
    assert names(archive) == [f"step-{number}" for number in range(7)]
    assert [link.depth for link in archive.checkpoints] == [0, 1, 2, 0, 1, 2, 0]
    assert same(Archive(folder), run)
    keys = [link.bytes for link in archive.checkpoints if not link.depth]
    assert max(link.bytes for link in archive.checkpoints if link.depth) < 0.8 * min(keys)
    assert archive.verify() == []
    # A seed with the base's graph has nothing of it.
    assert archive.decoded(archive.checkpoints[1]).seed.shares_parts


def test_a_restored_model_gives_the_outputs_of_the_checkpoint(folder: Path, run: Run) -> None:
    import onnxruntime

    filled(folder, run, 2).restore("step-1", run.folder / "again.onnx")
    x = {"x": np.ones((3, 16), np.float32)}
    outputs = [
        onnxruntime.InferenceSession(run.folder / name, providers=["CPUExecutionProvider"]).run(None, x)[0]
        for name in ("again.onnx", "step-1.onnx")
    ]
    assert outputs[0].tobytes() == outputs[1].tobytes()


def test_a_checkpoint_is_coded_on_the_nearer_one_of_the_last_two(folder: Path, run: Run) -> None:
    averaged, other = Run(run.folder / "averaged", np.random.default_rng(5)), run
    archive = Archive.create(folder)
    with archive.writing():
        for a, b in zip(averaged.checkpoints(3), other.checkpoints(3), strict=True):
            archive.add(f"averaged-{a.stem}", load(a), jobs=1)
            archive.add(b.stem, load(b), jobs=1)
    bases = [archive.base_name(link) for link in archive.checkpoints]
    assert bases[2:] == ["averaged-step-0", "step-0", "averaged-step-1", "step-1"]


def test_a_checkpoint_of_another_model_is_a_key_seed(folder: Path, run: Run, model_file: Path) -> None:
    archive = filled(folder, run, 2)
    with archive.writing():
        added = archive.add("other", load(model_file), jobs=1)
    assert (added.base, added.link.depth) == (None, 0)
    assert archive.verify() == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.unlink(),
        lambda path: path.write_text("{"),
        lambda path: path.write_text('{"format": 1, "seeds": []}'),
        lambda path: path.write_text('{"format": 2, "seeds": [{"digest": 3}]}'),
        lambda path: path.write_text("[]"),
        lambda path: path.write_text('{"format": 2, "seeds": [null, 3]}'),
        lambda path: path.write_text("[" * 200_000),
    ],
)
def test_an_index_that_is_lost_or_damaged_is_made_again(folder: Path, run: Run, spoil: Callable[[Path], Any]) -> None:
    before = filled(folder, run, 4).checkpoints
    index = (folder / INDEX).read_bytes()
    spoil(folder / INDEX)
    archive = Archive(folder)
    assert archive.checkpoints == before
    assert same(archive, run, ["step-3"])
    with archive.writing():
        pass
    assert (folder / INDEX).read_bytes() == index


def test_an_index_from_before_the_last_seeds_is_no_obstacle(folder: Path, run: Run) -> None:
    filled(folder, run, 2)
    old = (folder / INDEX).read_bytes()
    archive = Archive(folder)
    with archive.writing():
        archive.add("step-2", load(run.checkpoints(3)[2]), jobs=1)
    (folder / INDEX).write_bytes(old)
    assert names(Archive(folder)) == ["step-0", "step-1", "step-2"]


def test_names_are_of_one_checkpoint_each(folder: Path, run: Run) -> None:
    archive = filled(folder, run, 2)
    graph = load(run.checkpoints(2)[1])
    with archive.writing():
        for name, text in (
            ("step-1", "has a checkpoint step-1 already"),
            ("a\nb", "can't be a name"),
            ("", "can't be"),
        ):
            with pytest.raises(UsageError, match=text):
                archive.add(name, graph, jobs=1)
    assert names(archive) == ["step-0", "step-1"]
    with pytest.raises(UsageError, match="has no checkpoint step-9"):
        archive.find("step-9")


def test_a_second_writer_is_refused_and_readers_are_not(folder: Path, run: Run) -> None:
    archive = filled(folder, run, 2)
    with FileLock(folder / "lock") as lock:
        assert lock.try_acquire()
        with pytest.raises(BusyError, match="another process writes"), archive.writing():
            pass
        assert same(archive, run)


def test_a_prune_leaves_what_it_keeps_with_the_same_weights(folder: Path, run: Run) -> None:
    archive = filled(folder, run, 8, chain=3)
    with archive.writing():
        pruned = archive.prune(lambda found: [link for link in found if link.number in (1, 3, 4, 7, 8)])
    assert pruned.removed == ["step-1", "step-4", "step-5"]
    assert set(pruned.recoded) >= {"step-2", "step-6"}
    assert names(archive) == ["step-0", "step-2", "step-3", "step-6", "step-7"]
    assert pruned.after == sum(path.stat().st_size for path in (folder / SEEDS).iterdir()) < pruned.before
    assert Archive(folder).verify() == []
    assert same(Archive(folder), run)
    numbers = [link.number for link in archive.checkpoints]
    with archive.writing():
        added = archive.add("step-8", load(run.checkpoints(9)[8]), jobs=1)
    assert added.link.number == max(numbers) + 1


def test_a_seed_that_many_others_are_on_top_of_stays_for_them(folder: Path, run: Run) -> None:
    archive = filled(folder, run, 2)
    with archive.writing():
        archive.add("same", load(run.folder / "step-1.onnx"), jobs=1)
        # On top of step-1 it is some hundred bytes, and without it as much as that one.
        pruned = archive.prune(lambda found: [found[0], found[2]])
        assert pruned.removed == ["step-1"]
    assert names(archive) == ["step-0", "same"]
    archive.restore("same", run.folder / "again.onnx")
    assert tensors(run.folder / "again.onnx") == tensors(run.folder / "step-1.onnx")
    with archive.writing():
        # The last one's number is known from its seed.
        assert archive.prune(lambda found: found[:1]).held == 1
    assert len(list((folder / SEEDS).iterdir())) == 2


def test_names_that_other_values_have_in_a_seed_are_restored(folder: Path, tmp_path: Path, model_file: Path) -> None:
    model = onnx.load(model_file)
    # Weights get the first numbers as short names, and values in between the next ones.
    new = {"w0": "5", "b0": "4", "w1": "0"}
    for tensor in model.graph.initializer:
        tensor.name = new.get(tensor.name, tensor.name)
    for node in model.graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]
    onnx.save(model, tmp_path / "named.onnx")
    archive = Archive.create(folder)
    with archive.writing():
        archive.add("named", load(tmp_path / "named.onnx"), jobs=1)
    archive.restore("named", tmp_path / "again.onnx")
    assert tensors(tmp_path / "again.onnx") == tensors(tmp_path / "named.onnx")
    onnx.checker.check_model(tmp_path / "again.onnx", full_check=True)
    assert not onnx.load(tmp_path / "again.onnx").metadata_props


def test_a_prune_needs_something_to_keep_and_a_dry_one_does_nothing(folder: Path, run: Run) -> None:
    archive = filled(folder, run, 3)
    files = sorted((folder / SEEDS).iterdir())
    with archive.writing():
        with pytest.raises(UsageError, match="nothing would be left"):
            archive.prune(lambda found: [])
        assert archive.prune(lambda found: found[2:], dry=True).removed == ["step-0", "step-1"]
    assert sorted((folder / SEEDS).iterdir()) == files


def test_a_reader_finds_what_a_prune_has_coded_again_meanwhile(folder: Path, run: Run) -> None:
    filled(folder, run, 6)
    reader, writer = Archive(folder), Archive(folder)
    with writer.writing():
        writer.prune(lambda found: found[4:])
    for path in (folder / "latest").iterdir():
        path.unlink()
    assert same(reader, run, ["step-5"])


def test_a_damaged_or_missing_seed_is_named_and_the_others_are_whole(folder: Path, run: Run) -> None:
    archive = filled(folder, run, 6, chain=2)
    second, last = archive.checkpoints[1], archive.checkpoints[5]
    path = folder / SEEDS / f"{second.digest}.seed"
    whole = path.read_bytes()
    path.write_bytes(whole[:-20] + bytes(20))
    assert [name for name, _ in Archive(folder).verify()] == ["step-1", "step-2"]
    path.write_bytes(whole[:100])
    (folder / INDEX).unlink()
    faults = dict(Archive(folder).verify())
    assert faults.keys() == {f"{second.digest}.seed", "step-2"}
    with pytest.raises(MissingCheckpointError, match=second.digest[:12]):
        Archive(folder).restore("step-2", run.folder / "out.onnx")
    # A writer removes nothing that may be copied back.
    with archive.writing():
        archive.add("step-6", load(run.checkpoints(7)[6]), jobs=1)
    path.write_bytes(whole)
    assert Archive(folder).verify() == []
    (folder / SEEDS / f"{last.digest}.seed").unlink()
    assert "step-5" not in names(Archive(folder))


def test_a_seed_under_another_ones_name_is_refused(folder: Path, run: Run) -> None:
    archive = filled(folder, run, 2)
    first, second = (folder / SEEDS / f"{link.digest}.seed" for link in archive.checkpoints)
    first.write_bytes(second.read_bytes())
    assert [name for name, _ in Archive(folder).verify()] == [first.name, "step-1"]


def test_weights_beside_the_seeds_are_used_only_where_their_digest_is_right(folder: Path, run: Run) -> None:
    filled(folder, run, 3)
    for path in (folder / "latest").iterdir():
        path.write_bytes(bytes(path.stat().st_size))
    archive = Archive(folder)
    with archive.writing():
        archive.add("step-3", load(run.checkpoints(4)[3]), jobs=1)
    assert same(Archive(folder), run)


def test_only_a_new_folder_becomes_an_archive(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for make in (Archive, Archive.create):
        with pytest.raises(UsageError, match="no archive"):
            make(tmp_path)
    assert os.listdir(tmp_path) == ["notes.txt"]


@pytest.mark.parametrize("text", ["[", "{}", "[3]", '[""]', "[" * 100_000])
def test_names_of_tensors_that_are_none_are_refused(text: str, model: onnx.ModelProto) -> None:
    model.metadata_props.add(key=KEY, value=text)
    with pytest.raises(FormatError, match="no list of names"):
        restore_names(model, [])


def test_a_skeleton_that_names_other_files_is_refused(folder: Path, run: Run) -> None:
    """A seed from elsewhere in an archive: its weights would be read from any place of this machine."""
    archive = filled(folder, run, 1)
    decoded = archive.decoded(archive.checkpoints[0])
    with pytest.MonkeyPatch.context() as patch:
        skeleton = bytes(decoded.seed.skeleton_bytes()).replace(b"model.weights", b"../../weights")
        patch.setattr(type(decoded.seed), "skeleton_bytes", lambda seed: skeleton)
        with pytest.raises(FormatError):
            archive.restore("step-0", run.folder / "out.onnx")
        assert [name for name, _ in archive.verify()] == ["step-0"]
    assert not (run.folder / "out.onnx").exists()


@pytest.mark.slow
def test_a_kill_at_any_point_of_an_add_or_a_prune_leaves_every_checkpoint(folder: Path, run: Run) -> None:
    filled(folder, run, 3)
    points = kill_everywhere(folder, run, add=run.checkpoints(4)[3], kept=("step-0", "step-2"))
    assert min(points.values()) > 5, points


def test_tensors_without_a_graph_are_restored_by_their_names(folder: Path, run: Run) -> None:
    torch = pytest.importorskip("torch", exc_type=ImportError)
    safetensors = pytest.importorskip("safetensors.torch", exc_type=ImportError)
    torch.manual_seed(0)
    weights = {
        "b.weight": torch.randn(40, 30).to(torch.bfloat16), "a.bias": torch.zeros(90), "tied": torch.zeros(90),
        "half": torch.randn(50).half(), "steps": torch.tensor(7), "mask": torch.ones(70, dtype=torch.bool),
        "none": torch.empty(0, 3), "wide": torch.randn(20, dtype=torch.float64),
    }  # fmt: skip
    archive = Archive.create(folder)
    run.folder.mkdir()
    first, second = run.folder / "first.safetensors", run.folder / "second.pt"
    safetensors.save_file(weights, first)
    torch.save({"state_dict": {**weights, "a.bias": torch.full((90,), 0.5)}, "epoch": 3}, second)
    from seed_exporter.archive import checkpoints

    with archive.writing():
        for path in (first, second):
            archive.add(path.stem, checkpoints.load(path, "state_dict" if path == second else None), jobs=1)
    for name, value in (("first", 0.0), ("second", 0.5)):
        for suffix in (".safetensors", ".pt"):
            output = run.folder / f"again{suffix}"
            archive.restore(name, output)
            found = safetensors.load_file(output) if suffix == ".safetensors" else torch.load(output)
            assert found.keys() == weights.keys()
            expected = {**weights, "a.bias": torch.full((90,), value)}
            assert all(torch.equal(found[key], expected[key]) for key in weights)
            assert all(found[key].dtype == expected[key].dtype for key in weights)
    with pytest.raises(UsageError, match="restored as one of"):
        archive.restore("first", run.folder / "first.txt")


def test_files_that_hold_no_tensors_are_refused(folder: Path, tmp_path: Path, capfd: Any) -> None:
    torch = pytest.importorskip("torch", exc_type=ImportError)
    path = tmp_path / "model.pt"
    for made, text in (([1, 2], "no tensors by name"), ({"a": 3}, "no plain tensor"), (Path("x"), "can't be read")):
        torch.save(made, path)
        assert text in refused(capfd, 12, "archive", str(folder), "add", str(path))
    path.write_bytes(b"nothing")
    assert "can't be read" in refused(capfd, 12, "archive", str(folder), "add", str(path))
    assert "check the path" in refused(capfd, 2, "archive", str(folder), "add", str(tmp_path / "none.pt"))


def test_the_commands_print_json_and_lines(folder: Path, run: Run, capfd: Any) -> None:
    paths = [str(path) for path in run.checkpoints(5)]
    added = json.loads(Ran(capfd, "archive", str(folder), "add", *paths[:4], "--json", "--jobs", "1").out)
    assert [row["name"] for row in added["added"]] == ["step-0", "step-1", "step-2", "step-3"]
    assert added["count"] == 4
    assert {row["tensors"] for row in added["added"]} == {6}
    again = json.loads(Ran(capfd, "archive", str(folder), "add", *paths, "--missing", "--json").out)
    assert [row["name"] for row in again["added"]] == ["step-4"]
    assert "already" in refused(capfd, 2, "archive", str(folder), "add", paths[0])
    listed = json.loads(Ran(capfd, "archive", str(folder), "list", "--json").out)
    assert [row["base"] for row in listed["checkpoints"]][:2] == [None, "step-0"]
    assert "step-4" in Ran(capfd, "archive", str(folder), "list").out
    restored = run.folder / "out.onnx"
    made = json.loads(Ran(capfd, "archive", str(folder), "restore", "step-2", "-o", str(restored), "--json").out)
    assert made["output"] == str(restored)
    assert tensors(restored) == tensors(run.folder / "step-2.onnx")
    assert json.loads(Ran(capfd, "archive", str(folder), "verify", "--json").out) == {"checked": 5, "faults": []}
    assert "would be removed" in Ran(capfd, "archive", str(folder), "prune", "--every", "2", "--dry-run").out
    pruned = json.loads(Ran(capfd, "archive", str(folder), "prune", "--every", "4", "--last", "1", "--json").out)
    assert pruned["removed"] == ["step-1", "step-2", "step-3"]
    twice = json.loads(Ran(capfd, "archive", str(folder), "prune", "--every", "4", "--last", "1", "--json").out)
    assert twice["removed"] == []
    assert "say what to keep" in refused(capfd, 2, "archive", str(folder), "prune")
    assert "no archive" in refused(capfd, 2, "archive", str(run.folder), "list")
    link = Archive(folder).checkpoints[-1]
    path = folder / SEEDS / f"{link.digest}.seed"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    ran = Ran(capfd, "archive", str(folder), "verify")
    assert (ran.code, ran.out[:7]) == (DamagedArchiveError.exit_code, "step-4:")
    assert "are damaged (step-4)" in ran.err


@pytest.mark.slow
def test_quantized_checkpoints_keep_their_quality_through_a_prune(folder: Path, run: Run, capfd: Any) -> None:
    paths = [str(path) for path in run.checkpoints(2)]
    added = json.loads(Ran(capfd, "archive", str(folder), "add", *paths, "--target", "6x", "--json").out)
    assert [row["base"] for row in added["added"]] == [None, "step-0"]
    archive = Archive(folder)
    before = archive.decoded(archive.find("step-1")).data.tobytes()
    pruned = json.loads(Ran(capfd, "archive", str(folder), "prune", "--last", "1", "--json").out)
    assert pruned["removed"] == ["step-0"]
    # Coded again, exactly, it would take more than its base and itself.
    assert (pruned["held"], pruned["recoded"]) == (1, [])
    archive = Archive(folder)
    assert archive.decoded(archive.find("step-1")).data.tobytes() == before
    assert archive.verify() == []
    assert "--calib is for" in refused(capfd, 2, "archive", str(folder), "add", paths[0], "--calib", "x.npz")
