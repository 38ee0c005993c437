"""Measure public models by `--dtype`: bytes on the device, memory and latency of a session, and the task's score."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

import seed_runtime
from bench import measure
from bench.measure import Figures, Goal
from seed_exporter.evaluate import footprint
from seed_exporter.peers import onnxruntime as peers
from seed_exporter.pipeline import export
from seed_exporter.results import Options

MODELS: Final[Mapping[str, tuple[int, float]]] = {
    "minilm6": (400, 0.01),
    "efflite0": (300, 0.02),
    "pprec": (100, 0.02),
    "magika": (400, 0.01),
}
"""Samples that are scored, and the share of the original's score that int8 may lose."""
QUICK: Final = {"magika": (24, 0.01)}
DTYPES: Final = ("fp32", "fp16", "int8", "int4")
RATIO: Final = 6.0
"""Ratio of all seeds: what they hold there is near the original's."""
EFFORT: Final = 2
"""Effort of all exports: what a target does is shown, not how well a search rounds."""
CALIBRATION: Final = 64
HELD_MOST, MEMORY_MOST, LATENCY_MOST = 0.27, 0.5, 1.0
"""Most of fp32's that int8 may take: assembled files, memory of a session, latency."""
ROUNDS: Final = 7
_SESSION: Final = """
import json, sys, time
from pathlib import Path
import numpy as np
from seed_runtime import backends
backends.get().load()
import onnxruntime as ort

def resident(part=""):
    found, counts = 0, True
    for line in open("/proc/self/smaps"):
        words = line.split()
        if "-" in words[0]:
            counts = part in line
        elif words[0] == "Rss:" and counts:
            found += int(words[1]) * 1024
    return found

path, mode = Path(sys.argv[1]), sys.argv[4]
before, library = resident(), resident("onnxruntime")
feeds = dict(np.load(sys.argv[2]))
if mode:
    run = backends.get().open(path.parent, mode, 1).run
else:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level, options.enable_cpu_mem_arena = 1, 3, False
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    run = lambda feeds: session.run(None, feeds)
times = []
for _ in range(1 + int(sys.argv[3])):
    start = time.process_time()
    run(feeds)
    times.append(time.process_time() - start)
print(json.dumps({
    "resident": resident() - before,
    "library": resident("onnxruntime") - library,
    "latency": sorted(times[1:])[len(times) // 2 - 1],
}))
"""
"""Opens a model in a process of its own: by ONNX Runtime with its defaults but for the arena, or by a mode of the
runtime. `library` is what the session made resident of ONNX Runtime's own file, which no model makes smaller."""


def run(quick: bool = False) -> Figures:
    from bench.public import cache_folder

    rows: list[Figures] = []
    goals: list[Figures] = []
    for name, (limit, lost) in (QUICK if quick else MODELS).items():
        with measure.scratch() as folder:
            found = _Subject(name, cache_folder(), folder, limit).rows(quick)
        rows += found
        goals += [goal.as_json() for goal in _goals(name, {row["held_as"]: row for row in found}, lost)]
    return {"ratio": RATIO, "rows": rows, "goals": goals}


def _goals(name: str, rows: Mapping[str, Figures], lost: float) -> list[Goal]:
    int8, fp32 = rows["int8"], rows["fp32"]
    change = int8["original"] - int8["score"] if int8["better"] == "higher" else int8["score"] - int8["original"]
    return [
        Goal(f"{name}: assembled files, of fp32's", int8["held_bytes"] / fp32["held_bytes"], HELD_MOST, ""),
        Goal(f"{name}: memory of a session, of fp32's", int8["resident"] / fp32["resident"], MEMORY_MOST, ""),
        Goal(f"{name}: latency, of fp32's", int8["latency"] / fp32["latency"], LATENCY_MOST, ""),
        Goal(f"{name}: score lost, of the original's", change / abs(int8["original"]), lost, ""),
    ]


class _Subject:
    """One model, with its inputs for calibration."""

    def __init__(self, name: str, cache: Path, folder: Path, limit: int) -> None:
        from bench.public import MODELS as PUBLIC
        from bench.public import onnx_run

        self._name, self._cache, self._folder, self._limit = name, cache, folder, limit
        self._model = PUBLIC[name]
        self._source = self._model.prepare(cache)
        self._feeds = self._model.inputs(cache, CALIBRATION, "calib")
        self._calib = folder / "calib.npz"
        np.savez(self._calib, **{key: np.concatenate([each[key] for each in self._feeds]) for key in self._feeds[0]})
        np.savez(folder / "feed.npz", **self._model.inputs(cache, 1, "test")[0])
        measure.note(f"targets: {name}: scoring the original")
        self._original = self._model.score(cache, onnx_run(self._source), limit)

    def rows(self, quick: bool) -> list[Figures]:
        """Export, assemble and score by each dtype; then make what the peers make."""
        made: list[tuple[str, Path, int]] = []
        # Its memory isn't needed here, and measuring it starts nine processes.
        footprint.measure = lambda *_, **__: None  # type: ignore[assignment]
        for dtype in ("fp32", "int8") if quick else DTYPES:
            measure.note(f"targets: {self._name}: exporting {dtype}")
            seed = self._folder / f"{dtype}.seed"
            options = Options(dtype=dtype, target=RATIO, effort=EFFORT, calib=self._calib)
            result = export(self._source, output=seed, options=options)
            seed_runtime.open(seed).assemble(self._folder / dtype)
            made.append((dtype, self._folder / dtype / "model.onnx", result.bytes))
        if not quick:
            made += self._peers()
        return [self._row(*each) for each in made]

    def _peers(self) -> list[tuple[str, Path, int]]:
        from seed_exporter import loaders

        graph, found = loaders.load(self._source), []
        makers: dict[str, Callable[..., Any]] = {peers.DYNAMIC.name: peers.dynamic, peers.STATIC.name: peers.static}
        for name, make in makers.items():
            measure.note(f"targets: {self._name}: {name}")
            folder = self._folder / name.split()[-1]
            folder.mkdir()
            try:
                delivered = make(graph, self._feeds[:16], folder, 0)
            except Exception as error:  # whatever a peer meets with is its result
                measure.say(f"{self._name}: {name}: {error}")
                continue
            found.append((name, delivered.model, delivered.size))
        return found

    def _row(self, name: str, path: Path, seed_bytes: int) -> Figures:
        from bench.public import onnx_run

        measure.note(f"targets: {self._name}: scoring {name}")
        compared = self._model.compare(self._original, self._model.score(self._cache, onnx_run(path), self._limit))
        session = self._session(path, "")
        own = self._session(path, "fast") if name in DTYPES else None
        weights = path.with_name("model.weights")
        held = path.stat().st_size + (weights.stat().st_size if weights.exists() else 0)
        return {
            "model": self._name,
            "held_as": name,
            "seed_bytes": seed_bytes,
            "held_bytes": held,
            "resident": session["resident"],
            "library": session["library"],
            "runtime_resident": own and own["resident"],
            "latency": measure.rounded(session["latency"]),
            "metric": compared["metric"],
            "better": compared["better"],
            "original": measure.rounded(float(compared["original"])),
            "score": measure.rounded(float(compared["candidate"])),
            "agreement": measure.rounded(compared.get("agreement")),
            "n": compared["n"],
        }

    def _session(self, path: Path, mode: str) -> Figures:
        """Open and run a model in a process of its own, by a mode of the runtime or, with none, by ONNX Runtime."""
        command = [sys.executable, "-c", _SESSION, str(path), str(self._folder / "feed.npz"), str(ROUNDS), mode]
        found: Figures = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        return found


def table(figures: Figures) -> list[str]:
    lines = [
        f"Seeds of {figures['ratio']:g}x at effort {EFFORT}, and ONNX Runtime's own quantizers on the same inputs.",
        "Memory is that of ONNX Runtime's session without an arena; of it, pages of the library's own file, which no",
        "model makes smaller; and that of the runtime's session.",
        "",
        "| model | held as | seed or file | device | memory | library | runtime's | latency | score | original's |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    return lines + [
        f"| {row['model']} | {row['held_as']} | {row['seed_bytes'] / 1e6:.2f} MB | {row['held_bytes'] / 1e6:.2f} MB"
        f" | {row['resident'] / 1e6:.1f} MB | {row['library'] / 1e6:.1f} MB | {_megabytes(row['runtime_resident'])}"
        f" | {1e3 * row['latency']:.1f} ms | {row['score']:.4f}"
        f" | {row['original']:.4f} ({row['metric']}, {row['n']}) |"
        for row in figures["rows"]
    ]


def _megabytes(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:.1f} MB"
