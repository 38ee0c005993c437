"""Measure the memory of assembly with the base install, and check that the plan's own figure is enough.

One process of `seed-run --assemble` runs for each seed, in an environment of only NumPy, ONNX Runtime and the runtime;
its VmHWM is read when it ends. Then the same with `--max-memory` set to the plan's figure, inside a memory cgroup
of that size, and with half of it, which must be refused with exit code 14.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import venv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import seed_runtime
from bench import chart, measure, seeds, synthetic
from bench.measure import Figures, Goal
from seed_exporter.build import streams as encoder
from seed_exporter.graph.model import Graph
from seed_exporter.pipeline import export

MIB = 1 << 20
LIMIT_MIB = 64
SPREAD_MIB = 8
BUDGET_EXIT = 14

_LAUNCH = """
import atexit, os, sys
def note():
    with open("/proc/self/status") as status, open(os.environ["SEED_BENCH_PEAK"], "w") as out:
        out.write(next(line.split()[1] for line in status if line.startswith("VmHWM")))
    children = open(f"/proc/self/task/{os.getpid()}/children").read().split()
    if children:
        raise SystemExit("worker processes were left: their memory would have to be counted")
atexit.register(note)
from seed_runtime.cli import main
sys.exit(main(sys.argv[1:]))
"""
"""Program that runs `seed-run` and notes its VmHWM; ru_maxrss would be inherited from the process that started it."""


@dataclass(frozen=True)
class Outcome:
    exit_code: int
    peak: int
    """VmHWM [B]."""
    output: str
    complaint: str


def run(quick: bool = False) -> Figures:
    rows: list[Figures] = []
    goals: list[Goal] = []
    with measure.scratch() as folder, _cgroups() as cgroup:
        python = lean_environment(folder / "lean")
        for title, make in _cases(quick).items():
            measure.note(f"memory: {title}: making the seed")
            path = folder / "model.seed"
            session = make(path)
            row = {"title": title, **_measured(python, path, folder, cgroup, session)}
            rows.append(row)
            name = title.partition(",")[0]
            goals.append(Goal(f"{name}: peak of assembling", row["peak_mib"], LIMIT_MIB, "MiB"))
            for kind in ("assembly", "session"):
                if f"{kind}_plan_mib" in row:
                    goals.append(
                        Goal(f"{name}: {kind} at the plan's own figure, exit code", row[f"{kind}_at_plan"], 0, "")
                    )
                    goals.append(
                        Goal(f"{name}: {kind} at half of it, exit code is {BUDGET_EXIT}",
                             float(row[f"{kind}_at_half"] == BUDGET_EXIT), 1, "", least=True)
                    )  # fmt: skip
    peaks = [row["peak_mib"] for row in rows]
    goals.append(Goal("largest less smallest peak", max(peaks) - min(peaks), SPREAD_MIB, "MiB"))
    note = "" if cgroup else "no writable memory cgroup here: runs at the plan's figure were not held to it"
    return {"rows": rows, "goals": [goal.as_json() for goal in goals], "note": note}


def _cases(quick: bool) -> dict[str, Callable[[Path], bool]]:
    """Return titles, each with a function that writes the seed and returns whether sessions can be planned for it."""
    cases: dict[str, Callable[[Path], bool]] = {"MiniLM-L6, 22.6 M parameters": _minilm}
    if quick:
        return cases | {"GPT-2's shapes, one block": lambda path: _drawn(synthetic.gpt2(layers=1), path)}
    return cases | {
        "GPT-2's shapes, 124 M parameters": lambda path: _drawn(synthetic.gpt2(), path),
        "GPT-2's shapes at 1,600 wide, 1.0 G parameters": _billion,
    }


def _minilm(path: Path) -> bool:
    from bench.public import MODELS, cache_folder

    export(MODELS["minilm6"].prepare(cache_folder()), output=path)
    return True


def _drawn(graph: Graph, path: Path) -> bool:
    seeds.make(graph, seeds.plans_at(graph, 0.45), path)
    return False


def _billion(path: Path) -> bool:
    """Write a seed in which two distinct blocks, each coded as a stream of its own, are repeated fifteen times."""
    graph = synthetic.billion()
    plans = seeds.plans_at(graph, 0.45)
    groups: dict[str, list[str]] = {}
    for name in graph.weights:
        groups.setdefault(name.partition(".")[0] if "." in name else "embeddings", []).append(name)
    coded: dict[int, list[encoder.CodedStream]] = {}
    streams: list[encoder.CodedStream] = []
    for names in groups.values():
        key = id(graph.weights[names[0]].data)
        if key not in coded:
            part = Graph(graph.model, {name: graph.weights[name] for name in names})
            coded[key] = encoder.encode(part, plans)
        # The same streams are used again, under the names of this block.
        own = iter(names if len(coded[key]) == 1 else encoder.order_of(coded[key]))
        streams += [replace(stream, names=[next(own) for _ in stream.names]) for stream in coded[key]]
    seeds.write(graph, streams, plans, path)
    return False


def _measured(python: Path, path: Path, folder: Path, cgroup: Cgroups, session: bool) -> Figures:
    measure.note("memory: assembling")
    seed = seed_runtime.open(path)
    free = launch(python, [path, "--assemble", folder / "model", "--json"], folder)
    _expect(free, 0)
    row: Figures = {
        "parameters": seed.header.model.parameters,
        "seed_bytes": seed.file_size,
        "weights_bytes": seed.header.weights.size,
        "peak_mib": _mib(free.peak),
        "assemble_s": json.loads(free.output)["assemble_s"],
    }
    runs = {"assembly": ["--assemble", folder / "model", "--json"]}
    if session:
        runs["session"] = ["--verify", "--no-cache", "--json"]
    for kind, arguments in runs.items():
        measure.note(f"memory: {kind} at the plan's figure")
        plan = planned(python, [path, *arguments], folder)
        held = launch(python, [path, *arguments, "--max-memory", str(plan)], folder, cgroup, plan)
        half = launch(python, [path, *arguments, "--max-memory", str(plan // 2)], folder)
        row |= {
            f"{kind}_plan_mib": _mib(plan),
            f"{kind}_at_plan": held.exit_code,
            f"{kind}_at_plan_peak_mib": _mib(held.peak),
            f"{kind}_at_half": half.exit_code,
        }
        if held.exit_code:
            measure.say(f"{path.name}: {held.complaint.strip()}")
    return row


def planned(python: Path, arguments: Sequence[object], folder: Path) -> int:
    """Return the memory that a plan needs, as the refusal of a tiny limit names it [B]."""
    refused = launch(python, [*arguments, "--max-memory", "1MB"], folder)
    _expect(refused, BUDGET_EXIT)
    found = refused.complaint.rpartition("--max-memory ")[2].split()[0].rstrip(".;,")
    from seed_runtime.units import parse_size

    return parse_size(found)


def launch(
    python: Path, arguments: Sequence[object], folder: Path, cgroup: Cgroups | None = None, limit: int | None = None
) -> Outcome:
    """Run `seed-run` in the lean environment; with `limit` [B] inside a memory cgroup of that size."""
    peak = folder / "peak"
    peak.unlink(missing_ok=True)
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "SEED_BENCH_PEAK": str(peak)}
    command = [str(python), "-c", _LAUNCH, *map(str, arguments)]
    with contextlib.ExitStack() as stack:
        if cgroup and limit is not None:
            procs = stack.enter_context(cgroup.limited(limit))
            # The shell enters the group and then executes the program, so that all memory of the program counts.
            command = ["sh", "-c", f'echo $$ > {procs}; exec "$@"', "sh", *command]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    # It has gigabytes, and the next case must start with the same free space.
    shutil.rmtree(folder / "model", ignore_errors=True)
    size = int(peak.read_text()) << 10 if peak.exists() else 0
    return Outcome(done.returncode, size, done.stdout, done.stderr)


def lean_environment(folder: Path) -> Path:
    """Make an environment with only the base install, by links and without network, and return its interpreter."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    target = Path(subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('platlib'))"],
        check=True, capture_output=True, text=True,
    ).stdout.strip())  # fmt: skip
    wanted, seen = ["numpy", "onnxruntime"], set()
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        package = metadata.distribution(name)
        wanted += [line.split(";")[0].strip(" ()").split("<")[0].split(">")[0].split("=")[0].split("!")[0].strip()
                   for line in package.requires or [] if "extra" not in line]  # fmt: skip
        tops = {file.parts[0] for file in package.files or [] if file.parts[0] != ".."}
        for top in tops:
            source = Path(str(package.locate_file(top)))
            if source.exists() and not (target / top).exists():
                (target / top).symlink_to(source)
    (target / "seed_runtime").symlink_to(Path(seed_runtime.__file__).parent)
    return python


class Cgroups:
    """Memory cgroups of version 1 or 2, where this process may create them."""

    def __init__(self, root: Path, limit_file: str) -> None:
        self._root, self._limit_file = root, limit_file

    @contextlib.contextmanager
    def limited(self, limit: int) -> Iterator[Path]:
        """Create a group of `limit` bytes, and yield the file that moves a process into it."""
        group = self._root / f"seed-bench-{os.getpid()}"
        group.mkdir()
        try:
            (group / self._limit_file).write_text(str(limit))
            yield group / "cgroup.procs"
        finally:
            group.rmdir()


@contextlib.contextmanager
def _cgroups() -> Iterator[Cgroups | None]:
    root = Path("/sys/fs/cgroup")
    for place, limit_file in ((root / "memory", "memory.limit_in_bytes"), (root, "memory.max")):
        if (place / "cgroup.procs").exists() and os.access(place, os.W_OK):
            candidate = Cgroups(place, limit_file)
            with contextlib.suppress(OSError), candidate.limited(1 << 30):
                pass
            yield candidate
            return
    yield None


def _expect(outcome: Outcome, code: int) -> None:
    if outcome.exit_code != code:
        raise RuntimeError(f"seed-run ended with {outcome.exit_code}, not {code}: {outcome.complaint.strip()}")


def _mib(size: int) -> float:
    return round(size / MIB, 1)


def table(figures: Figures) -> list[str]:
    lines = [
        "| model | seed | assembled | peak of assembling | plan's figure | at it | at half |",
        "|---|--:|--:|--:|--:|---|---|",
    ]
    for row in figures["rows"]:
        for kind in ("assembly", "session"):
            if f"{kind}_plan_mib" not in row:
                continue
            start = (
                f"| {row['title']} | {row['seed_bytes'] / 1e6:.1f} MB | {row['weights_bytes'] / 1e6:.0f} MB "
                f"| **{row['peak_mib']:.1f} MiB** "
                if kind == "assembly"
                else "| with its session, golden sample | | | "
            )
            lines.append(
                f"{start}| {row[f'{kind}_plan_mib']:.1f} MiB | exit {row[f'{kind}_at_plan']}, "
                f"peak {row[f'{kind}_at_plan_peak_mib']:.1f} MiB | exit {row[f'{kind}_at_half']} |"
            )
    return lines


def charts(figures: Figures) -> dict[str, str]:
    groups = {
        f"{row['parameters'] / 1e6:,.0f} M parameters": {
            "assembled weights": row["weights_bytes"] / MIB,
            "peak of assembling them": row["peak_mib"],
        }
        for row in figures["rows"]
    }
    return {"memory": chart.bars("Memory of assembling, MiB (logarithmic)", groups, "MiB", logarithmic=True)}
