"""Write the data's files: whole or not at all, compressed the same way everywhere."""

from __future__ import annotations

import io
import lzma
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

BETWEEN = "\0"
"""Stands between two documents of a file."""
Said = Callable[[str], None]
"""Takes a line of progress."""


def write_text(path: Path, text: str) -> None:
    """Write a text, compressed by xz."""
    write_bytes(path, text.encode())


def read_text(path: Path) -> str:
    """Read what `write_text` wrote."""
    return lzma.decompress(path.read_bytes()).decode()


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as an uncompressed .npz, compressed by xz as a whole: equal arrays give equal bytes."""
    # numpy.savez takes the same time stamp for all entries, 1980.
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_bytes(path, buffer.getvalue())


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read what `write_arrays` wrote."""
    with np.load(io.BytesIO(lzma.decompress(path.read_bytes())), allow_pickle=False) as arrays:
        return dict(arrays)


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes, compressed by xz, at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(lzma.compress(data, preset=6))
    part.replace(path)
