"""Keep a network's weights as fp16 in pieces below 16 MiB, with a list that says what is whole.

Matrices are rounded to fp16, vectors stay fp32: a teacher *is* what its checkpoint holds, and is judged after loading.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import pieces

LIST = f"{pieces.WEIGHTS}.json"
ADVICE = "train again, or give the folder that --out named"


class CheckpointError(ValueError):
    """A folder holds no whole checkpoint."""

    def __init__(self, folder: Path, fault: str) -> None:
        super().__init__(folder, fault)
        self.folder, self.fault = folder, fault

    def __str__(self) -> str:
        return f"{self.folder}: {self.fault}; {ADVICE}"


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
    # Named by content: until the list is replaced, the pieces of the former checkpoint stay.
    listed = pieces.write(folder, pieces.WEIGHTS, data)
    part = folder / f".{LIST}.part"
    part.write_text(json.dumps({"about": dict(about), "tensors": entries, "pieces": listed}, indent=0))
    part.replace(folder / LIST)
    pieces.clean(folder, pieces.WEIGHTS, listed)


def digest_of(folder: Path) -> str:
    """Return a digest of a checkpoint's weights.

    Raises:
        CheckpointError: there is none.
    """
    if not (folder / LIST).is_file():
        raise CheckpointError(folder, f"there is no {LIST}")
    return " ".join(piece["sha256"] for piece in json.loads((folder / LIST).read_text())["pieces"])


def load(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return weights as float32 and what was said about them.

    Raises:
        CheckpointError: there is none.
        PieceError: a piece is missing or damaged.
    """
    path = folder / LIST
    if not path.is_file():
        raise CheckpointError(folder, f"there is no {LIST}")
    listed = json.loads(path.read_text())
    data = pieces.read(folder, listed["pieces"], ADVICE)
    at, state = 0, {}
    for entry in listed["tensors"]:
        dtype = np.dtype(entry["dtype"])
        count = int(np.prod(entry["shape"]))
        array = np.frombuffer(data, dtype, count, at).reshape(entry["shape"])
        state[entry["name"]] = torch.from_numpy(array.astype(np.float32))
        at += count * dtype.itemsize
    return state, listed["about"]
