"""Recognise files that were saved in place of a model or a seed: pointers, pages, archives.

Imports no NumPy: the format's preamble asks it as well.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

HEAD_BYTES: Final = 512
"""Bytes at a file's beginning that are enough to recognise it [B]."""


@dataclass(frozen=True)
class WrongFile:
    """What a file is instead, and the next step."""

    title: str
    advice: str


_POINTER: Final = WrongFile("a Git LFS pointer instead of the file itself", "fetch the file: git lfs pull")
_PAGE: Final = WrongFile("a web page instead of the file itself", "download the file behind the page's link, or log in")
ARCHIVE: Final = WrongFile("an archive", "unpack it and give the file in it")
"""Compressed files and packed folders. A program of torch.export is one as well."""

_KINDS: Final = (
    (re.compile(rb"version https?://\S*git-lfs"), _POINTER),
    (re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype|html|head|body|script|!--|\?xml|error|svg)\b", re.IGNORECASE), _PAGE),
    (re.compile(rb"(\xef\xbb\xbf)?\s*\{\s*\"(error|message|detail|code)\"", re.IGNORECASE), _PAGE),
    (re.compile(rb"PK\x03\x04|\x1f\x8b\x08|\xfd7zXZ\x00|BZh[1-9]1AY|\x28\xb5\x2f\xfd|7z\xbc\xaf\x27\x1c"), ARCHIVE),
)
"""Patterns of a file's first bytes, and what such a file is. Source: git-lfs, docs/spec.md, "The Pointer"."""


def recognise(head: bytes | memoryview) -> WrongFile | None:
    """Return what a file that begins with these bytes is, None if it may be a model or a seed."""
    data = bytes(head[:HEAD_BYTES])
    return next((found for pattern, found in _KINDS if pattern.match(data)), None)
