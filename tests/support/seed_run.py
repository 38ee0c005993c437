"""What the tests of `seed-run` share: small seeds, and the command as a real process. Holds no tests."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from seed_exporter.build import draft
from seed_exporter.build.streams import encode
from seed_exporter.evaluate import inputs
from seed_exporter.evaluate.golden import make_golden
from seed_exporter.graph.model import Graph
from seed_exporter.loaders import load
from seed_exporter.quantize import allocate
from seed_runtime import generator
from seed_runtime.backends import TensorSpec
from seed_runtime.cli import main
from seed_runtime.format.dtypes import BY_NAME
from seed_runtime.format.header import ModelInfo
from seed_runtime.golden import Recipe
from seed_runtime.memory.footprint import Footprint, ModeFootprint

COMMAND = [sys.executable, "-m", "seed_runtime.cli"]
CLASSES = 40
FEATURES = 32


def seed_run(
    *arguments: str | Path, stdin: bytes | None = None, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    """`seed-run`, as its own process."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        input=stdin if stdin is not None else b"",
        capture_output=True,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        timeout=120,
    )


def result(*arguments: str | Path, **options: Any) -> dict[str, Any]:
    """The one JSON object of a run that must succeed."""
    done = seed_run(*arguments, "--json", **options)
    assert done.returncode == 0, done.stderr.decode()
    return one_object(done.stdout)


def one_object(stdout: bytes) -> dict[str, Any]:
    """All of stdout is one object on one line, of standard JSON."""
    assert stdout.count(b"\n") == 1
    assert stdout.endswith(b"\n")

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    value = json.loads(stdout, parse_constant=refuse)
    assert isinstance(value, dict)
    return value


def refused(code: int, *arguments: str | Path, **options: Any) -> str:
    """The one line on stderr of a run that must return `code` and print no result."""
    done = seed_run(*arguments, **options)
    assert (done.returncode, done.stdout) == (code, b""), done.stderr.decode()
    assert done.stderr.startswith(b"seed-run: ")
    assert done.stderr.count(b"\n") == 1, done.stderr.decode()
    return done.stderr.decode()


def refused_here(code: int, capfd: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """As `refused`, without a process of its own: for long lists of the same kind of refusal."""
    capfd.readouterr()
    assert main([*map(str, arguments)]) == code
    stdout, stderr = capfd.readouterr()
    assert stdout == ""
    assert stderr.startswith("seed-run: ")
    assert stderr.count("\n") == 1, stderr
    return stderr


def files_under(folder: Path) -> list[str]:
    """All files but locks, which stay."""
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"
    )


def cache_folder(own_folders: Path) -> Path:
    return own_folders / "cache" / "seed" / "models"


@functools.cache
def classifier(*, footprint: bool = True, golden: str = "right") -> bytes:
    """A seed of x: float32[batch, FEATURES] -> scores: float32[batch, CLASSES]."""
    rng = np.random.default_rng(7)
    weights = {
        "w1": rng.normal(size=(FEATURES, 64)),
        "w2": rng.normal(size=(64, CLASSES)),
        "b": rng.normal(size=CLASSES),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["relu"]),
        helper.make_node("MatMul", ["relu", "w2"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", FEATURES])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    specs = (TensorSpec("x", "float32", ("batch", FEATURES)),)
    recipes = (Recipe(generator.NORMAL, BY_NAME["float32"], (1, FEATURES), 0.0, 1.0),)
    # As measured for a model of this kind, and rounded up: 16 MiB above the imported library.
    measured = Footprint(
        (("x", 0),),
        ((1,), (64,)),
        (ModeFootprint("fast", 256, 1, (256, 272)), ModeFootprint("lean", 240, 1, (240, 256))),
    )
    return _seed(_model(graph), "classifier", specs, recipes, golden, measured if footprint else None)


@functools.cache
def tokens() -> bytes:
    """A seed with two inputs, ids: int32[batch, length] and shift: float32[8] -> states: float32[batch, length, 8]."""
    table = np.random.default_rng(8).normal(size=(200, 8)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "ids"], ["rows"]),
            helper.make_node("Add", ["rows", "shift"], ["states"]),
        ],
        "g",
        [
            helper.make_tensor_value_info("ids", TensorProto.INT32, ["batch", "length"]),
            helper.make_tensor_value_info("shift", TensorProto.FLOAT, [8]),
        ],
        [helper.make_tensor_value_info("states", TensorProto.FLOAT, ["batch", "length", 8])],
        [numpy_helper.from_array(table, "table")],
    )
    return _seed(_model(graph), "tokens", None, (), "none", None)


def _model(graph: onnx.GraphProto) -> onnx.ModelProto:
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _seed(
    model: onnx.ModelProto,
    model_id: str,
    specs: tuple[TensorSpec, ...] | None,
    recipes: tuple[Recipe, ...],
    golden: str,
    footprint: Footprint | None,
) -> bytes:
    graph: Graph = load(model)
    streams = encode(graph, allocate.uniform(graph, 0.05, 23), jobs=1)
    seed = draft.build(graph, streams, ModelInfo(model_id, 3, (0, 1, 0), graph.parameters, graph.distinct_bytes))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seed = seed.assemble(folder)
        section = None
        if specs is not None and golden != "none":
            sample = make_golden(folder, recipes, inputs.make_feeds(specs, recipes, 5), 5)
            if golden == "wrong":
                expected = sample.outputs[0]
                sample = replace(sample, outputs=(replace(expected, values=expected.values + np.float32(1)),))
            section = sample.pack()
        header = replace(seed.header, golden=section, footprint=footprint.pack() if footprint else None)
        path = folder / "model.seed"
        replace(seed, header=header).write(path)
        return path.read_bytes()
