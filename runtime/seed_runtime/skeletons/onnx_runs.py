"""Runs of one field in a message: the lists of a node's attribute, of which a forest of trees has millions.

Each function counts the fields from a place on that are like the one before it, and stops before the first that is
anything else or breaks a rule, which is then read field by field. Memory: that of a block, whatever the run's length.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from seed_runtime.skeletons import onnx_schema as schema

Run = Callable[[memoryview, int, int, int], tuple[int, int]]
"""Counts the fields of one tag between two places; returns how many there are, and the place behind them."""

_BLOCK: Final = 1 << 16
"""Bytes that are looked at together."""
_LONGEST: Final = 10
"""Bytes of the longest number, whose last one is 1 at most."""


def count_numbers(data: memoryview, pos: int, end: int, tag: int) -> tuple[int, int]:
    """Count fields of a number each, in its shortest form and below 2**64."""
    count = 0
    while pos < end:
        block = np.frombuffer(data[pos : min(pos + _BLOCK, end)], np.uint8)
        last = np.flatnonzero(block < 0x80)
        # Every other number is a tag.
        tags, values = last[: len(last) & ~1 : 2], last[1::2]
        begins = np.concatenate(([0], values[:-1] + 1)) if len(values) else values
        sizes = values - tags
        good = (tags == begins) & (block[tags] == tag) & (sizes <= _LONGEST)
        good &= (sizes == 1) | (block[values] != 0)
        good &= (sizes < _LONGEST) | (block[values] <= 1)
        found = len(good) if good.all() else int(good.argmin())
        if found:
            count, pos = count + found, pos + int(values[found - 1]) + 1
        if found < len(good) or not found:
            break
    return count, pos


def count_floats(data: memoryview, pos: int, end: int, tag: int) -> tuple[int, int]:
    """Count fields of four bytes each."""
    count = 0
    while (whole := min(end - pos, _BLOCK) // 5) > 0:
        tags = np.frombuffer(data[pos : pos + 5 * whole], np.uint8)[::5] == tag
        found = whole if tags.all() else int(tags.argmin())
        count, pos = count + found, pos + 5 * found
        if found < whole:
            break
    return count, pos


def count_short_texts(data: memoryview, pos: int, end: int, tag: int) -> tuple[int, int]:
    """Count fields of at most 127 bytes each."""
    count = 0
    while pos + 1 < end and data[pos] == tag and (size := data[pos + 1]) < 0x80 and pos + 2 + size <= end:
        count, pos = count + 1, pos + 2 + size
    return count, pos


RUNS: Final[dict[str, Run]] = {
    schema.INT: count_numbers,
    schema.FLOAT: count_floats,
    schema.BYTES: count_short_texts,
}
"""Functions by the kind of a field that may stand any number of times."""
