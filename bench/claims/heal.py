"""`python -m bench.claims.heal`: heal a trained network to a size, and judge the seed on the whole held-out side.

Teachers and students are healed alike: with the same loop, price and coder. `--out` is filled as training fills it, so
that `bench.claims.keep` reads it: `model.seed`, `result.json`, `verdicts.npz`, and `looks.jsonl` with a line a look.
A run may be longer than a machine is held: with `--whole` it pauses where the time limit ends, and the same command
goes on from the state, also on another machine to which `bench.claims.collect --state` and `pack --with` brought it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import tempfile
import time
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import seed_exporter
from seed_exporter.heal.settings import HealSettings
from seed_runtime.errors import SeedError

from . import checkpoints, judging, models, runs, states
from .assembled import Assembled
from .exporting import export
from .goals import GOALS
from .heal_inputs import HealInputs
from .training import device

DATA_ERROR = 3
OVER = 0.999  # share of a run from which on it counts as over
LOOK_EVERY = 25.0  # of a run that may pause [s]
ROOM = 1.05  # seconds that are left of a run, over those that there are, from which on it pauses
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
    parser.add_argument("--whole", type=float, help="seconds of the whole run, of which the time limit is a part")
    parser.add_argument(
        "--rewind", type=float, metavar="SHARE", help="train a run that is over on, from this share of it"
    )
    parser.add_argument("--jobs", type=int, help="threads")
    parser.add_argument("--tiny", action="store_true", help="few samples, short windows")
    options = parser.parse_args(arguments)
    result = options.out / "result.json"
    try:
        options.set = states.settings(options.out / "state", options.set)
        if not result.is_file() and (paused := heal(options)) is not None:
            print(json.dumps({"paused": paused}))
            return 0
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


class _PausedError(Exception):
    """The machine's time is over, and the run isn't."""


def heal(options: argparse.Namespace) -> float | None:
    """Write the seed and all that is said of it; return the share of the run that was done where it paused instead."""
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
    inputs, seconds, batches, state = HealInputs(kind, task), [], [], out / "state"
    states.join(state)
    if options.rewind is not None and states.share_of(state) > OVER:
        states.rewind(state, options.rewind)
    settings, left = settings_of(options.set), options.time_limit - (time.monotonic() - began)
    if options.whole:
        settings = replace(settings, looks=max(settings.looks, round(options.whole / LOOK_EVERY)))
        left = (1 - states.share_of(state)) * options.whole
    pauses = began + options.time_limit if left > ROOM * options.time_limit else math.inf

    def progress(phase: str, done: int, total: int) -> None:
        if phase.startswith("heal: "):  # a look
            seconds.append(time.monotonic() - began)
            batches.append(inputs.batches)
            print(f"{seconds[-1]:7.1f} s  {done:4d} of {total}  {phase}, {batches[-1]:,} batches", flush=True)
            if time.monotonic() >= pauses:
                raise _PausedError

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
            heal_settings=settings if options.set or options.whole else None,
            resume=state,
            resume_key=key_of(options, size),
            model_id=name,
            time_limit=max(LEAST, left),
            **({"jobs": options.jobs} if options.jobs else {}),
            **given,
        )
        healing = time.monotonic()
        try:
            made_seed = seed_exporter.export(
                model, output=out / "model.seed", options=asked, progress=progress, say=partial(print, flush=True)
            )
        except _PausedError:
            return states.share_of(state)
        ended = time.monotonic()
    told = zip(made_seed.healing, seconds, batches, strict=False)
    looks = [asdict(look) | {"seconds": at, "batches": count} for look, at, count in told]
    (out / "looks.jsonl").write_text("".join(json.dumps(look) + "\n" for look in looks))
    seed = Assembled(out / "model.seed", device())
    first = next(iter(task.held()))[0]
    compared = (first,) if kind == "english" else judging.inputs_of(first)
    runs.write_verdicts(
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
    return None


def key_of(options: argparse.Namespace, size: int) -> str:
    """Return what tells a run from others: its networks, size and settings, whatever machine computes it."""
    networks = [checkpoints.digest_of(each) for each in (options.start, options.teacher) if each is not None]
    text = json.dumps([networks, options.random, size, options.set])
    return hashlib.sha256(text.encode()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
