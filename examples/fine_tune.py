"""Compress a model until it fails, repair it with 400 labelled samples as a device would, and keep what was learned.

`--finetune-graph` adds the gradients to the seed, so that a device needs NumPy and ONNX Runtime only.

Prints:
    $ seed-export model.onnx -o tiny.seed --calib calib.npz --target 24x --finetune-graph
    $ seed-run tiny.seed --fine-tune data.npz --mode head -o tuned.seed
    model.onnx    76,065 bytes    97.0 %
    tiny.seed      3,144 bytes    71.8 %
    tuned.seed       796 bytes    92.6 %
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnxruntime
import small_model

import seed_runtime

PROGRAMS = {"seed-export": "seed_exporter.cli", "seed-run": "seed_runtime.cli"}


def run(command: str) -> None:
    """Run a command of a shell, quietly."""
    print(f"$ {command}", flush=True)
    program, *words = command.split()
    subprocess.run([sys.executable, "-m", PROGRAMS[program], *words], check=True, capture_output=True)


model = small_model.write_all()
run("seed-export model.onnx -o tiny.seed --calib calib.npz --target 24x --finetune-graph")
run("seed-run tiny.seed --fine-tune data.npz --mode head -o tuned.seed")

held_out = small_model.samples(2000, rng_seed=5)
tiny = seed_runtime.open("tiny.seed")
scores = {"model.onnx": onnxruntime.InferenceSession(model).run(None, {"x": held_out["x"]})[0]}
for name, seed in (("tiny.seed", tiny), ("tuned.seed", tiny.apply("tuned.seed"))):
    with seed.session() as session:
        scores[name] = session.run({"x": held_out["x"]})["scores"]
for name, output in scores.items():
    right = small_model.accuracy(output, held_out["labels"])
    print(f"{name:<12} {Path(name).stat().st_size:>7,} bytes {100 * right:>7.1f} %")
