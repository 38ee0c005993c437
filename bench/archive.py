"""Archive the checkpoints of a whole training run: bytes beside peers, seconds to add, restore and prune.

The model is a small one of bench/checkpoint_runs.py, with its text; checkpoints are bfloat16, one every few steps from
the first one on. ZipNN and xz (-6) code each checkpoint's exclusive or with the one before: without key seeds, so that
restoring the last one would decode all of them.
"""

from __future__ import annotations

import lzma
import shutil
import time
from pathlib import Path
from typing import Final

import numpy as np

from bench import checkpoint_runs, measure
from bench.checkpoint_runs import Size
from bench.lossless import planes, zipnn_size
from bench.measure import Figures, Goal
from seed_exporter.archive import Archive, checkpoints
from seed_exporter.archive.weights import LATEST
from seed_exporter.loaders import state_dict

CHECKPOINTS: Final = 1000
SIZE: Final = Size(width=64, layers=1)
EVERY: Final = 4
"""Steps between two checkpoints."""
RESTORED: Final = 20
"""Number of checkpoints, drawn evenly, that are restored to learn how long that takes."""
KEPT_EVERY: Final = 10
"""What a prune keeps, beside the last 20."""
DTYPE: Final = "bfloat16"


def run(quick: bool = False) -> Figures:
    count = 30 if quick else CHECKPOINTS
    with measure.scratch() as folder:
        archive = Archive.create(folder / "archive")
        with archive.writing():
            added, peers, sources = _add_all(archive, count, folder)
        figures = {
            "checkpoints": count, "every": EVERY, "weights": sources, "parameters": sources // 2 // count,
            "bytes": archive.bytes, "keys": sum(not link.depth for link in archive.checkpoints), "peers": peers,
            "add_s": _spread(added), "last_s": _restored(archive.folder, archive.checkpoints[-1].name, warm=True)[0],
            **_restores(archive),
        }  # fmt: skip
        start = time.perf_counter()
        with archive.writing():
            pruned = archive.prune(
                lambda found: [
                    link for link in found if not (link.number - 1) % KEPT_EVERY or link.number > count - RESTORED
                ]
            )
        figures["prune"] = {
            "left": len(archive.checkpoints), "recoded": len(pruned.recoded), "bytes": pruned.after,
            "seconds": round(time.perf_counter() - start, 1),
        }  # fmt: skip
    goals = [
        Goal("bytes of the archive, of ZipNN's on the differences", figures["bytes"] / peers["ZipNN"], 0.6, "x"),
        Goal("seconds to add a checkpoint, in the middle", figures["add_s"]["middle"], 1, "s"),
        Goal("checkpoints that were restored bit for bit", figures["exact"], 1, "x", least=True),
    ]
    return figures | {"goals": [goal.as_json() for goal in goals]}


def _add_all(archive: Archive, count: int, folder: Path) -> tuple[list[float], dict[str, int], int]:
    """Train, add each checkpoint; return seconds for each, the peers' bytes, and those of all weights."""
    sources, _ = checkpoint_runs.text()
    seconds, before, total = [], b"", 0
    peers = {"ZipNN": 0, "xz": 0}
    for step, model, loss in checkpoint_runs.train(sources, count * EVERY, size=SIZE):
        if step % EVERY or step == count * EVERY:
            continue
        measure.note(f"archive: {len(seconds)} of {count} checkpoints, loss {loss:.2f}")
        values = checkpoint_runs.cast(checkpoint_runs.weights(model), DTYPE)
        graph = state_dict.graph_of({name: (DTYPE, each.shape, each.tobytes()) for name, each in values.items()})
        start = time.perf_counter()
        archive.add(_name(step), graph, jobs=1)
        seconds.append(time.perf_counter() - start)
        data = b"".join(each.tobytes() for each in values.values())
        np.savez(folder / _name(step), **values)
        for name, size in _peers(data, before).items():
            peers[name] += size
        before, total = data, total + len(data)
    return seconds, peers, total


def _peers(data: bytes, before: bytes) -> dict[str, int]:
    if before:
        data = (np.frombuffer(data, np.uint16) ^ np.frombuffer(before, np.uint16)).tobytes()
    return {
        "ZipNN": zipnn_size(data, DTYPE),
        "xz": len(lzma.compress(planes(data, 2), lzma.FORMAT_XZ, preset=6)),
    }


def _restores(archive: Archive) -> Figures:
    """Restore some checkpoints, each by an archive that was just opened."""
    found = archive.checkpoints
    chosen = [found[place].name for place in np.linspace(0, len(found) - 1, RESTORED).astype(int)]
    last, _ = _restored(archive.folder, found[-1].name, warm=False)
    middle = [_restored(archive.folder, name, warm=False) for name in chosen]
    return {
        "last_cold_s": last, "restore_s": _spread([seconds for seconds, _ in middle]),
        "exact": float(all(exact for _, exact in middle)),
    }  # fmt: skip


def _restored(folder: Path, name: str, *, warm: bool) -> tuple[float, bool]:
    """Restore a checkpoint into memory; return the seconds, and whether all bits are as they were."""
    if not warm:
        shutil.rmtree(folder / LATEST, ignore_errors=True)
    start = time.perf_counter()
    archive = Archive(folder)
    decoded = archive.decoded(archive.find(name))
    seconds = time.perf_counter() - start
    tensors = checkpoints.tensors_of(decoded)
    with np.load(folder.parent / f"{name}.npz") as kept:
        exact = kept.keys() == tensors.keys() and all(kept[key].tobytes() == tensors[key][2] for key in tensors)
    return seconds, exact


def _spread(seconds: list[float]) -> Figures:
    return {"middle": measure.rounded(measure.median(seconds)), "most": measure.rounded(max(seconds))}


def _name(step: int) -> str:
    return f"step-{step:05d}"


def table(figures: Figures) -> list[str]:
    peers, prune = figures["peers"], figures["prune"]

    def megabytes(size: int) -> str:
        return f"{size / 1e6:.1f} MB"

    rows = [
        (f"checkpoints, one every {figures['every']} steps", f"{figures['checkpoints']:,}"),
        (
            f"their weights, {figures['weights'] // 2 // figures['checkpoints']:,} of each",
            megabytes(figures["weights"]),
        ),
        (f"the archive, {figures['keys']} key seeds in it", f"**{megabytes(figures['bytes'])}**"),
        ("ZipNN, each on the one before", megabytes(peers["ZipNN"])),
        ("xz -6, each on the one before", megabytes(peers["xz"])),
        ("to add one, in the middle; at most", f"{figures['add_s']['middle']} s; {figures['add_s']['most']} s"),
        ("to restore the last one", f"{figures['last_s']:.3f} s"),
        ("to restore it from its chain", f"{figures['last_cold_s']:.2f} s"),
        ("to restore any one, in the middle; at most", "{middle} s; {most} s".format(**figures["restore_s"])),
        (f"a prune to every {KEPT_EVERY}th and the last {RESTORED}", f"{prune['seconds']} s"),
        (f"the archive then, with {prune['left']} checkpoints", megabytes(prune["bytes"])),
    ]
    return ["| what | |", "|---|--:|", *(f"| {what} | {value} |" for what, value in rows)]
