"""The commands of docs/worked-example.md, on fewer lines and with less effort, so that the page can't rot."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from bench import worked_example
from tests.support.project import ROOT
from tests.support.public_models import CACHE, prepared, tasks

PAGE = ROOT / "docs" / "worked-example.md"
PROGRAMS = {"seed-export": "seed_exporter.cli", "seed-run": "seed_runtime.cli"}
FEWER = {
    "worked_example data": ["--tuning", "160", "--judging", "64"],
    "seed-export": ["--effort", "2", "--target", "10x"],
    "--fine-tune": ["--mode", "head"],
}
"""Words that are added to commands of the page: what is written last holds."""


def commands() -> list[str]:
    """Return the commands in the page's blocks, in order."""
    blocks = re.findall(r"```\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith(("seed-", "python -m"))]


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    more = [word for key, words in FEWER.items() if key in command for word in words]
    words = [*shlex.split(command), *more]
    module = PROGRAMS.get(words[0])
    words = [sys.executable, "-m", module, *words[1:]] if module else [sys.executable, *words[1:]]
    environment = {**os.environ, "SEED_BENCH_CACHE": str(CACHE), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_commands_of_the_page_do_what_it_says(tmp_path: Path) -> None:
    tasks()
    prepared("ppcls")
    scores = []
    for command in commands():
        if command.startswith("python -m bench.public"):
            continue  # it needs the network
        if "random" in command:
            break  # the control: the same again
        done = run(command, tmp_path)
        assert done.returncode == 0, f"{command}: {done.stderr[-500:]}"
        if "held-out" in command:
            scores.append(float(done.stdout.removesuffix(" %\n")))
    original, before, after = scores
    assert before < min(original, after)


def test_the_control_keeps_sizes_and_values_and_nothing_learned(tmp_path: Path) -> None:
    weights = np.arange(12, dtype=np.float32).reshape(3, 4)
    tensor = onnx.numpy_helper.from_array(weights, "w")
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [], [], [tensor])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "model.onnx")
    worked_example.write_random(tmp_path / "model.onnx", tmp_path / "random.onnx")
    found = onnx.numpy_helper.to_array(onnx.load(tmp_path / "random.onnx").graph.initializer[0])
    assert found.shape == weights.shape
    assert (found != weights).any()
    assert sorted(found.ravel()) == weights.ravel().tolist()
