"""Read a description of processing from a JSON or TOML file, and the files that it names."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from seed_exporter.processing.text import compact_tokenizer, with_line_feeds
from seed_runtime.errors import InputError, UsageError
from seed_runtime.limits import DESCRIPTION_MAX, PROCESSING_RAW_MAX
from seed_runtime.processing.sources import METADATA

FILE_FIELDS: Final = ("anchors", "characters", "labels", "tokenizer")
"""Fields of steps, and of text generation, that name files."""
_PREPARED: Final[dict[str, Callable[[bytes], bytes]]] = {
    "characters": with_line_feeds,
    "labels": with_line_feeds,
    "tokenizer": compact_tokenizer,
}
"""Functions that write a file in the way that takes the fewest bytes, by its field."""


def read_description(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Read a description and its attachments.

    Args:
        path: a .json or a .toml; the files that it names are relative to its folder.

    Returns:
        The description, in which files have their names without folders, and the files by these names.

    Raises:
        UsageError: a file can't be read.
        InputError: it is no JSON or TOML, or two files have one name.
    """
    try:
        text = _read(path, DESCRIPTION_MAX).decode()
        description = tomllib.loads(text) if path.suffix.lower() == ".toml" else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} can't be read ({error}); give --processing a JSON or TOML file") from None
    if not isinstance(description, dict):
        raise InputError(f"{path} holds no object; see docs/processing.md for what --processing takes")
    attachments: dict[str, bytes] = {}
    origins: dict[str, Path] = {}
    for steps in (description.get("inputs"), description.get("outputs"), [description.get("generation")]):
        for step in steps if isinstance(steps, list) else []:
            for field in FILE_FIELDS if isinstance(step, dict) else ():
                name = step.get(field)
                if not isinstance(name, str) or not name or name.startswith(METADATA):
                    continue
                origin = path.parent / name
                step[field] = origin.name
                if origins.setdefault(origin.name, origin) != origin:
                    raise InputError(f"{path} names two files {origin.name!r}; rename one of them")
                data = _read(origin, PROCESSING_RAW_MAX)
                attachments[origin.name] = _PREPARED.get(field, bytes)(data)
    return description, attachments


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; give --processing a file that can be read") from None
    if len(data) > limit:
        raise InputError(f"{path} has more than {limit:,} bytes, which no seed may hold; make it smaller")
    return data
