"""`python -m bench.heal MODEL --target 20`: a public model healed in a time, and calibrated to as many bytes.

Both get the same inputs, of the `calib` split, and are judged once on the `test` split. The calibrated seed has the
highest effort without training, and no time limit.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import seed_exporter
import seed_runtime
from bench import measure
from bench.measure import Figures
from bench.public import MODELS, FetchError, PublicModel, Score, cache_folder, onnx_run
from seed_exporter.results import Options, Result
from seed_runtime.skeletons.onnx import MODEL_FILE

EFFORT = 8
"""The highest effort without training."""
DATA_ERROR = 3  # exit code: the models or a module are missing


def main(arguments: list[str] | None = None) -> int:
    """Measure one model at one ratio."""
    options = _parser().parse_args(arguments)
    try:
        figures = compared(MODELS[options.name], options)
    except (FetchError, OSError, ModuleNotFoundError) as error:
        print(f"error: {error}; prepare the models with make public", file=sys.stderr)
        return DATA_ERROR
    print(json.dumps(figures) if options.json else "\n".join(table(figures)))
    return 0


def compared(model: PublicModel, options: argparse.Namespace) -> Figures:
    """Make both seeds, and return what they are."""
    cache = cache_folder()
    path = model.prepare(cache)
    with tempfile.TemporaryDirectory(prefix="seed-bench-heal-") as name:
        folder, before = Path(name), measure.load()
        data = folder / "data.npz"
        samples = model.inputs(cache, options.inputs, "calib")
        np.savez(data, **{key: np.concatenate([each[key] for each in samples]) for key in samples[0]})
        original = model.score(cache, onnx_run(path), options.limit)
        healing = Options(heal=data, target=options.target, time_limit=options.time_limit)
        healed = _row("healed", model, path, folder, healing, original, options.limit)
        searched = Options(calib=data, size=healed["bytes"], effort=EFFORT)
        rows = [healed, _row("calibrated", model, path, folder, searched, original, options.limit)]
    return {
        "model": model.name, "target": options.target, "time_limit": options.time_limit, "inputs": len(samples),
        "original": original["value"], "metric": original["metric"], "rows": rows,
        "machine": measure.machine(), "load_before": before, "load_after": measure.load(),
    }  # fmt: skip


def table(figures: Figures) -> list[str]:
    """Return both seeds as lines of a table."""
    names = [name for name in figures["rows"][0] if name not in ("seed", "bytes", "ratio", "seconds")]
    head = ["seed", "bytes", "ratio", *names, "minutes"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in figures["rows"]:
        measured = " | ".join(f"{row[name]:.3g}" for name in names)
        lines.append(
            f"| {row['seed']} | {row['bytes']:,} | {row['ratio']:.1f}x | {measured} | {row['seconds'] / 60:.0f} |"
        )
    return lines


def _row(
    seed: str, model: PublicModel, path: Path, folder: Path, options: Options, original: Score, limit: int | None
) -> Figures:
    measure.note(f"{model.name}, {seed}")
    output, assembled, start = folder / f"{seed}.seed", folder / seed, time.perf_counter()
    result: Result = seed_exporter.export(path, output=output, options=options, say=measure.say)
    seconds = time.perf_counter() - start
    seed_runtime.open(output).assemble(assembled)
    candidate = model.score(cache_folder(), onnx_run(assembled / MODEL_FILE), limit)
    said: dict[str, Any] = model.compare(original, candidate)
    measured = {key: value for key, value in said.items() if isinstance(value, float) and key != "original"}
    return {"seed": seed, "bytes": result.bytes, "ratio": result.ratio, "seconds": round(seconds, 1), **measured}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.heal", description=__doc__)
    parser.add_argument("name", choices=MODELS, metavar="MODEL", help=", ".join(MODELS))
    parser.add_argument("--target", type=float, required=True, help="ratio of the healed seed")
    parser.add_argument("--time-limit", type=float, default=1800.0, help="seconds for healing (default: 1800)")
    parser.add_argument("--inputs", type=int, default=4096, help="inputs of both (default: 4096)")
    parser.add_argument("--limit", type=int, help="judge at most so many samples")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
