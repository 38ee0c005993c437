"""Compare whole seeds with peers at equal damage: bytes at one KL or cosine, and the task's score there.

Damage is the KL, or 1 - the cosine, between a candidate's answers and the original's on the test inputs of each public
model (bench/public). Each method is measured at two or more sizes around the model's line, and its bytes at the line
are interpolated (bench/equal_damage.py). Calibration inputs come from other sources than the test inputs. Quantizers of
fixed bits have one point each; a seed must be smaller than it without more damage.

The ablations switch the parts of an effort on one after the other, on three draws of calibration inputs.

What is measured is kept under bench/results/size, by the digest of the code that made it, so that a run that was
interrupted goes on where it stopped. Scores of originals are kept in the cache of the public models.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bench import measure, publish
from bench.equal_damage import Point, bound, bytes_at, measured
from bench.measure import Figures
from bench.size_table import DRAWS, INPUTS, PEER, charts, goals, means, table
from seed_exporter import loaders
from seed_exporter.comparison.own import OwnSeeds, own_seeds
from seed_exporter.peers import PEERS, Deliverable, PeerError
from seed_exporter.quantize.effort import DEFAULT, EFFORTS, Effort
from seed_exporter.results import Options
from seed_runtime.system.files import atomic_write

LINES = {"magika": 0.03, "efflite0": 0.01, "pprec": 0.01, "minilm6": 0.01, "ppcls": 0.01, "basicpitch": 0.001}
"""Damage at which a model's sizes are compared: KL [nat], or 1 - cosine for minilm6."""
ABLATED = ("magika", "ppcls", "efflite0")
"""Models of which the ablations are measured: each has some 70 seeds, of which a large model's take a minute each."""
TRAINED = ("magika",)
"""Models that are trained as well: the larger ones take an hour and more for each size on two cores."""
FRONTIERS, RATIOS = ("magika", "ppcls"), (4, 6, 8, 12, 16, 24, 40)
"""Models of which seeds of all these ratios are made: damage must rise from each to the next."""
SAMPLES = {"magika": 1000, "efflite0": 160, "pprec": 120, "minilm6": 300, "ppcls": 300, "basicpitch": 40}
QUICK_MODELS, QUICK_SAMPLES, QUICK_INPUTS = ("magika", "ppcls"), 100, 16
FIXED = tuple(name for name, peer in PEERS.items() if name not in ("xz", PEER))
"""Peers with one point each: quantizers to int8 and to 4 bits."""
ABLATIONS = {
    "rounding to nearest": Effort(),
    "+ probes": Effort(probes=True),
    "+ error feedback": Effort(probes=True, feedback=True),
    "+ steps of inputs": Effort(probes=True, feedback=True, input_steps=True),
    "+ steps of read rows": Effort(probes=True, feedback=True, input_steps=True, table_rows=True),
    "+ rate": replace(EFFORTS[DEFAULT], trellis=False),
    "+ trellis": EFFORTS[DEFAULT],
}
"""Efforts of which each adds one part to the one before."""
OWN = "own seed"
ROOT = Path(__file__).parents[1]
__all__ = ["charts", "run", "table"]


@dataclass(frozen=True)
class Own:
    """A way to make seeds: what is done for fewer bytes, and a draw of calibration inputs; None for no data."""

    title: str
    parts: Effort = EFFORTS[DEFAULT]
    draw: int | None = None

    @property
    def name(self) -> str:
        """The title, with the draw."""
        return f"{OWN}: {self.title}" + ("" if self.draw is None else f", draw {self.draw}")


DATA_FREE = Own("seed, no data")
CALIBRATED = Own("seed, calibrated", draw=0)
HIGHEST = Own("seed, highest effort", EFFORTS[max(EFFORTS)], draw=0)


def run(quick: bool = False) -> Figures:
    names = QUICK_MODELS if quick else tuple(LINES)
    models, seconds = [], 0.0
    for name in names:
        with Subject(name, quick) as subject:
            models.append(_measured(subject, quick))
            seconds += subject.seconds
        for line in table({"models": models[-1:], "means": {}})[2:]:
            measure.say(line)
    return {
        "models": models,
        "means": means(models),
        "goals": [goal.as_json() for goal in goals(models)],
        "note": f"Points are kept: all of these took {seconds / 60:.0f} minutes, in this run and those before it.",
    }


def _measured(subject: Subject, quick: bool) -> Figures:
    name = subject.name
    # What needs one calibration stands together: one is held at a time.
    rows = [subject.peer_curve(), subject.own_curve(DATA_FREE), subject.own_curve(CALIBRATED)]
    if name in TRAINED and not quick:
        rows.append(subject.own_curve(HIGHEST))
    return {
        "model": name,
        "damage": subject.damage_name,
        "line": LINES[name],
        "original": subject.original["value"],
        "rows": rows,
        "draws": [] if quick else [subject.own_curve(replace(CALIBRATED, draw=draw))["bytes"] for draw in range(DRAWS)],
        "fixed": [] if quick else subject.fixed(CALIBRATED),
        "frontier": subject.frontier(CALIBRATED) if name in FRONTIERS and not quick else [],
        "ablations": subject.ablations() if name in ABLATED and not quick else {},
    }


class Subject(AbstractContextManager["Subject"]):
    """One public model: the original's answers, and everything that is measured of it, kept on the disk.

    It holds one calibration at a time, with what was found out for one effort.
    """

    def __init__(self, name: str, quick: bool) -> None:
        from bench.public import MODELS, cache_folder

        self.name, self._public, self._cache = name, MODELS[name], cache_folder()
        self._limit = QUICK_SAMPLES if quick else SAMPLES[name]
        self._inputs = QUICK_INPUTS if quick else INPUTS
        self.path = self._public.prepare(self._cache)
        self._kept = _Kept(publish.RESULTS / "size" / f"{name}.json")
        self.damage_name = "1 - cosine" if name == "minilm6" else "KL"
        self.seconds = 0.0
        """Time that all points took that were asked for, in this run or in the one that they are kept from [s]."""
        self._held = ExitStack()
        self._calibrated: tuple[int | None, OwnSeeds] | None = None
        self._seeds: tuple[Effort, OwnSeeds] | None = None

    def __exit__(self, *_: object) -> None:
        self._held.close()

    @cached_property
    def original(self) -> Figures:
        """The original's score, with its outputs."""
        from bench.public import onnx_run

        key = hashlib.sha256(self.path.read_bytes() + code_of("bench/public")).hexdigest()[:16]
        kept = self._cache / "scores" / f"{self.name}-{self._limit}-{key}.npz"
        if kept.is_file():
            with np.load(kept) as arrays:
                score = json.loads(str(arrays["score"]))
                outputs = {key[len("out/") :]: arrays[key] for key in arrays.files if key.startswith("out/")}
            return {**score, "outputs": outputs}
        measure.say(f"{self.name}: scoring the original")
        score = self._public.score(self._cache, onnx_run(self.path), self._limit)
        plain = json.dumps({key: value for key, value in score.items() if key != "outputs"})
        kept.parent.mkdir(exist_ok=True)
        with atomic_write(kept) as file:
            np.savez(file, score=np.array(plain), **{f"out/{key}": value for key, value in score["outputs"].items()})
        return score

    @cached_property
    def graph(self) -> Any:
        return loaders.load(self.path)

    def peer_curve(self) -> Figures:
        """Measure NNCodec around the line."""
        peer = PEERS[PEER]

        def make(setting: float) -> Point:
            qp = -round(setting)
            return self.point(
                PEER, str(qp), code_of("exporter/seed_exporter/peers"),
                lambda folder: peer.make(self.graph, (), folder, qp),
            )  # fmt: skip

        # 16 parameters halve the step, and damage goes with its square.
        points = measured(make, 120.0, LINES[self.name], lambda setting, octaves: setting + 8 * octaves)
        return self._row(PEER, points)

    def own_curve(self, own: Own) -> Figures:
        """Measure seeds around the line; the first has the size at which NNCodec meets it."""
        start = self.peer_curve()["bytes"]
        points = measured(lambda size: self.own_point(own, size), start, LINES[self.name], self._move)
        return self._row(own.title, points)

    def frontier(self, own: Own) -> list[Figures]:
        """Measure seeds at all of RATIOS."""
        return [{"ratio": ratio, **_plain(self.own_point(own, self.graph.distinct_bytes / ratio))} for ratio in RATIOS]

    def fixed(self, own: Own) -> list[Figures]:
        """Measure peers of fixed bits, and for each the seed that must be smaller without more damage."""
        seeds = [Point(each["size"], each["damage"]) for each in self.own_curve(own)["points"]]
        rows = []
        for name in FIXED:
            row: Figures = {"method": name}
            rows.append(row)
            try:
                point = self._fixed_point(name)
            except PeerError as error:
                row["reason"] = str(error)
                continue
            if not any(each.size <= point.size and each.damage <= point.damage for each in seeds):
                seeds.append(self.own_point(own, 0.98 * point.size))
            sizes = [each.size for each in seeds if each.damage <= point.damage]
            row |= {
                "point": _plain(point),
                "own_bytes": min(sizes, default=None),
                "own_least_damage": min(each.damage for each in seeds),
            }
        return rows

    def _fixed_point(self, name: str) -> Point:
        peer = PEERS[name]
        if not peer.is_installed:
            raise PeerError(f"not installed: {peer.install}")
        feeds = self._draw(0)[:32] if peer.needs_data else ()
        code = code_of("exporter/seed_exporter/peers")
        return self.point(name, "", code, lambda folder: peer.make(self.graph, feeds, folder, 0))

    def ablations(self) -> Figures:
        """Measure the bytes at the line of each of ABLATIONS, for all draws of calibration inputs."""
        found: dict[str, list[float]] = {title: [] for title in ABLATIONS}
        for draw in range(DRAWS):
            for title, parts in ABLATIONS.items():
                found[title].append(self.own_curve(Own(title, parts, draw))["bytes"])
        return found

    def _move(self, size: float, octaves: float) -> float:
        # A bit more for each weight is a quarter of the damage.
        return size + octaves / 2 * self.graph.parameters / 8

    def own_point(self, own: Own, size: float) -> Point:
        """Measure the seed of a size."""
        data = "no data" if own.draw is None else f"{self._inputs} inputs, draw {own.draw}"
        options, code = f"{own.parts}, {data}, {round(size)}", code_of("exporter", "runtime")
        return self.point(
            "seed", options, code, lambda folder: self.seeds_of(own).make(round(size), folder), own.name
        )  # fmt: skip

    def seeds_of(self, own: Own) -> OwnSeeds:
        """Return what makes seeds of this kind; the model is calibrated where the last one was of another draw."""
        if self._calibrated is None or self._calibrated[0] != own.draw:
            self._held.close()
            self._seeds = None
            options = Options()
            if own.draw is not None:
                folder = Path(self._held.enter_context(tempfile.TemporaryDirectory(prefix="seed-bench-")))
                draw, calib = self._draw(own.draw), folder / "calib.npz"
                np.savez(calib, **{key: np.concatenate([feeds[key] for feeds in draw]) for key in draw[0]})
                options = Options(calib=calib)
            self._calibrated = own.draw, self._held.enter_context(own_seeds(self.path, options))
        # Of one effort at a time: what was found out for each may take hundreds of megabytes.
        if self._seeds is None or self._seeds[0] != own.parts:
            self._seeds = own.parts, self._calibrated[1].with_parts(own.parts)
        return self._seeds[1]

    def _draw(self, draw: int) -> list[dict[str, np.ndarray]]:
        inputs = self._public.inputs(self._cache, self._inputs * (draw + 1), "calib")
        return inputs[self._inputs * draw :]

    def point(
        self, method: str, options: str, code: bytes, make: Callable[[Path], Deliverable], title: str = ""
    ) -> Point:
        """Make one deliverable and score it, unless that is kept. Raises PeerError, which is kept as well."""
        key = f"{method}|{options}|{self._limit}|{hashlib.sha256(code).hexdigest()[:16]}"
        if (kept := self._kept.get(key)) is None:
            start = time.perf_counter()
            kept = self._scored(title or f"{method} {options}", make)
            # With the calibration, where this is the first seed of one, and the score.
            self._kept.put(key, {**kept, "took": round(time.perf_counter() - start, 1)})
        self.seconds += kept.get("took", 0.0)
        if "reason" in kept:
            raise PeerError(kept["reason"])
        return Point(kept["size"], kept["damage"], kept)

    def _scored(self, title: str, make: Callable[[Path], Deliverable]) -> Figures:
        from bench.public import onnx_run

        original = self.original
        with tempfile.TemporaryDirectory(prefix="seed-bench-") as folder:
            start = time.perf_counter()
            try:
                made = make(Path(folder))
                seconds = time.perf_counter() - start
                score = self._public.score(self._cache, onnx_run(made.model), self._limit)
            except PeerError as error:
                return {"reason": str(error)}
            except Exception as error:
                if title.startswith(OWN):
                    raise
                reason = " ".join(str(error).replace(f"{folder}/", "").split())
                return {"reason": f"what it made can't be run: {reason[:160]}"}
        compared = self._public.compare(original, score)
        damage = 1 - compared["cosine"] if "cosine" in compared else compared["kl"]
        measure.say(f"{self.name}: {title}: {made.size:,} B, damage {damage:.5f}, {seconds:.0f} s")
        return {
            "size": made.size,
            "damage": max(damage, 0.0),
            "score": compared["candidate"],
            "agreement": compared["agreement"],
            "seconds": round(seconds, 1),
        }

    def _row(self, title: str, points: list[Point]) -> Figures:
        line = LINES[self.name]
        nearest = min(points, key=lambda point: abs(np.log(max(point.damage, 1e-9) / line)))
        return {
            "method": title,
            "bytes": bytes_at(points, line),
            "bound": bound(points, line),
            "score": nearest.figures["score"],
            "score_lost": self._lost(nearest.figures["score"]),
            "agreement": nearest.figures["agreement"],
            "seconds": max(point.figures["seconds"] for point in points),
            "points": [_plain(point) for point in points],
        }

    def _lost(self, score: float) -> float:
        change = self.original["value"] - score
        return (change if self.original["better"] == "higher" else -change) / abs(self.original["value"])


class _Kept:
    """Results on the disk by key, written after each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: dict[str, Figures] = json.loads(path.read_text()) if path.is_file() else {}

    def get(self, key: str) -> Figures | None:
        return self._held.get(key)

    def put(self, key: str, figures: Figures) -> Figures:
        self._held[key] = figures
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(self._path) as file:
            file.write(json.dumps(self._held, indent=1).encode())
        return figures


@cache
def code_of(*folders: str) -> bytes:
    """Return a digest of all Python files in these folders: what is kept holds for this code."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.digest()


def _plain(point: Point) -> Figures:
    return {"size": point.size, "damage": measure.rounded(point.damage)}
