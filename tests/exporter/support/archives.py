"""Training runs whose checkpoints are archived, and writers that are killed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from seed_exporter.archive import Archive
from seed_exporter.archive.links import SEEDS
from seed_exporter.loaders import load
from tests.exporter.support.exporting import dense

SIZES = (16, 64, 48, 24)

_KILLED = """
import json, os, signal, shutil, sys
from pathlib import Path
from seed_exporter.archive import Archive
from seed_exporter.loaders import load

folder, path, kept, work, copy = Path(sys.argv[1]), sys.argv[2], sys.argv[3].split(","), sys.argv[4], Path(sys.argv[5])
left = [10 ** 6]

def killing(call):
    def wrapped(*arguments, **options):
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return call(*arguments, **options)
    return wrapped

for name in ("replace", "fsync", "unlink", "rename", "mkdir", "open"):
    setattr(os, name, killing(getattr(os, name)))

graph, point, before = load(path), 0, Archive(folder)
whole = {link.name: before.decoded(link).data.tobytes() for link in before.checkpoints}
while True:
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    child = os.fork()
    if not child:
        archive, left[0] = Archive(copy), point
        with archive.writing():
            if work == "add":
                archive.add("added", graph, jobs=1)
            else:
                archive.prune(lambda found: [link for link in found if link.name in kept])
        os._exit(0)
    _, status = os.waitpid(child, 0)
    archive = Archive(copy)
    found = {link.name: archive.decoded(link).data.tobytes() for link in archive.checkpoints}
    need = kept if work == "prune" else whole
    assert all(found[name] == whole[name] for name in need), (point, found.keys())
    assert not archive.chains.broken and not archive.chains.damaged, point
    if point % 5 == 0:
        # The next writer goes on from there.
        with archive.writing():
            archive.prune(lambda found: [link for link in found if link.name in kept])
        archive = Archive(copy)
        assert [link.name for link in archive.checkpoints] == kept, point
        assert all(archive.decoded(link).data.tobytes() == whole[link.name] for link in archive.checkpoints), point
        assert not list((copy / "seeds").glob(".*")), point
    if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
        assert os.waitstatus_to_exitcode(status) == 0
        break
    point += 1
print(json.dumps(point))
"""


class Run:
    """A training run: each checkpoint is a step of a thousandth from the one before."""

    def __init__(self, folder: Path, rng: np.random.Generator) -> None:
        self.folder, self._rng = folder, rng
        self._values = [rng.standard_normal((a, b)) / a**0.5 for a, b in pairwise(SIZES)]
        self._values += [rng.normal(0, 0.1, size) for size in SIZES[1:]]
        self._paths: list[Path] = []

    def checkpoints(self, count: int) -> list[Path]:
        """Return the first ones, which are written once."""
        self.folder.mkdir(parents=True, exist_ok=True)
        while len(self._paths) < count:
            path = self.folder / f"step-{len(self._paths)}.onnx"
            half = len(self._values) // 2
            onnx.save(dense(self._values[:half], self._values[half:]), path)
            self._values = [value + self._rng.normal(0, 1e-3, value.shape) for value in self._values]
            self._paths.append(path)
        return self._paths[:count]


def names(archive: Archive) -> list[str]:
    return [link.name for link in archive.checkpoints]


def tensors(path: Path) -> dict[str, Any]:
    """Return all initializers of a file, as their bytes."""
    found = onnx.load(path).graph.initializer
    return {tensor.name: numpy_helper.to_array(tensor).tobytes() for tensor in found}


def filled(folder: Path, run: Run, count: int, **options: Any) -> Archive:
    archive = Archive.create(folder)
    with archive.writing():
        for path in run.checkpoints(count):
            archive.add(path.stem, load(path), jobs=1, **options)
    return archive


def same(archive: Archive, run: Run, chosen: Sequence[str] = ()) -> bool:
    """Return whether checkpoints are restored as they were added."""
    for name in chosen or names(archive):
        output = run.folder / "restored.onnx"
        archive.restore(name, output)
        if tensors(output) != tensors(run.folder / f"{name}.onnx"):
            return False
    return True


def seed_of(folder: Path, name: str) -> Path:
    """Return the file of a checkpoint."""
    return folder / SEEDS / f"{Archive(folder).find(name).digest}.seed"


def kill_everywhere(folder: Path, run: Run, *, add: Path, kept: Sequence[str]) -> dict[str, int]:
    """Kill an add and a prune at each call that changes files, and look at what is left; return how many these are.

    Each kill is a SIGKILL of a process of its own.
    """
    points = {}
    for work in ("add", "prune"):
        arguments = [str(folder), str(add), ",".join(kept), work, str(run.folder / "copy")]
        done = subprocess.run(
            [sys.executable, "-c", _KILLED, *arguments], capture_output=True, text=True, check=False, timeout=300
        )
        assert not done.returncode, done.stderr
        points[work] = int(json.loads(done.stdout))
    return points
