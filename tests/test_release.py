"""What a release is made of: fragments that towncrier takes, one address, a workflow without secrets."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.project import ROOT, own_files, relative

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FRAGMENTS = ROOT / "changelog.d"
NOT_FRAGMENTS = {"README.md", "template.md.jinja"}
KINDS = [kind["directory"] for kind in PYPROJECT["tool"]["towncrier"]["type"]]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def test_each_fragment_has_a_kind_that_the_changelog_knows() -> None:
    names = {path.name for path in FRAGMENTS.iterdir()} - NOT_FRAGMENTS
    wrong = [name for name in names if not re.fullmatch(rf"[a-z0-9-]+\.(?:{'|'.join(KINDS)})\.md", name)]
    assert not wrong, f"name them WORD-OR-TWO.KIND.md, with a kind of {', '.join(KINDS)}"


def test_each_fragment_is_lines_of_text_for_a_list() -> None:
    fragments = {path.name: path.read_text() for path in FRAGMENTS.iterdir() if path.name not in NOT_FRAGMENTS}
    odd = [name for name, text in fragments.items() if re.search(r"^(?:[#*-] |$)", text.rstrip(), re.MULTILINE)]
    assert not odd, "no headings, lists or empty lines: each fragment becomes one entry"


def test_the_readme_of_the_fragments_names_the_kinds_in_their_order() -> None:
    (sentence,) = re.findall(r"^`KIND` is (.*)\.$", (FRAGMENTS / "README.md").read_text(), re.MULTILINE)
    assert re.findall(r"`(\w+)`", sentence) == KINDS


def test_towncrier_makes_one_entry_of_each_fragment() -> None:
    pytest.importorskip("towncrier")
    command = [sys.executable, "-m", "towncrier", "build", "--draft", "--version", "9.9.9", "--date", "2030-01-01"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("## 9.9.9 (2030-01-01)\n\n### ")
    fragments = {path.read_text().strip() for path in FRAGMENTS.iterdir() if path.name not in NOT_FRAGMENTS}
    assert len(re.findall(r"^- ", done.stdout, re.MULTILINE)) == len(fragments)


def test_the_changelog_has_the_mark_behind_which_releases_are_written() -> None:
    assert (ROOT / "CHANGELOG.md").read_text().count("<!-- towncrier release notes start -->\n") == 1


def test_the_address_of_the_repository_is_set_in_one_place() -> None:
    urls = PYPROJECT["project"]["urls"]
    assert set(urls) == {"Repository", "Documentation", "Issues", "Changelog"}
    address = urls["Repository"]
    if "//example.org/" in address:
        return  # the placeholder, which also stands in commands that are examples
    elsewhere = [relative(path) for path in own_files() if address.encode() in path.read_bytes()]
    assert elsewhere == ["pyproject.toml"]


def test_the_release_workflow_builds_by_make_and_publishes_without_a_stored_token() -> None:
    text = (ROOT / ".github/workflows/release.yml").read_text()
    assert {"make release-check", "make dist", "make image"} <= set(re.findall(r"make [\w-]+", text))
    assert text.count("id-token: write") == 1
    assert "secrets." not in text
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {word.split()[1] for word in re.findall(r"make [a-z-]+", text)} <= targets


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_read_and_no_more_unless_a_job_says_so(path: Path) -> None:
    assert re.search(r"^permissions:\n  contents: read$", path.read_text(), re.MULTILINE)
