"""Whether seeds are still, byte for byte, what they were when the list was recorded.

Seeds at fixed settings must have the digests of `bench/identity.json`, which is recorded again after each intended
change of bytes. Where a size is searched for, a seed may have other steps: then it is shown by how much its bytes and
its error differ, and it may be at most 0.3 % larger. Factors and components come from the linear algebra of NumPy's
build, so another processor or version may round them otherwise; the list says on which it was made.

    python -m bench.identity --record [MODEL ...]     make a new list, after an intended change of bytes
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from threadpoolctl import threadpool_limits

from bench import measure, seeds
from bench.measure import Figures, Goal
from seed_exporter import loaders
from seed_exporter.build.streams import Plans
from seed_exporter.calibrate import WEIGHT_SCALES, collect
from seed_exporter.evaluate import footprint
from seed_exporter.graph.model import Graph
from seed_exporter.pipeline import export
from seed_exporter.quantize import allocate, lowrank
from seed_exporter.quantize.methods import published
from seed_exporter.quantize.steps import unit_steps
from seed_exporter.results import Options, Result

LIST = Path(__file__).with_suffix(".json")
LARGER_MOST = 1.003
"""Most bytes that a seed of the same goal may have, over those of the list."""
WORSE_MOST = 1.005
"""Most error, over that of the list, that counts as the same quality: it moves by as much with the order of sums."""
UNSEARCHED = ("smollm2",)
"""Models whose weights are integers already, so that there is nothing to search for."""

_FIXED: Mapping[str, Callable[[Graph, Mapping[str, float]], Plans]] = {
    "grid .1, 23 bits": lambda graph, units: allocate.uniform(graph, units, 0.1, 23),
    "grid .45, 13 bits": lambda graph, units: allocate.uniform(graph, units, 0.45, 13),
    "grid 2, 7 bits": lambda graph, units: allocate.uniform(graph, units, 2.0, 7),
    "lossless": lambda graph, units: allocate.lossless(graph),
    "lowrank 1, 10 bits": lambda graph, units: _with_factors(graph, allocate.uniform(graph, units, 1.0, 10)),
    "moments 8x, 10 bits": lambda graph, units: published.plans_of(graph, units, graph.distinct_bytes // 8, 10),
}
# The default's effort probes every tensor, which takes minutes on a large model: it is made once.
_SEARCHED: Mapping[str, Options] = {
    "default": Options(),
    "target 6": Options(target=6.0, effort=1),
    "target 8": Options(target=8.0, effort=1),
    "target 12": Options(target=12.0, effort=1),
    "target 20": Options(target=20.0, effort=1),
    "size 1/1.5": Options(target=1.5, effort=1),
    "lossless": Options(method="lossless"),
    "moments 8": Options(method="moments", target=8.0),
    "moments": Options(method="moments"),
}


def run(quick: bool = False) -> Figures:
    """Compare every public model's seeds with the list; the small models alone with `quick`."""
    listed = json.loads(LIST.read_text())
    rows: list[Figures] = []
    for name in ("magika", "ppcls", "basicpitch") if quick else listed["models"]:
        known, found = listed["models"][name], _seeds_of(name)
        rows += [
            {"model": name, "setting": setting, "bytes": seed["bytes"], "identical": seed == known["fixed"][setting]}
            for setting, seed in found["fixed"].items()
        ]
        for setting, seed in found["searched"].items():
            before = known["searched"][setting]
            rows.append(
                {
                    "model": name,
                    "setting": setting,
                    "bytes": seed["bytes"],
                    "step": seed["step"],
                    "identical": {key: seed[key] for key in _DECIDED} == {key: before[key] for key in _DECIDED},
                    "larger": measure.rounded(seed["bytes"] / before["bytes"]),
                    "worse": measure.rounded(seed["error"] / before["error"] if before["error"] else 1.0),
                    "searched": True,
                }
            )
    return {"rows": rows, "made_on": listed["machine"], "goals": [goal.as_json() for goal in _goals(rows)]}


def _goals(rows: list[Figures]) -> list[Goal]:
    fixed = [row for row in rows if not row.get("searched")]
    # The published method used fewer bytes than it may; that was a fault and has been fixed.
    searched = [row for row in rows if row.get("searched") and not row["setting"].startswith("moments")]
    return [
        Goal("seeds at fixed settings that differ", sum(not row["identical"] for row in fixed), 0, ""),
        Goal("largest searched seed, over the list's", max(row["larger"] for row in searched), LARGER_MOST, "x"),
        Goal(
            "largest error of a searched seed, over the list's", max(row["worse"] for row in searched), WORSE_MOST, "x"
        ),
    ]


def table(figures: Figures) -> list[str]:
    """Show the settings whose seeds differ, and count the others."""
    rows = figures["rows"]
    lines = [f"{sum(row['identical'] for row in rows)} of {len(rows)} seeds are as they were."]
    different = [row for row in rows if not row["identical"]]
    if different:
        lines += ["", "| model | setting | bytes | over the list's | error, over the list's |", "|---|---|--:|--:|--:|"]
    for row in different:
        larger, worse = row.get("larger", ""), row.get("worse", "")
        lines.append(f"| {row['model']} | {row['setting']} | {row['bytes']:,} | {larger} | {worse} |")
    return lines


_DECIDED = ("bytes", "step", "mantissa_bits", "lowrank")
"""What a search decides, and the bytes that follow from it."""


def _seeds_of(name: str) -> Figures:
    from bench.public import MODELS, cache_folder

    measure.say(f"identity: {name}")
    source = MODELS[name].prepare(cache_folder())
    graph = loaders.load(source)
    units = unit_steps(graph, collect(graph, {WEIGHT_SCALES})[WEIGHT_SCALES])
    # As an export does it: with more threads, sums are made in another order from run to run.
    with threadpool_limits(1, "blas"):
        fixed = {setting: _at(graph, choose(graph, units)) for setting, choose in _FIXED.items()}
    searched = {} if name in UNSEARCHED else {key: _searched(source, options) for key, options in _SEARCHED.items()}
    return {"fixed": fixed, "searched": searched}


def _at(graph: Graph, plans: Plans) -> Figures:
    with measure.scratch() as folder:
        made = seeds.make(graph, plans, folder / "identity.seed")
        data = made.path.read_bytes()
    return {
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "streams": [
            [stream.codec.name, len(stream.names), stream.size, _digest(b"".join(stream.chunks))]
            for stream in made.streams
        ],
    }


def _searched(source: Path, options: Options) -> Figures:
    # The memory of sessions differs from run to run, and takes long to measure.
    with measure.scratch() as folder, mock.patch.object(footprint, "measure", return_value=None):
        result = export(source, output=folder / "identity.seed", options=options)
    steps = [step for plan in result.plans.values() if (step := getattr(plan, "step", 0.0))]
    return {
        "bytes": result.bytes,
        "goal_met": result.goal_met,
        "error": max(error.relative for error in result.outputs.values()),
        "step": steps[0] if steps else 0.0,
        "mantissa_bits": _mantissa_bits(result),
        "lowrank": sum(isinstance(plan, lowrank.LowRankPlan) for plan in result.plans.values()),
        "seconds": {phase: round(seconds, 3) for phase, seconds in result.seconds.items()},
    }


def _mantissa_bits(result: Result) -> list[int]:
    return sorted(
        {bits for plan in result.plans.values() if (bits := getattr(plan, "mantissa_bits", None)) is not None}
    )


def _with_factors(graph: Graph, plans: Plans) -> Plans:
    return lowrank.replace_where_cheaper(graph, plans, lowrank.candidates(graph, plans), 2)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _record(names: list[str]) -> None:
    from bench.public import MODELS

    listed: dict[str, Any] = {"machine": measure.machine(), "models": {}}
    if names and LIST.exists():
        listed["models"] = json.loads(LIST.read_text())["models"]
    for name in names or MODELS:
        listed["models"][name] = _seeds_of(name)
        LIST.write_text(json.dumps(listed, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] != ["--record"]:
        sys.exit("usage: python -m bench.identity --record [MODEL ...]; to compare: python -m bench identity")
    _record(sys.argv[2:])
