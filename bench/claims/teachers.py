"""`python -m bench.claims.teachers`: train a teacher, train it on, export it, or measure the plain control."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from . import models, runs
from .training import Limit

DATA_ERROR = 3


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.claims.teachers",
        description="Train a teacher of the claims; the same command goes on where it was stopped.",
        epilog="example: python -m bench.claims.teachers resnet50 --data D --out O/resnet50 --time-limit 400",
    )
    parser.add_argument(
        "name",
        choices=[*models.SETTINGS, "baseline", "export"],
        help="a network; baseline: TF-IDF and a line; export: ONNX of --start",
    )
    options = options_of(parser, arguments)
    try:
        if options.name == "baseline":
            from .baseline import accuracy

            print(json.dumps({"name": "baseline", **accuracy(options.data)}))
            return 0
        if options.name == "export":
            from .exporting import export

            print(export(options.start, options.out))
            return 0
        settings = (models.TINY if options.tiny else models.SETTINGS)[options.name]
        return say(run_of(options), settings, models.KINDS[options.name])
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return DATA_ERROR


def options_of(parser: argparse.ArgumentParser, arguments: list[str] | None) -> argparse.Namespace:
    """Parse what teachers and students have in common."""
    parser.add_argument("--data", type=Path, help="folder of the data and its tokens")
    parser.add_argument("--out", type=Path, help="folder of the checkpoint; for export the ONNX file")
    parser.add_argument("--time-limit", type=float, default=400, help="seconds (default: 400)")
    parser.add_argument("--steps", type=int, help="steps in place of seconds")
    parser.add_argument("--batch", type=int, help="samples a step")
    parser.add_argument("--start", type=Path, help="checkpoint to train on from")
    parser.add_argument("--teacher", type=Path, help="checkpoint whose answers are learned")
    parser.add_argument("--masked-share", type=float, default=0.7, help="of the time, for masked words (default: 0.7)")
    parser.add_argument("--masked-only", action="store_true", help="end after the masked words")
    parser.add_argument("--rate", type=float, help="learning rate in place of the task's own")
    parser.add_argument(
        "--tiny", action="store_true", help="a minimal structure on few samples: shows that everything works"
    )
    parser.add_argument("--compile", action="store_true", help="compile the network where there is a GPU; for gpt2")
    parser.add_argument(
        "--recorded", action="store_true", help="record steps as CUDA graphs where there is a GPU; for small batches"
    )
    parser.add_argument("--rng-seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.name == "export":
        if not options.start or not options.out:
            parser.error("export needs --start and --out")
    elif not options.data or (options.name != "baseline" and not options.out):
        parser.error(f"{options.name} needs --data and --out")
    return options


def run_of(options: argparse.Namespace) -> runs.Run:
    """Return the run that the options describe."""
    return runs.Run(
        name=options.name,
        data=options.data,
        out=options.out,
        limit=Limit(options.time_limit, options.steps),
        batch=options.batch,
        start=options.start,
        teacher=options.teacher,
        masked_share=options.masked_share,
        masked_only=options.masked_only,
        rate=options.rate,
        tiny=options.tiny,
        compiled=options.compile,
        recorded=options.recorded,
        rng_seed=options.rng_seed,
    )


def say(run: runs.Run, settings: dict[str, Any], kind: str) -> int:
    """Train and print the result as one line of JSON; what is finished is printed again, not trained again."""
    if runs.is_finished(run.out):
        print(json.dumps(json.loads((run.out / "result.json").read_text())))
        return 0
    trains = {"glyphs": runs.vision, "sections": runs.text, "english": runs.language}[kind]
    print(json.dumps(trains(run, settings)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
