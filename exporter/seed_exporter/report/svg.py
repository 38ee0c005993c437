"""Parts that drawings share: the document, readable on light and on dark pages, and the legend above a drawing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Final

WIDTH: Final = 760
"""Width of every drawing [user units]."""
TOP: Final = 64
"""Where a drawing begins, below title and one line of legend [user units]."""
COLOURS: Final = ("#2f81f7", "#9a8cd6", "#d29922", "#3fa66b", "#d1495b", "#2a9d8f", "#b07aa1", "#7f8c8d")
_LINE: Final = 18
"""Height of one more line of legend [user units]."""

_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f } .title { font-size: 14px; font-weight: 600 }
.axis { stroke: #8c959f; stroke-width: 1 } .grid { stroke: #8c959f; stroke-opacity: .3 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } }
"""


def document(title: str, parts: Sequence[str], height: float) -> str:
    """Put a drawing together as one SVG, which can stand in a file or in a page."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img" '
        f'aria-label="{escape(title)}">\n<style>{_STYLE}</style>\n'
        f'<text class="title" x="10" y="18">{escape(title)}</text>\n'
    )
    return head + "\n".join(parts) + "\n</svg>\n"


def legend(names: Sequence[str]) -> tuple[list[str], int]:
    """Draw the names beside their colours, in as many lines as they need.

    Returns:
        The parts, and how far they reach below TOP [user units].
    """
    out, x, y = [], 10.0, 32
    for index, name in enumerate(names):
        width = 40 + 7 * len(name)
        if index and x + width > WIDTH:
            x, y = 10.0, y + _LINE
        out.append(f'<rect x="{x:.0f}" y="{y}" width="12" height="12" fill="{colour(index)}"/>')
        out.append(f'<text x="{x + 18:.0f}" y="{y + 10}">{escape(name)}</text>')
        x += width
    return out, y - 32


def colour(index: int) -> str:
    """Return the colour of a series; the first ones differ most."""
    return COLOURS[index % len(COLOURS)]


def round_values(least: float, most: float) -> list[float]:
    """Return round values between two powers of ten: 1, 2 and 5 of each decade, and only 1 where these are many.

    A range that holds fewer than two of them gets its ends.
    """
    digits = (1, 2, 5) if most - least < 3 else (1,)
    decades = range(math.floor(least), math.ceil(most) + 1)
    values = (digit * 10.0**decade for decade in decades for digit in digits)
    found = [value for value in values if least <= math.log10(value) <= most]
    return found if len(found) > 1 else [10**least, 10**most]
