"""`python -m bench.claims.heal`: heal a trained network to a size, and judge the seed on the whole held-out side.

Teachers and students are healed alike: with the same loop, price and coder. `--out` is filled as training fills it, so
that `bench.claims.keep` reads it: `model.seed`, `result.json`, `verdicts.npz`, and `looks.jsonl` with a line a look.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import seed_exporter
from seed_exporter.heal.settings import HealSettings
from seed_runtime.errors import SeedError

from . import checkpoints, judging, models, runs
from .assembled import Assembled
from .exporting import export
from .goals import GOALS
from .heal_inputs import HealInputs
from .training import device

DATA_ERROR = 3
LEAST = 1.0  # that healing is given, however long its preparation took [s]


def main(arguments: list[str] | None = None) -> int:
    """Heal and print the result as one line of JSON; what is finished is printed again."""
    parser = argparse.ArgumentParser(prog="python -m bench.claims.heal", description=__doc__)
    parser.add_argument("--start", type=Path, required=True, help="folder of the checkpoint that is healed")
    parser.add_argument("--teacher", type=Path, help="folder of the checkpoint to learn from (default: --start)")
    parser.add_argument("--random", action="store_true", help="begin with random weights in place of those of --start")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data and its tokens")
    parser.add_argument("--out", type=Path, required=True, help="folder of the seed and its results")
    parser.add_argument("--size", type=int, help="of the seed (default: the goal of the network to learn from) [B]")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of healing in place of its default"
    )
    parser.add_argument("--time-limit", type=float, default=600, help="seconds until the seed is written")
    parser.add_argument("--jobs", type=int, help="threads")
    parser.add_argument("--tiny", action="store_true", help="few samples, short windows")
    options = parser.parse_args(arguments)
    result = options.out / "result.json"
    try:
        if not result.is_file():
            heal(options)
    except (OSError, ValueError, SeedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return DATA_ERROR
    print(json.dumps({key: value for key, value in json.loads(result.read_text()).items() if key != "looks"}))
    return 0


def goal_size(name: str, parameters: int) -> int:
    """Return the largest size that keeps bytes and ratio of a network's goal [B].

    Raises:
        ValueError: it has none.
    """
    found = [min(goal.size, int(4 * parameters / goal.ratio)) for goal in GOALS if goal.name == name]
    if not found:
        raise ValueError(f"{name} has no goal of its own; give --size, or as --teacher a network that has one")
    return found[0]


def goal_of(folder: Path) -> int:
    """Return the largest size of a seed of a checkpoint's network, or of one that learns from it [B].

    Raises:
        ValueError: it has no goal.
    """
    return goal_size(checkpoints.load(folder)[1]["name"], models.parameters(runs.load(folder, device())))


def settings_of(given: list[str]) -> HealSettings:
    """Return the settings of healing with some other values, such as `fold=0.75`.

    Raises:
        ValueError: a name or a value is none.
    """
    kinds = {each.name: type(each.default) for each in fields(HealSettings)}
    values: dict[str, Any] = {}
    for text in given:
        name, _, value = text.partition("=")
        if name not in kinds:
            raise ValueError(f"--set {text}: healing has the settings {', '.join(kinds)}")
        values[name] = kinds[name](json.loads(value))
    return HealSettings(**values)


def heal(options: argparse.Namespace) -> dict[str, Any]:
    """Write the seed and all that is said of it."""
    began = time.monotonic()
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    name = checkpoints.load(options.start)[1]["name"]
    kind = runs.kind_of(name)
    parameters = models.parameters(runs.load(options.start, device()))
    if options.tiny:
        size = 2 * parameters  # no graph fits into the bytes of the goal
    else:
        size = options.size or goal_of(options.teacher or options.start)
    task = runs.task_of(kind, options.data, device(), rng_seed=1, tiny=options.tiny)
    inputs, seconds = HealInputs(kind, task), []

    def progress(phase: str, done: int, total: int) -> None:
        if phase.startswith("heal: "):  # a look
            seconds.append(time.monotonic() - began)
            print(f"{seconds[-1]:7.1f} s  {done:4d} of {total}  {phase}", flush=True)

    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        model = export(options.start, folder / f"{name}.onnx", random=options.random)
        given: dict[str, Any] = {}
        if options.teacher:
            given["teacher"] = export(options.teacher, folder / "teacher.onnx")
        asked = seed_exporter.Options(
            size=size,
            heal=inputs.write_judges(folder / "judges.npz"),
            draw=inputs.draw,
            heal_settings=settings_of(options.set) if options.set else None,
            resume=out / "state",
            model_id=name,
            time_limit=max(LEAST, options.time_limit - (time.monotonic() - began)),
            **({"jobs": options.jobs} if options.jobs else {}),
            **given,
        )
        healing = time.monotonic()
        made_seed = seed_exporter.export(
            model, output=out / "model.seed", options=asked, progress=progress, say=lambda line: print(line, flush=True)
        )
        ended = time.monotonic()
    looks = [asdict(look) | {"seconds": at} for look, at in zip(made_seed.healing, seconds, strict=False)]
    (out / "looks.jsonl").write_text("".join(json.dumps(look) + "\n" for look in looks))
    seed = Assembled(out / "model.seed", device())
    first = next(iter(task.held()))[0]
    compared = (first,) if kind == "english" else judging.inputs_of(first)
    return runs.write_verdicts(
        out,
        judging.held_verdicts(seed, task),
        {
            "name": name,
            "random": options.random,
            "parameters": parameters,
            "bytes": made_seed.bytes,
            "asked": size,
            "set": options.set,
            "ratio": 4 * parameters / made_seed.bytes,
            "goal_met": made_seed.goal_met,
            "damage": made_seed.damage,
            "batches": inputs.batches,
            "preparation_s": healing - began,
            "seconds": ended - healing,
            "phases": made_seed.seconds,
            "runtime_difference": seed.difference(*compared),
            "notes": list(made_seed.notes),
        },
    )


if __name__ == "__main__":
    sys.exit(main())
