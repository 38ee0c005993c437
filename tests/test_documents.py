"""What documents say about the tree is so: links, paths, names, exit codes, decisions, folders."""

from __future__ import annotations

import functools
import pkgutil
import re
from pathlib import Path

import pytest

import seed_devices.errors
import seed_runtime.errors
from tests.support.project import ROOT, own_files, relative

DOCUMENTS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
OF_THE_ROOT = ("README.md", "SECURITY.md", "CONTRIBUTING.md", "RELEASE.md", "CHANGELOG.md")
DOCUMENTED = re.compile(r"^\| (\d+) \| ([^|]+) \|", re.MULTILINE)


def documented_codes() -> dict[str, int]:
    """The table of docs/exit-codes.md: the name of each error class, or "-" for a code without one."""
    text = (ROOT / "docs" / "exit-codes.md").read_text()
    codes = {}
    for code, names in DOCUMENTED.findall(text):
        for name in names.split(","):
            codes[name.strip().strip("`") if "`" in name else f"- {code}"] = int(code)
    return codes


def test_the_documented_exit_codes_are_those_of_the_errors() -> None:
    raised = {
        name: kind.exit_code
        for module in (seed_runtime.errors, seed_devices.errors)
        for name, kind in vars(module).items()
        if isinstance(kind, type) and issubclass(kind, seed_runtime.errors.SeedError) and not name.startswith("_")
    }
    del raised["RemoteError"]  # it passes on the device's own code
    codes = documented_codes()
    assert {name: code for name, code in codes.items() if not name.startswith("- ")} == raised
    unraised = {code for name, code in codes.items() if name.startswith("- ")}
    # The whole set is a contract with scripts: a code is added here and never given another meaning.
    assert unraised | set(raised.values()) == {0, 1, 2, 3, 10, 11, 12, 13, 14, 15, 16, 20, 21, 22, 30, 31, 130}


@pytest.mark.parametrize("document", [*OF_THE_ROOT, "examples/README.md", *DOCUMENTS])
def test_every_link_between_documents_leads_somewhere(document: str) -> None:
    path = ROOT / document
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text())
    # Pages of the site that docs/hooks.py makes; `make docs` follows these links.
    made = re.compile(r"(?:\.\./)*cli/seed-(?:export|run|deploy)\.md")
    links = [link for link in links if "://" not in link and not made.fullmatch(link)]
    broken = [link for link in links if not (path.parent / link).exists()]
    assert not broken


# Paths below our folders, names of Python files, and dotted names, as documents write them.
OWN_PATH = re.compile(
    r"(?<![\w./~$<>-])(?:(?:runtime/|exporter/|devices/)?seed_(?:runtime|exporter|devices)|tests|bench|demo|examples|\.ci|\.github)"
    r"(?:/[\w.*-]*\w)+|(?<![\w./~$<>*-])[\w/]+\.py\b"
)
OWN_NAME = re.compile(r"(?<![\w./-])seed_(?:runtime|exporter|devices)(?:\.[A-Za-z_]\w*)+")


@functools.cache
def ends_of_paths() -> set[str]:
    """Return the paths of all files and of their folders, and the ends of these paths."""
    paths = {relative(path) for path in own_files()}
    paths |= {parent.as_posix() for path in paths for parent in Path(path).parents}
    return {"/".join(parts[start:]) for parts in (path.split("/") for path in paths) for start in range(len(parts))}


def is_there(name: str) -> bool:
    """Return whether a path of a document is the end of a file's path, or a folder's, or the pattern of some."""
    return name in ends_of_paths() or any(ROOT.glob(name))


@pytest.mark.parametrize("document", [relative(path) for path in own_files() if path.suffix == ".md"])
def test_every_path_and_dotted_name_in_a_document_exists(document: str) -> None:
    text = (ROOT / document).read_text()
    missing = [path for path in sorted(set(OWN_PATH.findall(text))) if not is_there(path)]
    for name in sorted(set(OWN_NAME.findall(text))):
        try:
            pkgutil.resolve_name(name)
        except (ImportError, AttributeError):
            missing.append(name)
    assert not missing


def documented_folders() -> set[str]:
    """Return the folders in the tree of CONTRIBUTING.md, of which each line is a folder and what is in it."""
    (tree,) = re.findall(r"^```tree\n(.*?)^```$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE | re.DOTALL)
    folders, above = set(), [""]
    for line in tree.splitlines():
        match = re.fullmatch(r"((?:  )*)(\S+)/ +\S.*", line)
        assert match, f"{line!r} is not a folder, its slash and what is in it"
        depth = len(match[1]) // 2
        above = [*above[: depth + 1], f"{above[depth]}{match[2]}/"]
        folders.add(above[-1].rstrip("/"))
    return folders


def test_the_tree_in_contributing_has_one_line_for_each_folder_of_python_files() -> None:
    parts = ("runtime/", "exporter/", "devices/", "tests/", "bench/")
    files = [relative(path) for path in own_files() if path.suffix == ".py"]
    assert documented_folders() == {str(Path(file).parent) for file in files if file.startswith(parts)}


def test_the_index_of_decisions_lists_each_of_them() -> None:
    folder = ROOT / "docs/adr"
    listed = set(re.findall(r"\]\(([^)]+)\)", (folder / "README.md").read_text()))
    assert listed == {path.name for path in folder.glob("0*.md")}
