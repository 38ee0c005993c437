"""Metadata of a model: pairs of texts for the programs that use it, such as the names of its classes.

ONNX Runtime hands them out as `custom_metadata_map`. It also reads some keys itself, session options among them, and
programs may open the files that others name: neither may come from a seed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from seed_runtime.format.primitives import printable
from seed_runtime.limits import METADATA_ENTRIES_MAX, METADATA_MAX, STRING_MAX

_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
"""One word of a key such as `model_path`, `modelPath` or `model.path`."""
_RUNTIME_WORDS: Final = frozenset({"ort", "onnxruntime", "ep"})
"""First words of keys that are ONNX Runtime's own: `ort_config` holds session options, `ep_compatibility_info.*` is
for execution providers."""
_RUNTIME_KEYS: Final = frozenset({"tuning_results", "weightless_mode"})
"""Further keys that ONNX Runtime reads. Source: onnxruntime/core/session/inference_session_utils.cc and
onnxruntime_ep_device_ep_metadata_keys.h."""
_FILE_WORDS: Final = frozenset(
    {"file", "files", "filename", "filepath", "path", "paths", "location", "dir", "directory", "folder", "library"}
)
"""Words of keys that name files."""
_FILE: Final = re.compile(r"(?:/|~/|\.\.?[/\\]|\\\\|[a-z]:[/\\]|file:)\S.*", re.IGNORECASE | re.ASCII)
"""A value of one line that is the place of a file. ASCII's white space and letters: those of Unicode change."""


def problem_of(key: str, value: str) -> str | None:
    """Return why a seed can't carry this pair, None if it can."""
    words = [word.lower() for word in _WORD.findall(key)]
    if not key or len(key.encode()) > STRING_MAX or not printable(key):
        return f"its key is empty, can't be printed, or has more than {STRING_MAX} bytes"
    if (words[:1] and words[0] in _RUNTIME_WORDS) or key.lower() in _RUNTIME_KEYS:
        return "ONNX Runtime reads options from it"
    if not _FILE_WORDS.isdisjoint(words) or _FILE.fullmatch(value):
        return "it names a file"
    if "\0" in value:
        return "its value holds a zero byte"
    return None


def size_of(pairs: Iterable[tuple[str, str]]) -> int:
    """Return the bytes of all keys and values, for METADATA_MAX."""
    return sum(len(key.encode()) + len(value.encode()) for key, value in pairs)


def select(pairs: Iterable[tuple[str, str]]) -> tuple[dict[str, str], dict[str, str]]:
    """Choose the pairs that a seed can carry, in order. Of two with one key the last counts, as in ONNX Runtime.

    Returns:
        The pairs, and by the keys of those left out, why.
    """
    kept: dict[str, str] = {}
    dropped: dict[str, str] = {}
    left = METADATA_MAX
    for key, value in dict(pairs).items():
        size = size_of([(key, value)])
        problem = problem_of(key, value)
        if problem is None and (size > left or len(kept) == METADATA_ENTRIES_MAX):
            problem = f"a seed carries {METADATA_ENTRIES_MAX} entries of {METADATA_MAX:,} bytes together"
        if problem is not None:
            dropped[key] = problem
            continue
        kept[key] = value
        left -= size
    return kept, dropped
