"""Replace whatever a terminal would obey in text from outside, so that a device can't move, recolour or retype it."""

from __future__ import annotations

import re
from typing import Final

from seed_runtime.format.primitives import printable

_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def plain(text: str) -> str:
    """Replace what a terminal would obey: white space by spaces, everything else by "?". Return one line."""
    if printable(text) and not _SURROGATE.search(text):
        return text
    return "".join(map(_plain_letter, text))


def plain_lines(text: str) -> str:
    """Replace what a terminal would obey in each line of a text."""
    return "\n".join(map(plain, re.split("\r\n|\r|\n", text)))


def _plain_letter(letter: str) -> str:
    if letter in "\t\r\n":
        return " "
    return letter if printable(letter) and not _SURROGATE.match(letter) else "?"
