"""Each script in examples/ prints what its docstring says; figures in it may vary from machine to machine."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.project import ROOT

EXAMPLES = ROOT / "examples"
QUICK = {"small_model": [], "decode_raw": [str(ROOT / "tests/conformance/seeds/raw-uint64.seed"), "out"]}
"""Those without an export, with their arguments."""
SLOW = ("export_model", "export_torch", "fine_tune", "limit_memory", "serve_and_ask", "sign_and_verify")
ELSEWHERE = {"push_to_fleet": "tests/devices/test_example.py"}
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")


def promised(name: str) -> str:
    """Return the block behind "Prints" in a script's docstring."""
    text = ast.get_docstring(ast.parse((EXAMPLES / f"{name}.py").read_text())) or ""
    (block,) = re.findall(r"^Prints\b[^\n]*:\n((?:    .+\n?)+)", text, re.MULTILINE)
    return block


def without_figures(text: str) -> list[str]:
    """Return the lines of a text with # for each number, and one space between words."""
    return [" ".join(NUMBER.sub("#", line).split()) for line in text.splitlines()]


def printed(name: str, folder: Path, *words: str, **environment: str) -> str:
    """Return what a script prints in a folder of its own."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_each_example_is_run_by_a_test_and_in_the_list() -> None:
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    assert names == {*QUICK, *SLOW, *ELSEWHERE}
    assert all((ROOT / path).is_file() for path in ELSEWHERE.values())
    listed = re.findall(r"\]\((\w+)\.py\)", (EXAMPLES / "README.md").read_text())
    assert sorted(listed) == sorted(names)


@pytest.mark.parametrize("name", QUICK)
def test_a_quick_example_prints_what_it_says(name: str, tmp_path: Path) -> None:
    assert without_figures(printed(name, tmp_path, *QUICK[name])) == without_figures(promised(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_an_example_prints_what_it_says(name: str, tmp_path: Path) -> None:
    if name == "export_torch":
        pytest.importorskip("torch")
    assert without_figures(printed(name, tmp_path)) == without_figures(promised(name))


@pytest.mark.slow
def test_the_decoder_of_the_tutorial_passes_the_conformance_vectors_of_its_codec() -> None:
    decoder = f"{sys.executable} {EXAMPLES / 'decode_raw.py'}"
    command = [sys.executable, "-m", "tests.conformance", "--valid", "--decoder", decoder, "raw-"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1].endswith(" 0 failed")
