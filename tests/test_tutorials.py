"""The commands of docs/tutorials run, their code is that of examples/, and no document names an option that isn't."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from seed_devices.cli.commands import group
from seed_exporter.cli import archive, batch, compare, export
from tests.support.project import ROOT

TUTORIALS = ROOT / "docs" / "tutorials"
RUN = {"onnx-model": ["--effort", "1"]}
"""Pages whose commands are run here, with words that make exports quick: what is written last holds."""
BY_EXAMPLES = {
    "torch-model": "export_torch",
    "fine-tuning": "fine_tune",
    "decoder": "decode_raw",
    "fleet": "push_to_fleet",
}
"""Pages whose commands or code are those of a script of examples/, which tests/test_examples.py runs."""
PROGRAMS = {"seed-export": "seed_exporter.cli", "seed-run": "seed_runtime.cli"}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return the fenced blocks of a page: language, "" for commands that can be run as they are, and text."""
    return BLOCK.findall(page.read_text())


def commands(page: Path) -> list[str]:
    """Return the commands of a page that can be run as they are, but for installations."""
    lines = [line for language, text in blocks(page) if not language for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("pip ")]


def test_each_tutorial_is_run_or_has_its_example() -> None:
    assert {page.stem for page in TUTORIALS.glob("*.md")} == {*RUN, *BY_EXAMPLES}
    assert all((ROOT / "examples" / f"{name}.py").is_file() for name in BY_EXAMPLES.values())


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN)
def test_the_commands_of_a_tutorial_run_as_they_are(page: str, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for command in commands(TUTORIALS / f"{page}.md"):
        words = shlex.split(command)
        more = RUN[page] if words[0] == "seed-export" else []
        module = PROGRAMS.get(words[0])
        words = ["-m", module, *words[1:], *more] if module else words[1:]
        done = subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def test_the_fine_tuning_tutorial_has_the_commands_of_its_example() -> None:
    source = (ROOT / "examples/fine_tune.py").read_text()
    run = re.findall(r'^run\("(.*)"\)$', source, re.MULTILINE)
    assert [line for line in commands(TUTORIALS / "fine-tuning.md") if line in run] == run


@pytest.mark.parametrize("page", ["torch-model", "decoder"])
def test_the_code_of_a_tutorial_is_that_of_its_example(page: str) -> None:
    source = (ROOT / "examples" / f"{BY_EXAMPLES[page]}.py").read_text()
    code = [text for language, text in blocks(TUTORIALS / f"{page}.md") if language == "python"]
    assert code
    assert not [text for text in code if text not in source]


def options_of(command: click.Command) -> set[str]:
    """Return the options of a command and of those below it."""
    own = {word for parameter in command.params for word in (*parameter.opts, *parameter.secondary_opts)}
    below = command.commands.values() if isinstance(command, click.Group) else ()
    return own.union({"--help", "-h"}, *map(options_of, below))


@pytest.fixture(scope="module")
def options() -> dict[str, set[str]]:
    printed = subprocess.run(
        [sys.executable, "-m", "seed_runtime.cli", "--help"], capture_output=True, text=True, check=True
    ).stdout
    exports = set().union(*(options_of(module.command) for module in (archive, batch, compare, export)))
    return {
        "seed-export": exports,
        "seed-run": set(re.findall(r"(?<!\S)\[?(--?[a-z][a-z-]*)", printed)) | {"--help", "-h"},
        "seed-deploy": options_of(group),
    }


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(TUTORIALS.glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_command_of_a_document_has_an_option_that_is_not_there(page: Path, options: dict[str, set[str]]) -> None:
    unknown = []
    for _, text in blocks(page):
        for line in text.splitlines():
            words = line.split("#")[0].split("|")[0].split()
            if words and words[0] in options:
                given = {word.split("=")[0] for word in words if re.fullmatch(r"--?[a-z][a-z-]*(?:=.*)?", word)}
                unknown += [f"{line}: {word}" for word in given - options[words[0]]]
    assert not unknown
