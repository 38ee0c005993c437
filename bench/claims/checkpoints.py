"""Keep a network's weights as fp16 in pieces below 16 MiB, with a list that says what is whole.

Matrices are rounded to fp16, vectors stay fp32: a teacher *is* what its checkpoint holds, and is judged after loading.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

PIECE = 15 * 2**20  # [B]
LIST = "weights.json"


class CheckpointError(ValueError):
    """A folder holds no whole checkpoint."""

    def __init__(self, folder: Path, fault: str) -> None:
        super().__init__(folder, fault)
        self.folder, self.fault = folder, fault

    def __str__(self) -> str:
        return f"{self.folder}: {self.fault}; train again, or give the folder that --out named"


def save(folder: Path, state: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write a network's state; a checkpoint that is there is replaced as the last step.

    Args:
        folder: made where it is missing.
        state: of `Module.state_dict`.
        about: what `load` returns beside the weights, JSON.
    """
    folder.mkdir(parents=True, exist_ok=True)
    entries, parts = [], []
    for name, tensor in state.items():
        array = tensor.detach().cpu().numpy()
        array = array.astype(np.float16 if array.ndim > 1 else np.float32)
        entries.append({"name": name, "shape": list(array.shape), "dtype": str(array.dtype)})
        parts.append(array.tobytes())
    data = b"".join(parts)
    pieces = []
    for first in range(0, len(data), PIECE):
        piece = data[first : first + PIECE]
        digest = hashlib.sha256(piece).hexdigest()
        # Named by content: until the list is replaced, the pieces of the former checkpoint stay.
        name = f"weights-{digest[:16]}.bin"
        (folder / name).write_bytes(piece)
        pieces.append({"file": name, "sha256": digest})
    part = folder / f".{LIST}.part"
    part.write_text(json.dumps({"about": dict(about), "tensors": entries, "pieces": pieces}, indent=0))
    part.replace(folder / LIST)
    kept = {piece["file"] for piece in pieces}
    for path in folder.glob("weights-*.bin"):
        if path.name not in kept:
            path.unlink()


def load(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return weights as float32 and what was said about them.

    Raises:
        CheckpointError: there is none, or a piece is missing or damaged.
    """
    path = folder / LIST
    if not path.is_file():
        raise CheckpointError(folder, f"there is no {LIST}")
    listed = json.loads(path.read_text())
    parts = []
    for piece in listed["pieces"]:
        held = folder / piece["file"]
        data = held.read_bytes() if held.is_file() else b""
        if hashlib.sha256(data).hexdigest() != piece["sha256"]:
            raise CheckpointError(folder, f"{piece['file']} is missing or damaged")
        parts.append(data)
    data, at, state = b"".join(parts), 0, {}
    for entry in listed["tensors"]:
        dtype = np.dtype(entry["dtype"])
        count = int(np.prod(entry["shape"]))
        array = np.frombuffer(data, dtype, count, at).reshape(entry["shape"])
        state[entry["name"]] = torch.from_numpy(array.astype(np.float32))
        at += count * dtype.itemsize
    return state, listed["about"]
