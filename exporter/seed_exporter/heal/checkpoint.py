"""Checkpoints of a training: arrays in one `.npz`, without pickle, replaced as a whole."""

from __future__ import annotations

import hashlib
import io
import json
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from seed_exporter.graph.model import Graph
from seed_runtime.backends import Feeds
from seed_runtime.errors import InputError, UsageError
from seed_runtime.system.files import atomic_write, check_writable

FILE: Final = "training.npz"
"""Name of the file in its folder."""
START: Final = "start.npz"
"""Name of the file of the plans that a training started from, beside it."""
EVERY: Final = 300.0
"""Time between two checkpoints [s]."""
FACTS: Final = "facts"
"""Name of the array that holds what is no array, as JSON."""
_VERSION: Final = 1


class Checkpoints:
    """The checkpoint of one training in a folder.

    Args:
        folder: where it is; made where there is none.
        key: digest of all that the training depends on, see `key_of`.
        say: is told why a checkpoint wasn't written.
        file: its name.

    Raises:
        UsageError: nothing can be written there.
    """

    def __init__(
        self, folder: Path, key: str, say: Callable[[str], None] = lambda line: None, file: str = FILE
    ) -> None:
        self._path, self._key, self._say = folder / file, key, say
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"--resume {folder}: no such folder can be made ({error.strerror}); name another"
            ) from None
        check_writable(self._path)
        self._written = time.monotonic()

    @property
    def is_due(self) -> bool:
        """True once the last one is old enough."""
        return time.monotonic() >= self._written + EVERY

    def write(self, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
        """Replace the checkpoint; where that fails, as on a full disk, the old one stays and training goes on.

        Args:
            arrays: by name.
            facts: what is no array, as JSON holds it.
        """
        text = json.dumps({"version": _VERSION, "key": self._key, **facts})
        buffer = io.BytesIO()
        np.savez(buffer, **{FACTS: np.frombuffer(text.encode(), np.uint8), **arrays})  # type: ignore[arg-type]
        self._written = time.monotonic()
        try:
            with atomic_write(self._path) as file:
                file.write(buffer.getbuffer())
        except OSError as error:
            self._say(f"the state wasn't saved in {self._path} ({error.strerror}); training goes on: free some space")

    def read(self) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """Read the checkpoint; None where there is none.

        Raises:
            InputError: it is damaged, or of another training.
        """
        if (found := _load(self._path)) is None:
            return None
        arrays, facts = found
        if facts.get("version") != _VERSION or facts.get("key") != self._key:
            raise InputError(
                f"{self._path} is of a training with another model, other data or another size; "
                f"give --resume another folder"
            )
        return arrays, facts


def is_started(folder: Path) -> bool | None:
    """Return whether the training of a checkpoint started from the plans of a search; None where there is none.

    Raises:
        InputError: it is damaged.
    """
    found = _load(folder / FILE)
    return None if found is None else bool(found[1].get("started"))


def _load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    if not path.exists():
        return None
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        return arrays, json.loads(arrays.pop(FACTS).tobytes())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is no checkpoint, or it is damaged ({error}); remove it") from None


def key_of(graph: Graph, feeds: Sequence[Feeds], *settings: object) -> str:
    """Return a digest of a graph, inputs and settings."""
    digest = hashlib.sha256(repr(settings).encode())
    digest.update(graph.model.SerializeToString(deterministic=True))
    for weight in graph.weights.values():
        digest.update(np.ascontiguousarray(weight.data).tobytes())
    for feed in feeds:
        for name, array in sorted(feed.items()):
            digest.update(name.encode())
            digest.update(array.tobytes() if array.dtype.kind != "O" else repr(array.tolist()).encode())
    return digest.hexdigest()
