"""Measure a start from the disk to the first answer, and what a session keeps resident.

Cold start: a fresh process of the base install opens MiniLM-L6 and answers once. The seed is decoded, with nothing in
the cache of models; the peer is ONNX Runtime with its default options and the fp32 file; a third process opens the seed
when its model is in the cache of models. Before each start the caches of the system are dropped, libraries included,
where this process may do that. A second series reads from a disk of 40 MB/s, as a good SD card is, by a control group;
a third one leaves the caches as they are. They run in turn, and the time ends with the line that says the answer's
shape.

Memory: a process opens a model from the cache of models and answers, as a service does. Activations are by how much the
process grows during its first run, mapped files aside.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench import measure, memory
from bench.measure import Figures, Goal
from bench.public import MODELS, cache_folder
from seed_exporter.pipeline import export
from seed_exporter.results import Options

MB = 1e6
MODEL: Final = "minilm6"
TARGET: Final = 11
"""Ratio of the seed for the cold start, 8.2 MB."""
CALIBRATION: Final = 48
"""Inputs that the seed is calibrated on."""
MOST_TIME: Final = 1.0
"""Most time of a cold start, of the peer's (issue 12)."""
MOST_MEMORY: Final = 0.6
"""Most memory of a cold start, of the peer's (issue 12)."""
ABOVE_MB: Final = 60
"""Most that a session keeps beyond weights and activations, Python and its libraries included (issue 12) [MB]."""
RESIDENT: Final = ("minilm6", "efflite0", "pprec", "magika", "smollm2")
CARD_BYTES: Final = 40_000_000
"""Bytes that a card reads in a second."""
_DROP: Final = Path("/proc/sys/vm/drop_caches")

_COMMON: Final = """
import os, re, sys
import numpy as np
def resident(key):
    return int(re.search(key + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024
feeds = dict(np.load(sys.argv[2]))
"""
_PEER: Final = (
    _COMMON
    + """
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # which writes into the user's folders
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
print(session.run(None, feeds)[0].shape, flush=True)
print(resident("VmHWM"))
"""
)
_SEED: Final = (
    _COMMON
    + """
import seed_runtime
with seed_runtime.open(sys.argv[1]).session(runs=1) as session:
    print(next(iter(session.run(feeds).values())).shape, flush=True)
print(resident("VmHWM"))
"""
)
_SESSION: Final = (
    _COMMON
    + """
import json
import seed_runtime
from seed_runtime.memory.process import reset_peak
with seed_runtime.open(sys.argv[1]).session(threads=2) as session:
    opening, before, mapped = (resident(key) for key in ("VmHWM", "VmRSS", "RssFile"))
    reset_peak()
    session.run(feeds)
    running = resident("VmHWM")
    print(json.dumps({
        "mode": session.plan.mode,
        "opening": opening,
        "running": running,
        "activations": running - before - max(0, resident("RssFile") - mapped),
        "weights": sum(os.stat(session.folder / name).st_size for name in os.listdir(session.folder)),
    }))
"""
)


def run(quick: bool = False) -> Figures:
    with measure.scratch() as folder:
        python = memory.lean_environment(folder / "lean")
        starts = _starts(python, folder, 2 if quick else 9)
        rows = [_resident(python, folder, name) for name in RESIDENT[:: 3 if quick else 1]]
    goals = [
        Goal(f"{row['caches']}: time, times ONNX Runtime's", row["times_peer"], MOST_TIME, "x") for row in starts
    ] + [Goal(f"{row['caches']}: memory, times ONNX Runtime's", row["memory"], MOST_MEMORY, "x") for row in starts]
    goals += [
        Goal(f"{row['model']}: resident beyond weights and activations", row["beyond_mb"], ABOVE_MB, "MB")
        for row in rows
    ]
    note = "" if _can_drop() else "This process could not drop the system's caches, so no start was cold."
    return {"starts": starts, "resident": rows, "goals": [goal.as_json() for goal in goals], "note": note}


def _starts(python: Path, folder: Path, rounds: int) -> list[Figures]:
    source, feeds = MODELS[MODEL].prepare(cache_folder()), _write_feeds(MODEL, folder)
    calibration = MODELS[MODEL].inputs(cache_folder(), CALIBRATION, "calib")
    np.savez(folder / "calib.npz", **{name: np.stack([one[name] for one in calibration]) for name in calibration[0]})
    measure.note(f"{MODEL}: making the seed")
    seed, models = folder / "model.seed", folder / "models"
    export(source, output=seed, options=Options(target=TARGET, effort=2, calib=folder / "calib.npz"))
    contestants = {
        "seed": [python, "-c", _SEED, seed, feeds],
        "peer": [python, "-c", _PEER, source, feeds],
        "again": [python, "-c", _SEED, seed, feeds],
    }
    rows = []
    with _card(folder) as card:
        series = [("caches warm", False, None)]
        if _can_drop():
            series.insert(0, ("caches dropped", True, None))
            if card is not None:
                series.insert(1, ("caches dropped, disk of 40 MB/s", True, card))
        for title, dropped, group in series:
            found: dict[str, list[tuple[float, int]]] = {name: [] for name in contestants}
            for number in range(rounds + 1):
                for name, command in contestants.items():
                    measure.note(f"{MODEL}, {title}: {number} of {rounds}: {name}")
                    if name == "seed":
                        shutil.rmtree(models, ignore_errors=True)
                    if dropped:
                        os.sync()
                        _DROP.write_text("3")
                    one = _first_answer([str(word) for word in command], _environment(models, folder), group)
                    if number:  # the first round compiles Python's modules
                        found[name].append(one)
            rows.append(_start_row(title, seed, source, found))
    return rows


@contextmanager
def _card(folder: Path) -> Iterator[Path | None]:
    """Give the file that moves a process into a control group that reads CARD_BYTES a second; None for no group."""
    device = folder.stat().st_dev
    limit = f"{os.major(device)}:{os.minor(device)} "
    groups = (
        (Path("/sys/fs/cgroup/blkio"), "blkio.throttle.read_bps_device", f"{limit}{CARD_BYTES}"),
        (Path("/sys/fs/cgroup"), "io.max", f"{limit}rbps={CARD_BYTES}"),
    )
    with ExitStack() as stack:
        found = None
        for root, name, text in groups:
            group = root / f"seed-bench-{os.getpid()}"
            with suppress(OSError):
                group.mkdir()
                stack.callback(group.rmdir)
                (group / name).write_text(text)
                found = group / "cgroup.procs"
                break
        yield found


def _start_row(title: str, seed: Path, source: Path, found: Mapping[str, list[tuple[float, int]]]) -> Figures:
    def ratio(name: str, of: int) -> float:
        return measure.median([one[of] / peer[of] for one, peer in zip(found[name], found["peer"], strict=True)])

    return {
        "caches": title,
        "seed_bytes": seed.stat().st_size,
        "source_bytes": source.stat().st_size,
        **{f"{name}_s": measure.median([one[0] for one in own]) for name, own in found.items()},
        **{f"{name}_mb": measure.median([one[1] / MB for one in own]) for name, own in found.items()},
        "times_peer": ratio("seed", 0),
        "again_times_peer": ratio("again", 0),
        "memory": ratio("seed", 1),
        "rounds": len(found["peer"]),
        "load": measure.load(),
    }


def _first_answer(command: list[str], environment: dict[str, str], group: Path | None) -> tuple[float, int]:
    """Start a process, and return the time until its first line [s] and its peak memory, which is the second one."""
    if group is not None:
        command = ["sh", "-c", f'echo $$ > {group}; exec "$@"', "sh", *command]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout is not None
        child.stdout.readline()
        seconds = time.perf_counter() - start
        peak = child.stdout.readline()
    if child.returncode:
        raise RuntimeError(f"a process ended with {child.returncode} before it answered")
    return seconds, int(peak)


def _environment(models: Path, folder: Path) -> dict[str, str]:
    """Return variables for a child: a cache of models of its own, and compiled modules, as an installer makes them."""
    own = {
        "XDG_CACHE_HOME": str(models), "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder / "compiled"),
    }  # fmt: skip
    return os.environ | own


def _resident(python: Path, folder: Path, name: str) -> Figures:
    measure.note(f"{name}: making the seed")
    seed, feeds = folder / f"{name}.seed", _write_feeds(name, folder)
    export(MODELS[name].prepare(cache_folder()), output=seed, options=Options(method="lossless", effort=1))
    command = [str(word) for word in (python, "-c", _SESSION, seed, feeds)]
    found: dict[str, Any] = {}
    for _ in range(2):  # the first one assembles
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=_environment(folder / "kept", folder))
        found = json.loads(done.stdout)
    beyond = max(found["opening"], found["running"]) - found["weights"] - found["activations"]
    sizes = {f"{key}_mb": value / MB for key, value in found.items() if key != "mode"}
    return {"model": name, "mode": found["mode"], **sizes, "beyond_mb": beyond / MB}


def _write_feeds(name: str, folder: Path) -> Path:
    path = folder / f"{name}.npz"
    np.savez(path, **MODELS[name].inputs(cache_folder(), 1, "calib")[0])
    return path


def _can_drop() -> bool:
    with suppress(OSError):
        return os.access(_DROP, os.W_OK)
    return False


def table(figures: Figures) -> list[str]:
    return ["\n".join(_lines(figures))]


def _lines(figures: Figures) -> Iterator[str]:
    yield "| MiniLM-L6, first answer | from the seed | ONNX Runtime, fp32 file | times | assembled before | times |"
    yield "|---|--:|--:|--:|--:|--:|"
    for row in figures["starts"]:
        yield (
            f"| {row['caches']} | {row['seed_s']:.2f} s, {row['seed_mb']:.0f} MB | {row['peer_s']:.2f} s, "
            f"{row['peer_mb']:.0f} MB | **{row['times_peer']:.2f}**, memory {row['memory']:.2f} "
            f"| {row['again_s']:.2f} s, {row['again_mb']:.0f} MB | {row['again_times_peer']:.2f} |"
        )
    yield ""
    yield "| a session's memory, MB | mode | weights | activations | peak of opening | peak of running | beyond both |"
    yield "|---|---|--:|--:|--:|--:|--:|"
    for row in figures["resident"]:
        yield (
            f"| {row['model']} | `{row['mode']}` | {row['weights_mb']:.1f} | {row['activations_mb']:.1f} "
            f"| {row['opening_mb']:.1f} | {row['running_mb']:.1f} | **{row['beyond_mb']:.1f}** |"
        )
