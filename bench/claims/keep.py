"""`python -m bench.claims.keep`: keep a seed with a fixed held-out sample and what was measured beside it.

The sample is spread evenly over the held-out side, whatever the seed is right or wrong on.
Controls are given as `--control LABEL BYTES FOLDER`, a folder with the `verdicts.npz` of its training; their shares are
of the whole held-out side.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from . import kept
from .data.files import read_arrays
from .goals import GOALS, Goal
from .inputs import WINDOW
from .intervals import paired, perplexity_ratio

MOST = {"glyphs": 8000, "text": 11_400, "windows": 256}  # samples, which fit into 2 MB
LICENCES = {
    "glyphs": "Pictures of characters in fonts of Debian's main section, which is free software; the fonts are listed "
    "in bench/claims/data/fonts.txt, and each package's copyright file has its licence.",
    "text": "Token ids of descriptions of Debian packages (Debian bookworm, main), which are free software.",
    "windows": "Token ids of documentation in Debian's main section, which is free software; packages are listed in "
    "bench/claims/data/packages/docs.txt, and each package's copyright file has its licence.",
}
KINDS = {"resnet50": "glyphs", "mobilenetv2": "glyphs", "berttiny": "text", "distilbert": "text", "gpt2": "windows"}


def main(arguments: list[str] | None = None) -> int:
    """Write the three files of a kept seed, and print what its check says."""
    parser = argparse.ArgumentParser(prog="python -m bench.claims.keep", description=__doc__)
    parser.add_argument("name", choices=KINDS)
    parser.add_argument("--seed", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data and its tokens")
    parser.add_argument("--teacher", type=Path, required=True, help="folder of the teacher's training")
    parser.add_argument("--trained-on", type=Path, required=True, help="folder of its training on")
    parser.add_argument("--seconds", type=float, required=True, help="that the healing took")
    parser.add_argument("--steps", type=int, required=True, help="that the healing took")
    parser.add_argument("--control", nargs=3, action="append", default=[], metavar=("LABEL", "BYTES", "FOLDER"))
    parser.add_argument("--out", type=Path, default=kept.SEEDS)
    options = parser.parse_args(arguments)
    (goal,) = (goal for goal in GOALS if goal.name == options.name)
    try:
        teacher, trained_on = (_verdicts(folder) for folder in (options.teacher, options.trained_on))
        held = {"teacher": teacher["verdicts"], "trained_on": trained_on["verdicts"]}
        sample = drawn(
            KINDS[goal.name], options.data, held | {key: teacher[key] for key in teacher if key != "verdicts"}
        )
        results = [json.loads((folder / "result.json").read_text()) for folder in (options.teacher, options.trained_on)]
        beside: dict[str, Any] = {
            "parameters": results[0]["parameters"],
            "licence": LICENCES[KINDS[goal.name]],
            "healing": {"seconds": options.seconds, "steps": options.steps},
            "teacher": results[0],
            "trained_on": results[1],
            "controls": [control(goal, held, *given) for given in options.control],
        }
    except (OSError, KeyError, ValueError) as error:
        print(f"error: {error}; give the folders that training filled", file=sys.stderr)
        return 3
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{goal.name}.seed"
    np.savez_compressed(path.with_suffix(".npz"), allow_pickle=False, **sample)
    path.with_suffix(".json").write_text(json.dumps(beside, indent=1) + "\n")
    shutil.copyfile(options.seed, path)
    row = kept.check(goal, options.out)
    print(json.dumps({} if row is None else row.as_json()))
    return 0


def drawn(kind: str, data: Path, held: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the sample of a kind with what is known of each of its rows.

    Args:
        kind: a key of `MOST`.
        data: folder of the data.
        held: arrays with a row for each sample of the held-out side.

    Raises:
        ValueError: they were made of other data.
    """
    count = len(held["teacher"])
    if kind == "windows":
        tokens = np.load(data / "bytepairs-held.npy")
        whole = {"x": np.stack([tokens[at * WINDOW : at * WINDOW + WINDOW + 1] for at in range(count)])}
    elif kind == "glyphs":
        arrays = read_arrays(data / "glyphs-held.npz.xz")
        whole = {"x": arrays["x"], "label": arrays["y"]}
    else:
        with np.load(data / "sections-held.npz", allow_pickle=False) as loaded:
            whole = {"x": loaded["ids"], "label": loaded["label"]}
    if len(whole["x"]) != count or any(len(array) != count for array in held.values()):
        raise ValueError(f"{data} has {len(whole['x'])} held-out samples, the verdicts are of {count}")
    rows = np.arange(min(count, MOST[kind])) * count // min(count, MOST[kind])
    return {name: array[rows] for name, array in (whole | held).items()}


def control(goal: Goal, held: dict[str, np.ndarray], label: str, size: str, folder: str) -> dict[str, Any]:
    """Return a control's line: its bytes, and its share of what the better of the two teachers reaches."""
    better = max if goal.measure == "accuracy" else min
    reference = better(held.values(), key=lambda verdicts: float(verdicts.mean()))
    share = paired if goal.measure == "accuracy" else perplexity_ratio
    found = share(reference, _verdicts(Path(folder))["verdicts"])
    return {"label": label, "bytes": int(size), "kept": [found.middle, found.low, found.high]}


def _verdicts(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "verdicts.npz", allow_pickle=False) as arrays:
        return dict(arrays)


if __name__ == "__main__":
    sys.exit(main())
