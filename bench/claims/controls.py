"""`python -m bench.claims.controls`: the published method with its fine-tune, and random weights with it.

The teacher is made a seed by `--method moments` at the published ratio, assembled, and trained for 300 steps with
labels, as published; these weights no longer fit into the seed's bytes. `--out` gets a folder for each control:
`moments` (judged as assembled), `moments-tuned`, `random-tuned`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import seed_exporter
import seed_runtime
from seed_exporter import loaders
from seed_runtime.errors import SeedError

from . import checkpoints, runs, teachers
from .exporting import export
from .goals import GOALS
from .heal_inputs import HealInputs
from .training import device

DATA_ERROR = 3
STEPS, BATCH = 300, 128
WINDOWS = 12  # of English a step: 12,288 tokens
RATES = {"glyphs": 1e-3, "sections": 5e-4, "english": 1e-3}  # the same for both starts


def main(arguments: list[str] | None = None) -> int:
    """Make what is missing, and print what all three reach as one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.claims.controls", description=__doc__)
    parser.add_argument("--start", type=Path, required=True, help="folder of the teacher")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data and its tokens")
    parser.add_argument("--out", type=Path, required=True, help="folder of the controls' folders")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"of the fine-tune (default: {STEPS})")
    parser.add_argument("--jobs", type=int, help="threads")
    parser.add_argument("--tiny", action="store_true", help="few samples, short windows")
    options = parser.parse_args(arguments)
    try:
        about = checkpoints.load(options.start)[1]
        kind = runs.kind_of(about["name"])
        if not (options.out / "moments" / "result.json").is_file():
            published(options, kind)
        batch = WINDOWS if kind == "english" else BATCH
        common = ["--steps", str(options.steps), "--batch", str(min(batch, 8) if options.tiny else batch)]
        common += ["--rate", str(RATES[kind]), "--masked-share", "0", "--data", str(options.data)]
        for name, start in (("moments-tuned", ["--start", str(options.out / "moments")]), ("random-tuned", [])):
            command = [about["name"], "--out", str(options.out / name), *common, *start]
            if code := teachers.main([*command, *(["--tiny"] if options.tiny else [])]):
                return code
    except (OSError, ValueError, SeedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return DATA_ERROR
    names = ("moments", "moments-tuned", "random-tuned")
    held = {name: json.loads((options.out / name / "result.json").read_text())["held"] for name in names}
    print(json.dumps({"name": about["name"], "held": held}))
    return 0


def published(options: argparse.Namespace, kind: str) -> None:
    """Write the teacher as the published method restores it, as a checkpoint, and judge it."""
    state, about = checkpoints.load(options.start)
    (goal,) = (goal for goal in GOALS if goal.name == about["name"])
    task = runs.task_of(kind, options.data, device(), tiny=options.tiny)
    out = options.out / "moments"
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        model = export(options.start, folder / "model.onnx")
        inputs = HealInputs(kind, task).judges()
        np.savez(folder / "some.npz", allow_pickle=False, **{name: array[:16] for name, array in inputs.items()})
        seed = seed_exporter.export(
            model,
            output=folder / "moments.seed",
            options=seed_exporter.Options(
                method="moments",
                target=goal.ratio,
                calib=folder / "some.npz",
                **({"jobs": options.jobs} if options.jobs else {}),
            ),
        )
        assembled = seed_runtime.open(seed.path, enforce=False).assemble(folder / "assembled")
        restored = restored_state(state, model, assembled / "model.onnx")
    checkpoints.save(out, restored, about)
    runs.finish(out, task, {"bytes": seed.bytes, "ratio": seed.ratio, "goal_met": seed.goal_met})


def restored_state(state: dict[str, Tensor], original: Path, restored: Path) -> dict[str, Tensor]:
    """Return a network's state with the weights of a seed of it.

    Exporters rename and transpose weights: each is found in the original file by its numbers, and in the assembled one
    by its place among all that nodes read.

    Args:
        state: of the network that `original` is of.
        original: the network's ONNX file.
        restored: the assembled seed's.

    Raises:
        ValueError: a matrix of the network isn't in the file, or the seed has other weights.
    """
    before, after = _in_order(original), _in_order(restored)
    if [array.shape for array in before] != [array.shape for array in after]:
        raise ValueError(f"{restored} has other weights than {original}")
    found = {}
    for name, tensor in state.items():
        array = tensor.numpy()
        for wanted, turned in ((array, False), (array.T, True)):
            place = next((at for at, held in enumerate(before) if np.array_equal(held, wanted)), None)
            if place is not None:
                taken = after[place].astype(array.dtype)
                found[name] = torch.from_numpy(np.ascontiguousarray(taken.T if turned else taken))
                break
        else:
            # Counters of batch norms, and what the exporter folds into other constants.
            if array.ndim > 1:
                raise ValueError(f"{name} isn't in {original.name}: the exporter changed it")
            found[name] = tensor
    return found


def _in_order(path: Path) -> list[np.ndarray]:
    """Return what the nodes of an ONNX file read of its weights, in order; equal weights are one when it is loaded."""
    graph = loaders.load(str(path))
    names = [name for node in graph.model.graph.node for name in node.input if name in graph.weights]
    return [np.asarray(graph.weights[name].data).reshape(graph.weights[name].shape) for name in names]


if __name__ == "__main__":
    sys.exit(main())
