"""Kill a process at every moment at which it touches the disk, and check what it left. A program for tests.

    python killed_process.py cache|place FOLDER

Prints how many times it killed. A moment is an audit event of Python: opening, renaming, removing, locking and so on,
just before it happens. The process is a fork of this one, which has a single thread.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import seed_runtime
from seed_runtime.assembly import assemble
from seed_runtime.assembly.cache import ModelCache
from tests.support.seed_builder import build_seed, decoded_weights

EVENTS = ("open", "os.", "shutil.", "fcntl.", "tempfile.")
OLD, NEW = ("raw", "grid"), ("raw", "grid", "split")


def seed(streams: tuple[str, ...]) -> seed_runtime.Seed:
    return seed_runtime.open(io.BytesIO(build_seed(streams=streams)))


def dies_at(moment: int, work: Callable[[], None]) -> bool:
    """Do the work in a process that is killed just before its event number `moment`. Return whether it was."""
    child = os.fork()
    if not child:
        left = moment

        def count(event: str, _: object) -> None:
            nonlocal left
            if event.startswith(EVENTS):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        work()
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL, status
    return status != 0


def held(folder: Path) -> tuple[str, ...] | None:
    """Return which model a folder holds whole; None if there is no folder."""
    if not folder.exists():
        return None
    weights = (folder / "model.weights").read_bytes()
    (name,) = [streams for streams in (OLD, NEW) if weights == decoded_weights(streams)]
    assert {entry.name for entry in folder.iterdir()} - {"synced"} == {"model.onnx", "model.weights"}
    assert (folder / "model.onnx").stat().st_size > 100
    return name


def kill_assembly(root: Path, before: tuple[str, ...] | None) -> int:
    """Kill `--assemble`, with a model in the folder before or none. Return the number of kills."""
    moment = 0
    while True:
        moment += 1
        folder = root / f"{moment}"
        folder.mkdir(parents=True)
        if before:
            seed(before).assemble(folder / "model")
        killed = dies_at(moment, lambda folder=folder: seed(NEW).assemble(folder / "model"))  # type: ignore[misc]
        assert held(folder / "model") in ((before, NEW) if killed else (NEW,)), moment
        seed(NEW).assemble(folder / "model")
        assert held(folder / "model") == NEW
        assert os.listdir(folder) == ["model"], (moment, os.listdir(folder))
        if not killed:
            return moment - 1


def kill_cache(root: Path) -> int:
    """Kill the making of a model in a cache that another one must leave. Return the number of kills."""
    limit = len(decoded_weights(NEW)) + 600

    def make(folder: Path, streams: tuple[str, ...]) -> None:
        one = seed(streams)

        def fill(part: Path) -> None:
            with one._reader() as reader:
                assemble.assemble_into(reader, part)

        with ModelCache(folder, limit).hold(one.digest, one.header, fill, lambda: None):
            pass

    old, new = seed(OLD).digest.hex(), seed(NEW).digest.hex()
    moment = 0
    while True:
        moment += 1
        folder = root / f"{moment}"
        make(folder, OLD)
        killed = dies_at(moment, lambda folder=folder: make(folder, NEW))  # type: ignore[misc]
        assert held(folder / old) in (OLD, None), moment
        assert held(folder / new) in ((None, NEW) if killed else (NEW,)), moment
        make(folder, NEW)
        assert held(folder / new) == NEW
        ModelCache(folder, limit).evict()
        left = {entry.name for entry in folder.iterdir() if entry.is_dir()}
        assert left <= {old, new}, (moment, left)
        if not killed:
            return moment - 1


def kill_repair(root: Path) -> int:
    """Kill the repair of an altered model that another session uses. Return the number of kills."""
    moment = 0

    def hold(folder: Path, verify: bool) -> contextlib.AbstractContextManager[Path]:
        one = seed(NEW)

        def fill(part: Path) -> None:
            with one._reader() as reader:
                assemble.assemble_into(reader, part)

        def is_intact(found: Path) -> bool:
            return (found / "model.weights").read_bytes() == decoded_weights(NEW)

        intact = is_intact if verify else None
        return ModelCache(folder, 1 << 30).hold(one.digest, one.header, fill, lambda: None, intact)

    def repair(folder: Path) -> None:
        with hold(folder, True):
            pass

    altered = b"~" + decoded_weights(NEW)[1:]
    while True:
        moment += 1
        folder = root / f"{moment}"
        with hold(folder, False) as found:
            (found / "model.weights").write_bytes(altered)
            killed = dies_at(moment, lambda folder=folder: repair(folder))  # type: ignore[misc]
            left = (found / "model.weights").read_bytes()
            assert left in ((altered, decoded_weights(NEW)) if killed else (decoded_weights(NEW),)), moment
            repair(folder)
            assert held(found) == NEW
            ModelCache(folder, 1 << 30).evict()
            assert [path for path in folder.iterdir() if path.is_dir()] == [found], moment
        if not killed:
            return moment - 1


def main() -> None:
    kind, root = sys.argv[1], Path(sys.argv[2])
    if kind == "cache":
        kills = kill_cache(root / "a") + kill_repair(root / "b")
    else:
        kills = kill_assembly(root / "a", None) + kill_assembly(root / "b", OLD)
    shutil.rmtree(root)
    print(kills)


if __name__ == "__main__":
    main()
