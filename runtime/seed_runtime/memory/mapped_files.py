"""Pages of mapped files: those that were read once and aren't needed again."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_MADV_DONTNEED: Final = 4
"""Advice of madvise. Source: <sys/mman.h> of Linux"""


def release_pages(folder: Path) -> int:
    """Take the pages of a folder's mapped files off this process; a later access gets them from the page cache.

    ONNX Runtime reads a table of words as a whole to repack it for the layer that computes scores, and later a few rows
    of it. Call it where no other thread may unmap a file of the folder meanwhile, as by opening or closing a model:
    other memory could be at its address then, and would be lost.

    Returns:
        Number of bytes of the mappings; 0 where the system doesn't show them.
    """
    total = 0
    for start, size in _clean_mappings(f"{os.path.realpath(folder)}/"):
        if ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), _MADV_DONTNEED) == 0:
            total += size
    return total


def _clean_mappings(prefix: str) -> Iterator[tuple[int, int]]:
    """Yield address and size of each mapping of files whose paths begin so, and that has no page of its own."""
    start = size = 0
    with contextlib.suppress(OSError), open("/proc/self/smaps", errors="surrogateescape") as lines:
        for line in lines:
            # Source: proc(5): "address perms offset dev inode path", then "name: size kB" lines.
            first, _, rest = line.partition(" ")
            if not first.endswith(":"):
                low, high = (int(each, 16) for each in first.split("-"))
                fields = rest.rstrip("\n").split(maxsplit=4)
                is_ours = len(fields) == 5 and fields[4].startswith(prefix)
                start, size = (low, high - low) if is_ours else (0, 0)
            elif first == "Anonymous:" and size and rest.split()[0] == "0":
                yield start, size
