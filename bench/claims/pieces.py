"""Bytes in pieces that fit into a transfer each, named by their content, with their digests in a list."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

WEIGHTS, STATE = "weights", "state"  # stems of a checkpoint's pieces and of a healing state's; their lists end in .json
SIZE = 15 * 2**20  # of a piece [B]


class PieceError(ValueError):
    """A piece of a checkpoint isn't there, or isn't what it was."""

    def __init__(self, folder: Path, file: str, advice: str) -> None:
        super().__init__(folder, file, advice)
        self.folder, self.file, self.advice = folder, file, advice

    def __str__(self) -> str:
        return f"{self.folder}: {self.file} is missing or damaged; {self.advice}"


def write(folder: Path, stem: str, data: bytes) -> list[dict[str, str]]:
    """Write pieces, and return the list of them in their order. Others of the stem stay until `clean`."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = []
    for first in range(0, len(data), SIZE):
        piece = data[first : first + SIZE]
        digest = hashlib.sha256(piece).hexdigest()
        name = f"{stem}-{digest[:16]}.bin"
        (folder / name).write_bytes(piece)
        listed.append({"file": name, "sha256": digest})
    return listed


def clean(folder: Path, stem: str, listed: Sequence[dict[str, str]]) -> None:
    """Remove the pieces of a stem that a list doesn't name."""
    kept = {piece["file"] for piece in listed}
    for path in folder.glob(f"{stem}-*.bin"):
        if path.name not in kept:
            path.unlink()


def read(folder: Path, listed: Sequence[dict[str, str]], advice: str) -> bytes:
    """Return the bytes of all pieces.

    Args:
        folder: of the pieces.
        listed: what `write` returned.
        advice: what to do where one is missing.

    Raises:
        PieceError: one is missing or damaged.
    """
    parts = []
    for piece in listed:
        held = folder / piece["file"]
        data = held.read_bytes() if held.is_file() else b""
        if hashlib.sha256(data).hexdigest() != piece["sha256"]:
            raise PieceError(folder, piece["file"], advice)
        parts.append(data)
    return b"".join(parts)
