"""Tell whether an export would repeat an earlier one: a digest of all that its bytes come from."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import onnx
from google.protobuf.message import DecodeError, Message

from seed_exporter.batch.jobs_file import Job
from seed_runtime.version import __version__

_SECRET: Final = "sign"
"""Option whose file is never read here: keys are known by size and time."""
_MISSING: Final = "missing"


class Fingerprints:
    """Computes digests of jobs; a file that several jobs read is read once."""

    def __init__(self) -> None:
        self._known: dict[Path, str] = {}

    def of(self, job: Job) -> str:
        """Return a digest of the model's bytes, external data included, the options with what they read, the version.

        Where the files go is left out: the bytes don't depend on it.
        """
        options = {name: value for name, value in job.values.items() if name not in ("output", "report")}
        for name, path in job.inputs.items():
            options[name] = _stamp(path) if name == _SECRET else self._digest(path)
        # The model's file is the model id where none is given.
        facts = [__version__, job.model.name, [self._digest(path) for path in _model_files(job.model)], options]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def _digest(self, path: Path) -> str:
        if path not in self._known:
            self._known[path] = digest(path)
        return self._known[path]


def digest(path: Path) -> str:
    """Compute the digest of a file, or of all files below a folder and their names; of nothing where nothing is."""
    if path.is_dir():
        files = sorted(each for each in path.rglob("*") if each.is_file())
        listed = [(each.relative_to(path).as_posix(), digest(each)) for each in files]
        return hashlib.sha256(json.dumps(listed).encode()).hexdigest()
    # Not of a pipe or a device, which may have no end. The export says what is wrong with what can't be read.
    with contextlib.suppress(OSError):
        if path.is_file():
            with open(path, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
    return _MISSING


def _stamp(path: Path) -> str:
    try:
        found = path.stat()
    except OSError:
        return _MISSING
    return f"{path}, {found.st_size} bytes, {found.st_mtime_ns}"


def _model_files(path: Path) -> list[Path]:
    """List a model's file and those of its external data."""
    locations: set[str] = set()
    if path.suffix.lower() == ".onnx":
        with contextlib.suppress(OSError, DecodeError):  # the export says what is wrong with it
            locations = set(_locations(onnx.load(path, load_external_data=False)))
    return [path, *(path.parent / location for location in sorted(locations))]


def _locations(message: Message) -> Iterator[str]:
    """Yield where the external data of all tensors in a message is, however deep they are."""
    if isinstance(message, onnx.TensorProto):
        yield from (entry.value for entry in message.external_data if entry.key == "location")
        return
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for inner in [value] if isinstance(value, Message) else value:
                yield from _locations(inner)
