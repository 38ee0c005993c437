"""The cache of assembled models: two processes at once, kills, eviction, and what killed processes left."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import seed_runtime
from seed_runtime.assembly.assemble import assemble_into
from seed_runtime.assembly.cache import ModelCache, default_root
from seed_runtime.errors import CacheSpaceError, FormatError
from tests.support.project import ROOT
from tests.support.seed_builder import build_seed, decoded_weights

SEEDS = {
    name: build_seed(streams=streams) for name, streams in {"a": ("raw",), "b": ("grid",), "c": ("raw", "grid")}.items()
}
PLENTY = 1 << 30

CHILD = """
import hashlib, io, json, sys, time
import seed_runtime
from seed_runtime.assembly.assemble import assemble_into
from seed_runtime.assembly.cache import ModelCache
from pathlib import Path

root, path, moment = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
seed, said = seed_runtime.open(path), {"made": 0, "waited": 0}

def make(part):
    said["made"] += 1
    if moment == "making":
        print("making", flush=True)
        sys.stdin.readline()
    else:
        time.sleep(0.2)
    with seed._reader() as reader:
        assemble_into(reader, part)

def waited():
    said["waited"] += 1

with ModelCache(root, 1 << 30).hold(seed.digest, seed.header, make, waited) as folder:
    if moment == "holding":
        print("holding", flush=True)
        sys.stdin.readline()
    print(json.dumps({**said, "weights": hashlib.sha256((folder / "model.weights").read_bytes()).hexdigest()}))
"""


def start(root: Path, path: Path, moment: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(root), str(path), moment],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


@contextmanager
def process_that_is(moment: str, root: Path, path: Path) -> Iterator[None]:
    """Another process that stays in this state until the block ends."""
    with start(root, path, moment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{moment}\n"
        yield
        process.communicate("\n")
        assert process.returncode == 0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def write(tmp_path: Path, name: str) -> Path:
    path = tmp_path / f"{name}.seed"
    path.write_bytes(SEEDS[name])
    return path


@contextmanager
def holding(root: Path, name: str, limit: int = PLENTY, verify: bool = False) -> Iterator[Path]:
    """Use a model within the block; `verify`: one that was altered is assembled again."""
    seed = seed_runtime.open(io.BytesIO(SEEDS[name]))

    def make(part: Path) -> None:
        with seed._reader() as reader:
            assemble_into(reader, part)

    def is_intact(folder: Path) -> bool:
        return hashlib.sha256((folder / "model.weights").read_bytes()).digest() == seed.header.weights.digest

    intact = is_intact if verify else None
    with ModelCache(root, limit).hold(seed.digest, seed.header, make, lambda: None, intact) as folder:
        yield folder


def hold(root: Path, name: str, limit: int = PLENTY, used: float | None = None) -> Path:
    """Take a model and let it go again; `used`: when, for the order of eviction."""
    with holding(root, name, limit) as folder:
        if used is not None:
            os.utime(folder, (used, used))
        return folder


def models(root: Path) -> set[str]:
    return {entry.name for entry in root.iterdir() if entry.is_dir()}


def test_a_model_is_made_once_and_then_found(root: Path) -> None:
    folder = hold(root, "a")
    made = (folder / "model.weights").stat().st_mtime_ns
    assert (folder / "model.weights").read_bytes() == decoded_weights(["raw"])
    assert hold(root, "a") == folder
    assert (folder / "model.weights").stat().st_mtime_ns == made
    assert folder.name == seed_runtime.open(io.BytesIO(SEEDS["a"])).digest.hex()
    assert root.stat().st_mode & 0o777 == 0o700


@pytest.mark.slow
def test_of_processes_that_come_at_once_one_makes_the_model_and_all_get_it(root: Path, tmp_path: Path) -> None:
    path = write(tmp_path, "c")
    processes = [start(root, path, "at once") for _ in range(4)]
    said = [json.loads(process.communicate()[0]) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert sum(one["made"] for one in said) == 1
    assert {one["weights"] for one in said} == {hashlib.sha256(decoded_weights(["raw", "grid"])).hexdigest()}
    assert len(models(root)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cache", "place"])
def test_a_kill_at_any_moment_leaves_the_old_state_or_the_new_one(kind: str, tmp_path: Path) -> None:
    script = Path(__file__).parents[1].joinpath("system", "support", "killed_process.py")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script), kind, str(tmp_path / "work")], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20


def test_the_least_recently_used_model_goes_first(root: Path) -> None:
    a, b = hold(root, "a", used=2000), hold(root, "b", used=1000)
    size = sum(entry.stat().st_size for folder in (a, b) for entry in folder.iterdir())
    cache = ModelCache(root, size)
    cache.evict()
    assert models(root) == {a.name, b.name}
    cache.evict(room=1)
    assert models(root) == {a.name}


def test_a_model_that_is_used_again_stays(root: Path) -> None:
    a, b = hold(root, "a", used=1000), hold(root, "b", used=2000)
    hold(root, "a")
    ModelCache(root, sum(entry.stat().st_size for entry in a.iterdir())).evict()
    assert a.name in models(root)
    assert b.name not in models(root)


def test_making_a_model_makes_room_first(root: Path) -> None:
    a = hold(root, "a")
    c = hold(root, "c", limit=1)
    assert models(root) == {c.name}
    assert a != c


def test_eviction_never_removes_a_model_that_a_process_holds(root: Path, tmp_path: Path) -> None:
    a, b = hold(root, "a", used=1000), hold(root, "b", used=2000)
    with process_that_is("holding", root, write(tmp_path, "a")):
        ModelCache(root, 0).evict()
        assert models(root) == {a.name}
        assert (a / "model.weights").read_bytes() == decoded_weights(["raw"])
    ModelCache(root, 0).evict()
    assert models(root) == set()
    assert b != a


def test_eviction_never_removes_what_another_process_is_making(root: Path, tmp_path: Path) -> None:
    hold(root, "b")
    with process_that_is("making", root, write(tmp_path, "a")):
        ModelCache(root, 0).evict()
        (part,) = models(root)
        assert part.endswith(".part")
    assert (hold(root, "a") / "model.weights").read_bytes() == decoded_weights(["raw"])


def test_what_a_killed_process_left_is_removed(root: Path) -> None:
    part = root / ("0" * 64 + ".part")
    part.mkdir(parents=True)
    (part / "model.weights").write_bytes(b"half")
    a = hold(root, "a")
    assert models(root) == {a.name}


def test_half_a_model_is_made_again(root: Path) -> None:
    folder = hold(root, "a")
    (folder / "model.weights").write_bytes(b"half")
    hold(root, "a")
    assert (folder / "model.weights").read_bytes() == decoded_weights(["raw"])
    (folder / "model.onnx").unlink()
    hold(root, "a")
    assert (folder / "model.onnx").exists()


def test_a_seed_that_fails_leaves_no_folder(root: Path) -> None:
    seed = seed_runtime.open(io.BytesIO(SEEDS["a"]))

    def fail(part: Path) -> None:
        (part / "model.weights").write_bytes(b"half")
        raise FormatError("here", "broken")

    with (
        pytest.raises(FormatError),
        ModelCache(root, PLENTY).hold(seed.digest, seed.header, fail, lambda: None),
    ):
        pytest.fail("there is no model to hold")
    assert models(root) == set()


def flip(path: Path) -> bytes:
    """Alter a file behind the cache's back; what it holds now."""
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
    return bytes(data)


@pytest.mark.slow
def test_an_altered_model_is_assembled_again_while_another_process_uses_it(root: Path, tmp_path: Path) -> None:
    weights = hold(root, "a") / "model.weights"
    altered = flip(weights)
    with process_that_is("holding", root, write(tmp_path, "a")), weights.open("rb") as opened:
        with holding(root, "a", verify=True):
            assert weights.read_bytes() == decoded_weights(["raw"])
            assert opened.read() == altered
        made = weights.stat().st_ino
        with holding(root, "a", verify=True):
            assert weights.stat().st_ino == made
    assert models(root) == {weights.parent.name}


def test_an_altered_model_that_is_in_use_stays_until_the_new_one_is_whole(root: Path) -> None:
    folder = hold(root, "a")
    altered = flip(folder / "model.weights")
    seed = seed_runtime.open(io.BytesIO(SEEDS["a"]))

    def fail(part: Path) -> None:
        assert (folder / "model.weights").read_bytes() == altered
        raise FormatError("here", "broken")

    with holding(root, "a"):
        again = ModelCache(root, PLENTY).hold(seed.digest, seed.header, fail, lambda: None, lambda folder: False)
        with pytest.raises(FormatError), again:
            pytest.fail("there is no model to hold")
        assert (folder / "model.weights").read_bytes() == altered
    assert models(root) == {folder.name}


def test_an_altered_model_that_nobody_else_uses_gives_its_room_to_the_new_one(root: Path) -> None:
    folder = hold(root, "a")
    seed = seed_runtime.open(io.BytesIO(SEEDS["a"]))

    def make(part: Path) -> None:
        assert models(root) == {part.name}
        with seed._reader() as reader:
            assemble_into(reader, part)

    with ModelCache(root, PLENTY).hold(seed.digest, seed.header, make, lambda: None, lambda folder: False):
        assert (folder / "model.weights").read_bytes() == decoded_weights(["raw"])


# A disk that is nearly full


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch, root: Path) -> Callable[[int], None]:
    """Sets the bytes that are free beside the models of the cache on a disk of 1 MB."""
    usage = namedtuple("usage", "total used free")
    taken = 0

    def disk_usage(path: object) -> usage:
        held = sum(entry.stat().st_size for entry in root.glob("*/*"))
        return usage(1_000_000, taken + held, 1_000_000 - taken - held)

    def leave(free: int) -> None:
        nonlocal taken
        taken = disk_usage(root).free - free + taken

    monkeypatch.setattr("shutil.disk_usage", disk_usage)
    return leave


def test_models_that_nobody_uses_make_room_on_a_full_disk(root: Path, disk: Callable[[int], None]) -> None:
    a, b = hold(root, "a", used=1000), hold(root, "b", used=2000)
    disk(10)
    c = hold(root, "c")
    assert c.name in models(root)
    assert a.name not in models(root)
    assert b != a


def test_of_models_that_make_room_on_a_full_disk_one_can_be_spared(root: Path, disk: Callable[[int], None]) -> None:
    a, _ = hold(root, "a", used=1000), hold(root, "b", used=2000)
    disk(10)
    ModelCache(root, PLENTY).free_disk(11, spare=[a.name])
    assert models(root) == {a.name}


def test_models_that_could_not_make_room_enough_stay(root: Path, disk: Callable[[int], None]) -> None:
    a, b = hold(root, "a"), hold(root, "b")
    disk(10)
    ModelCache(root, PLENTY).free_disk(100_000_000)
    assert models(root) == {a.name, b.name}


def test_a_disk_full_of_models_in_use_is_reported_with_advice(root: Path, disk: Callable[[int], None]) -> None:
    with holding(root, "b") as b:
        disk(10)
        with pytest.raises(CacheSpaceError, match="set XDG_CACHE_HOME to a folder on another disk") as caught:
            hold(root, "a")
        assert models(root) == {b.name}
    assert (caught.value.exit_code, caught.value.free, caught.value.folder) == (13, 10, str(root))


def test_other_peoples_folders_are_left_alone(root: Path) -> None:
    (root / "notes").mkdir(parents=True)
    (root / "notes" / "big").write_bytes(bytes(10_000))
    (root / "README").write_text("mine")
    hold(root, "a", limit=1)
    ModelCache(root, 0).evict()
    assert models(root) == {"notes"}
    assert (root / "README").exists()


def test_a_model_that_another_process_removes_meanwhile_is_no_fault(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    a, b = hold(root, "a"), hold(root, "b")
    cache, remove = ModelCache(root, 0), ModelCache._clear

    def removed_by_another_one(self: ModelCache, name: str) -> bool:
        shutil.rmtree(b, ignore_errors=True)
        shutil.rmtree(a, ignore_errors=True)
        return remove(self, name)

    monkeypatch.setattr(ModelCache, "_clear", removed_by_another_one)
    cache.evict()
    assert models(root) == set()


def test_a_model_that_is_assembled_again_is_complete_before_it_appears(root: Path) -> None:
    seed = seed_runtime.open(io.BytesIO(SEEDS["a"]))

    def make(part: Path) -> None:
        assert part.parent == root
        assert not (root / seed.digest.hex()).exists()
        with seed._reader() as reader:
            assemble_into(reader, part)
        assert not (root / seed.digest.hex()).exists()

    with ModelCache(root, PLENTY).hold(seed.digest, seed.header, make, lambda: None) as folder:
        assert folder == root / seed.digest.hex()
        assert time.time() - folder.stat().st_mtime < 60


@pytest.mark.parametrize(
    ("variable", "expected"),
    [("/x/cache", "/x/cache/seed/models"), ("relative", "~/.cache/seed/models"), ("", "~/.cache/seed/models")],
)
def test_the_cache_is_where_xdg_says(variable: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", variable)
    assert default_root() == Path(expected).expanduser()
