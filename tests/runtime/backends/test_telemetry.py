"""ONNX Runtime's telemetry is off before the library is imported, whoever imports it."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.model_seeds import classifier
from tests.support.project import ROOT

SWITCH = "ORT_DISABLE_TELEMETRY"
IN_CI = ("CI", "GITHUB_ACTIONS", "GITLAB_CI", "TF_BUILD", "JENKINS_URL", "BUILDKITE", "ORT_RUNNING_UNIT_TESTS")
"""Variables at which ONNX Runtime keeps quiet by itself."""


def user_environment(home: Path, **more: str) -> dict[str, str]:
    """The environment of a user who never heard of telemetry, in an empty home."""
    kept = {name: value for name, value in os.environ.items() if name not in (SWITCH, *IN_CI)}
    return {name: value for name, value in kept.items() if not name.startswith("XDG_")} | {"HOME": str(home)} | more


@pytest.mark.parametrize("before", [None, "", "0", "false", "1"])
def test_the_switch_is_set_when_the_library_is_imported(before: str | None, tmp_path: Path) -> None:
    # In place of the library a module that says what it finds in the environment.
    (tmp_path / "onnxruntime.py").write_text(f"import os\nprint(os.environ.get({SWITCH!r}))\nraise ImportError\n")
    script = "from seed_runtime import backends\nbackends.get().load()"
    environment = user_environment(tmp_path, PYTHONPATH=str(tmp_path), **({} if before is None else {SWITCH: before}))
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "1\n"
    assert "UnsupportedError: ONNX Runtime can't be imported" in done.stderr


def test_a_session_leaves_nothing_of_the_library_in_the_home_folder(tmp_path: Path) -> None:
    seed, home, temporary = tmp_path / "model.seed", tmp_path / "home", tmp_path / "tmp"
    seed.write_bytes(classifier())
    home.mkdir()
    temporary.mkdir()
    command = [sys.executable, "-m", "seed_runtime.cli", str(seed), "--verify", "--json"]
    done = subprocess.run(
        command, env=user_environment(home, TMPDIR=str(temporary)), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
    assert {path.relative_to(home).parts[:2] for path in home.rglob("*") if path.is_file()} <= {(".cache", "seed")}
    assert list(temporary.iterdir()) == []


def imports_of_the_library(path: Path) -> Iterator[tuple[int, str]]:
    for function in ast.walk(ast.parse(path.read_text())):
        if isinstance(function, ast.FunctionDef | ast.Module):
            for node in ast.iter_child_nodes(function):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                if any(name.split(".")[0] == "onnxruntime" for name in names):
                    yield node.lineno, ast.unparse(function)


def test_nothing_else_imports_the_library_without_the_backend() -> None:
    folders = ("runtime", "exporter", "devices", "demo", "bench")
    for path in [path for folder in folders for path in (ROOT / folder).rglob("*.py")]:
        if path == ROOT / "runtime/seed_runtime/backends/onnxruntime.py":
            continue
        for line, function in imports_of_the_library(path):
            before = re.split(r"\b(?:import|from) onnxruntime", function)[0]
            assert "backends.get().load()" in before, f"{path}:{line} imports ONNX Runtime with its telemetry on"
