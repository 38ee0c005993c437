"""Measure all of `seed-run --assemble` of healed seeds on one core, from the start of Python to synced files.

"ResNet-50" has as many dead rows as healing left in a trial, cut, and drawn integers (bench/overhead.py); "BERT-tiny"
is the seed that is kept in this repository. The peer is NNCodec: a process that decodes the same integers and writes
them as floats, without steps, shapes and digests. A process that only imports NumPy stands beside both. They run in
turn; figures are processor seconds, kernel included, the least of all rounds.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from bench import measure, overhead, peers, seeds
from bench.claims import kept
from bench.measure import Figures, Goal, Spent
from seed_exporter.build.streams import StreamEncoder
from seed_exporter.peers.nncodec import module

MOST: Final = 1.0
"""Most time for the healed ResNet-50 (issue 10) [s]."""
_NUMPY: Final = "import numpy"


def run(quick: bool = False) -> Figures:
    rows = []
    with measure.scratch() as folder:
        _draw(folder)
        peer = [sys.executable, "-m", "bench.assembly", str(folder / "model.nnc"), str(folder / "model.floats")]
        rows.append(_row("ResNet-50", folder / "resnet50.seed", folder, quick, peer))
        rows.append(_row("BERT-tiny", kept.SEEDS / "berttiny.seed", folder, quick))
    goals = [Goal("ResNet-50: assembly", rows[0]["seed_seconds"], MOST, "s")]
    return {"rows": rows, "goals": [goal.as_json() for goal in goals]}


def _draw(folder: Path) -> None:
    measure.note("drawing, encoding")
    graph, plans = overhead.healed(overhead.CASES[0])
    seeds.write(graph, StreamEncoder(graph, trained=True).encode(plans), plans, folder / "resnet50.seed")
    integers = {name: plan.quantize(graph.weights[name]).integers.astype(np.float32) for name, plan in plans.items()}
    qps = dict.fromkeys(integers, peers.nncodec_qp(1.0))
    (folder / "model.nnc").write_bytes(peers.nncodec_encode(integers, qps))


def _row(title: str, seed: Path, folder: Path, quick: bool, peer: Sequence[str] | None = None) -> Figures:
    target = folder / "assembled"
    calls: dict[str, Callable[[], Spent]] = {
        "seed": lambda: _spent(
            [sys.executable, "-m", "seed_runtime.cli", str(seed), "--assemble", str(target)], target
        ),
        "numpy": lambda: _spent([sys.executable, "-c", _NUMPY], target),
    }
    if peer is not None:
        calls["nncodec"] = lambda: _spent(peer, target)
    for call in calls.values():  # files of Python's compiled modules
        call()
    times = measure.rounds(calls, 2 if quick else 7)
    return {
        "title": title,
        "size": seed.stat().st_size,
        "weights_size": _weights_size(seed),
        **{f"{name}_seconds": measure.rounded(min(one.cpu for one in own)) for name, own in times.items()},
        "times_peer": measure.rounded(measure.median_ratio(times["seed"], times["nncodec"])) if peer else None,
        "load": measure.load(),
    }


def _spent(command: Sequence[str], target: Path) -> Spent:
    """Run a process on one core; what it wrote is removed before, which counts for nobody."""
    shutil.rmtree(target, ignore_errors=True)
    # Python's files are compiled once, as those of installed packages are.
    compiled = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(target.parent / "compiled")}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = measure.spent(
        lambda: subprocess.run(
            command, check=True, capture_output=True, preexec_fn=measure.one_core, env=os.environ | compiled
        )
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Spent(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, spent.wall)


def _weights_size(seed: Path) -> int:
    import seed_runtime

    return seed_runtime.open(seed, enforce=False).header.weights.size


def _decode_peer(source: Path, target: Path) -> None:
    peers.write_arrays(module().decompress(bytearray(source.read_bytes())), target)


def table(figures: Figures) -> list[str]:
    lines = [
        "| seconds of one core | seed | weights file | seed-run --assemble | NNCodec | times NNCodec | import numpy |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in figures["rows"]:
        peer = f"{row['nncodec_seconds']:.2f} | {row['times_peer']:.2f}x" if row["times_peer"] else "| "
        lines.append(
            f"| {row['title']} | {row['size']:,} B | {row['weights_size'] / 1e6:.1f} MB "
            f"| **{row['seed_seconds']:.2f}** | {peer} | {row['numpy_seconds']:.2f} |"
        )
    return lines


if __name__ == "__main__":
    _decode_peer(Path(sys.argv[1]), Path(sys.argv[2]))
