"""Check the files that an export would replace: its own earlier ones, and nothing that a user would miss."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from seed_runtime.errors import UsageError
from seed_runtime.format.preamble import MAGIC
from seed_runtime.system import files

_HTML: Final = b"<!doctype html"
"""First bytes of every report."""


def check_output(path: str | os.PathLike[str]) -> None:
    """Refuse a path that a seed can't be written to, or that holds something else than a seed.

    Raises:
        UsageError: there is no such folder, it can't be written to, or another file would be lost.
    """
    files.check_writable(path)
    _refuse_others(Path(path), MAGIC, "a seed", "-o")


def check_report(path: str | os.PathLike[str]) -> None:
    """Refuse a path that a report can't be written to, or that holds something else than a page.

    Raises:
        UsageError: as `check_output`.
    """
    files.check_writable(path)
    _refuse_others(Path(path), _HTML, "a report", "--report")


def _refuse_others(path: Path, start: bytes, what: str, flag: str) -> None:
    if not path.is_file():
        return  # nothing, or a pipe or device, which is written to and loses nothing
    with open(path, "rb") as file:
        found = file.read(len(start))
    if found and found.lower() != start.lower():
        raise UsageError(f"{path} exists and is not {what}, so it isn't replaced; name another file with {flag}")
