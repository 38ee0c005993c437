"""Measure decoding on one core, from the seed file to float weights in their file, beside NNCodec and plain int8.

All three decode the same matrices. `seed` reads the seed, checks every digest, decodes, writes `model.weights` and
syncs it. `nncodec` decodes a bitstream of the same integers to arrays in memory and writes nothing. `int8` reads plain
codes and writes floats with one scale per row; it loses more precision than the others, and its time is a lower bound
for any decoder. `trellis` decodes a seed of the same integers on trellises, which make other weights of them: its time
alone is of interest. They run in turn, on one core, in one process; figures are processor seconds, kernel included.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench import chart, measure, peers, seeds, synthetic
from bench.measure import Figures, Goal
from seed_exporter import loaders
from seed_exporter.build.streams import Plans
from seed_exporter.codecs.grid import GridPlan
from seed_exporter.graph.model import Graph
from seed_exporter.peers.nncodec import module

BITS = 3.0
"""Bits per weight that the quantization steps are chosen for, as entropy under the contexts [bit]."""
SLACK = 2 << 10
"""Size by which a stream may exceed its entropy, beyond one percent [B]."""


@dataclass(frozen=True)
class Case:
    """A set of tensors, and the goal for the speed as a multiple of NNCodec's."""

    title: str
    graph: Callable[[bool], Graph]
    times: float


def _minilm(quick: bool) -> Graph:
    from bench.public import MODELS, cache_folder

    return loaders.load(MODELS["minilm6"].prepare(cache_folder()))


CASES = {
    "gpt2": Case(
        "GPT-2's shapes, drawn weights",
        lambda quick: synthetic.gpt2(layers=1) if quick else synthetic.gpt2(), 8,
    ),
    "minilm6": Case("MiniLM-L6, its own weights", _minilm, 4),
    "resnet50": Case("ResNet-50's shapes, drawn weights", lambda quick: synthetic.resnet50(), 4),
}  # fmt: skip
INT8_TIMES = 8
TRELLIS_TIMES = 2


def run(quick: bool = False) -> Figures:
    rows: list[Figures] = []
    goals: list[Goal] = []
    for name, case in CASES.items():
        with measure.scratch() as folder:
            row = {"case": name, "title": case.title, **_prepare(case, folder, quick)}
            measure.note(f"{name}: measuring")
            child = subprocess.run(
                [sys.executable, "-m", "bench.decode", str(folder), "2" if quick else "5"],
                stdout=subprocess.PIPE, check=True, text=True,
            )  # fmt: skip
            row |= json.loads(child.stdout)
        rows.append(row)
        goals += _goals(row, case)
    return {"rows": rows, "goals": [goal.as_json() for goal in goals]}


def _goals(row: Figures, case: Case) -> list[Goal]:
    name = case.title.partition(",")[0]
    allowed = 0.01 * row["entropy_bytes"] + SLACK * row["streams"]
    return [
        Goal(f"{name}: parameters/s, times NNCodec's", row["times_nncodec"], case.times, "x", least=True),
        Goal(f"{name}: time, times int8's", row["times_int8"], INT8_TIMES, "x"),
        Goal(f"{name}: time on trellises, of without", row["times_trellis"], TRELLIS_TIMES, "x"),
        Goal(f"{name}: bytes above entropy, of 1 % + 2 KiB", row["excess_bytes"] / allowed, 1, ""),
    ]


def _prepare(case: Case, folder: Path, quick: bool) -> Figures:
    measure.note(f"{case.title}: drawing, encoding")
    graph = case.graph(quick)
    plans, made = at_three_bits(graph, folder / "model.seed")
    seeds.make(graph, on_trellises(graph, plans), folder / "trellis.seed")
    matrices = seeds.dequantized(graph, plans)
    count = sum(array.size for array in matrices.values())
    measure.note(f"{case.title}: encoding with NNCodec")
    qps = {name: peers.nncodec_qp(plan.step) for name, plan in plans.items() if isinstance(plan, GridPlan)}
    bitstream = peers.nncodec_encode(matrices, qps)
    (folder / "model.nnc").write_bytes(bitstream)
    shapes, scales, codes = {}, {}, {}
    for name, array in matrices.items():
        most = np.abs(array).max(axis=1)
        scales[name] = np.where(most > 0, most, 1).astype(np.float32) / np.float32(127)
        codes[name] = np.rint(array / scales[name][:, None]).astype(np.int8)
        shapes[name] = array.shape
    peers.write_int8(codes, folder / "model.int8")
    np.savez(folder / "scales.npz", **scales)
    (folder / "shapes.json").write_text(json.dumps(shapes))
    coded = sum(stream.size for stream in made.matrices)
    entropy = math.ceil(sum(stream.entropy_bits for stream in made.matrices) / 8)
    return {
        "weights": count,
        "bits_per_weight": measure.rounded(8 * coded / count),
        "coded_bytes": coded,
        "entropy_bytes": entropy,
        "excess_bytes": coded - entropy,
        "streams": len(made.matrices),
        "nncodec_bits_per_weight": measure.rounded(8 * len(bitstream) / count),
    }


def at_three_bits(graph: Graph, path: Path) -> tuple[Plans, seeds.Made]:
    """Choose one relative step for all matrices: a guess, corrected once by the difference of its entropy to BITS."""
    coarseness = 0.45
    for _ in range(2):
        plans = seeds.plans_at(graph, coarseness)
        made = seeds.make(graph, plans, path)
        weights = sum(graph.weights[name].count for stream in made.matrices for name in stream.names)
        bits = seeds.bits_per_weight(made.matrices, weights)
        if abs(bits - BITS) < 0.05:
            break
        coarseness *= 2 ** (bits - BITS)
    return plans, made


def on_trellises(graph: Graph, plans: Plans) -> Plans:
    """Plan the same integers on trellises, with half the step, and with the delay that takes the longest time."""
    found = dict(plans)
    for name, plan in plans.items():
        if isinstance(plan, GridPlan):
            matrix = plan.quantize(graph.weights[name])
            found[name] = GridPlan.of_narrow(replace(matrix, step=matrix.step / 2, delay=1))
    return found


def _measured(folder: Path, count: int) -> Figures:
    """Measure a case in a process of its own, on one core."""
    import seed_runtime

    nnc = module()
    shapes = {name: tuple(shape) for name, shape in json.loads((folder / "shapes.json").read_text()).items()}
    with np.load(folder / "scales.npz") as arrays:
        scales = {name: arrays[name] for name in shapes}
    target = folder / "assembled"

    def seed(name: str = "model") -> None:
        seed_runtime.open(folder / f"{name}.seed").assemble(target)

    def trellis() -> None:
        seed("trellis")

    def nncodec() -> Any:
        return nnc.decompress(bytearray((folder / "model.nnc").read_bytes()))

    def nncodec_file() -> None:
        peers.write_arrays(nncodec(), folder / "model.floats")

    def int8() -> None:
        peers.dequantize_int8(shapes, scales, folder / "model.int8", folder / "model.floats")

    # The first calls load code and are not counted; they check that both decode the same floats.
    trellis()
    seed()
    _same(folder, target, nncodec())
    int8()

    def fresh(call: Callable[[], object]) -> Callable[[], measure.Spent]:
        # Removing the last round's files is counted for none of them.
        def cleared() -> measure.Spent:
            shutil.rmtree(target, ignore_errors=True)
            (folder / "model.floats").unlink(missing_ok=True)
            return measure.spent(call)

        return cleared

    calls = {"seed": seed, "trellis": trellis, "nncodec": nncodec, "int8": int8}
    times = measure.rounds({name: fresh(call) for name, call in calls.items()}, count)
    times |= measure.rounds({"nncodec_file": fresh(nncodec_file)}, 1)
    weights = sum(math.prod(shape) for shape in shapes.values())
    ratio = measure.median_ratio
    return {
        "seed_m_per_s": measure.rounded(weights / measure.median([t.cpu for t in times["seed"]]) / 1e6),
        "nncodec_m_per_s": measure.rounded(weights / measure.median([t.cpu for t in times["nncodec"]]) / 1e6),
        "nncodec_file_m_per_s": measure.rounded(weights / times["nncodec_file"][0].cpu / 1e6),
        "int8_m_per_s": measure.rounded(weights / measure.median([t.cpu for t in times["int8"]]) / 1e6),
        "times_nncodec": measure.rounded(ratio(times["nncodec"], times["seed"])),
        "times_nncodec_clock": measure.rounded(ratio(times["nncodec"], times["seed"], "wall")),
        "times_int8": measure.rounded(ratio(times["seed"], times["int8"])),
        "times_trellis": measure.rounded(ratio(times["trellis"], times["seed"])),
        "times_int8_clock": measure.rounded(ratio(times["seed"], times["int8"], "wall")),
        "rounds": count,
        "load": measure.load(),
    }


def _same(folder: Path, target: Path, decoded: dict[str, np.ndarray]) -> None:
    """Raise RuntimeError unless both decoders gave the same floats."""
    import seed_runtime
    from seed_runtime.format.sections.holes import name_digest

    weights = np.memmap(target / "model.weights", np.uint8, "r")
    names = {name_digest(name): name for name in decoded}
    for hole in seed_runtime.open(folder / "model.seed").header.holes:
        name = names.get(hole.name_digest)
        if name is not None:
            ours = weights[hole.offset : hole.offset + hole.size].view(np.float32)
            if not np.array_equal(ours, decoded[name].reshape(-1)):
                raise RuntimeError(f"{name}: the seed and NNCodec decode to different weights")


def table(figures: Figures) -> list[str]:
    lines = [
        "| million weights per second | weights | seed | NNCodec | int8 | times NNCodec | times int8's | trellises |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {row['title']} | {row['weights'] / 1e6:.1f} M | {row['seed_m_per_s']:.0f} | {row['nncodec_m_per_s']:.1f} "
        f"| {row['int8_m_per_s']:.0f} | **{row['times_nncodec']:.1f}x** | {row['times_int8']:.1f}x "
        f"| {row['times_trellis']:.2f}x |"
        for row in figures["rows"]
    ]
    lines += ["", "| bits per weight | seed | entropy under its contexts | above it | NNCodec, same integers |"]
    lines += ["|---|--:|--:|--:|--:|"]
    lines += [
        f"| {row['title']} | {row['bits_per_weight']:.3f} | {8 * row['entropy_bytes'] / row['weights']:.3f} "
        f"| {row['excess_bytes'] / row['entropy_bytes']:.2%}, {row['excess_bytes'] / 1024:.0f} KiB "
        f"| {row['nncodec_bits_per_weight']:.3f} |"
        for row in figures["rows"]
    ]
    return lines


def charts(figures: Figures) -> dict[str, str]:
    groups = {
        row["title"].partition(",")[0]: {"seed": row["seed_m_per_s"], "NNCodec": row["nncodec_m_per_s"]}
        for row in figures["rows"]
    }
    return {"decode": chart.bars("Decoding on one core, million parameters per second", groups, "M/s")}


if __name__ == "__main__":
    measure.one_core()
    print(json.dumps(_measured(Path(sys.argv[1]), int(sys.argv[2]))))
