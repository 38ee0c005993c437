"""Hooks of MkDocs: pages from the root of the repository, pages made of each command's `--help`, and links.

Documents are written for a reader of the repository, so their links are paths in it. On the site, a link to a page
leads to that page, and a link to any other file leads to the repository, once its address is in pyproject.toml.
"""

from __future__ import annotations

import importlib
import os
import posixpath
import re
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seed_devices.cli.commands import group
from seed_exporter.cli import words

if TYPE_CHECKING:
    from mkdocs.structure.files import Files

ROOT = Path(__file__).resolve().parents[1]
ROOT_PAGES = ("SPEC.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md", "RELEASE.md")
"""Documents of the root that are pages of the site as well."""
MODULES = {"seed-export": "seed_exporter.cli", "seed-run": "seed_runtime.cli", "seed-deploy": "seed_devices.cli"}
INTRODUCTIONS = {
    "seed-export": "Makes seeds on a workstation; [Exporting](../exporting.md) explains goals, calibration and effort.",
    "seed-run": "Checks, assembles and runs seeds on a device; [Running](../running.md) has examples.",
    "seed-deploy": "Pushes seeds over SSH; [Devices and fleets](../devices.md) describes each step.",
}
LINK = re.compile(r"(!?\[[^\]]*\])\(([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the documents of the root and the commands' pages."""
    from mkdocs.structure.files import File  # here, so that tests read this file without MkDocs

    for name in ROOT_PAGES:
        added = unreleased() if name == "CHANGELOG.md" else ""
        files.append(File.generated(config, name, content=(ROOT / name).read_text() + added))
    for command, page in command_pages().items():
        files.append(File.generated(config, f"cli/{command}.md", content=page))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn links to files of the repository into links to pages, or to the repository."""
    uri = page.file.src_uri
    inside = uri in ROOT_PAGES
    folder = posixpath.dirname(uri if inside else f"docs/{uri}")

    def turn(match: re.Match[str]) -> str:
        label, target, anchor = match[1], match[2], match[3] or ""
        if ":" in target:
            return match[0]
        path = posixpath.normpath(posixpath.join(folder, target))
        at = path.removeprefix("docs/")
        if at in ROOT_PAGES or files.get_file_from_path(at):
            return f"{label}({posixpath.relpath(at, posixpath.dirname(uri) or '.')}{anchor})"
        if not (ROOT / path).exists():
            return match[0]  # strict mode names it
        if repository := repository_url():
            return f"{label}({repository}/blob/HEAD/{path}{anchor})"
        text = label.strip("[]")
        return f"`{text}`" if re.fullmatch(r"[\w./-]*[./][\w./-]*", text) else text

    # A fence with more than one word behind it, as SPEC.md's tables have, is none to the site's Markdown.
    return LINK.sub(turn, re.sub(r"^```\w+ .*$", "```text", markdown, flags=re.MULTILINE))


def repository_url() -> str | None:
    """Return the address in pyproject.toml; None while it is a placeholder."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    address = project.get("urls", {}).get("Repository", "").rstrip("/")
    return None if not address or address.startswith("https://example.org/") else address


def unreleased() -> str:
    """Return what towncrier makes of the fragments in changelog.d."""
    draft = subprocess.run(
        [sys.executable, "-m", "towncrier", "build", "--draft", "--version", "Unreleased", "--date", "-"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    ).stdout
    return draft.replace("## Unreleased (-)", "## Not released yet", 1)


def command_pages() -> dict[str, str]:
    """Return the pages under cli/: a heading and the `--help` of each command."""
    commands = command_words()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        helps = {
            (command, after): pool.submit(help_of, command, after)
            for command, all_words in commands.items()
            for after in all_words
        }
    pages = {}
    for command, all_words in commands.items():
        parts = [f"# {command}\n\n{INTRODUCTIONS[command]}\n"]
        for after in all_words:
            heading = f"## {command} {after}\n\n" if after else ""
            parts.append(f"{heading}```text\n{helps[command, after].result()}```\n")
        pages[command] = "\n".join(parts)
    return pages


def command_words() -> dict[str, list[str]]:
    """Return the words after each command that have a `--help` of their own; "" stands for none."""
    exports = [""]
    for name in words.COMMANDS:
        command = importlib.import_module(f"seed_exporter.cli.{name}").command
        exports.append(name)
        if isinstance(command, click.Group):
            taken = [each for each in command.params if isinstance(each, click.Argument)]
            arguments = [each.metavar or str(each.name) for each in taken]
            exports += [" ".join([name, *arguments, sub]) for sub in command.commands]
    return {"seed-export": exports, "seed-run": [""], "seed-deploy": ["", *group.commands]}


def help_of(command: str, after: str) -> str:
    """Return what a command prints for `--help`, 80 columns wide."""
    done = subprocess.run(
        [sys.executable, "-m", MODULES[command], *after.split(), "--help"],
        env={**os.environ, "COLUMNS": "80", "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout
