"""Outputs of one or many calls: into an `.npz` file, or as a summary. Only those of one call are held at a time."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final, Protocol

import numpy as np
from numpy.lib import format as npy

from seed_runtime.backends import Array
from seed_runtime.cli.terminal import one_line
from seed_runtime.errors import InputError, UsageError
from seed_runtime.system.files import atomic_write

FIRST: Final = 8
"""Number of values that are shown of an output."""
TOP: Final = 5
"""Number of scores that are shown of a vector of scores."""
SCORES_MAX: Final = 1 << 16
"""Elements of the longest vector that is taken for scores: sorting takes 12 bytes each."""
CALLS_SHOWN: Final = 20
"""Number of calls of which scores are shown."""
TEXTS_MAX: Final = 1 << 30
"""Size of the largest array of texts that is written [B]: one long text among many short ones makes it large."""
_PORTION: Final = 1 << 20
"""Bytes that are copied at a time."""
_TEXTS: Final = 256
"""Texts that are converted at a time."""


class Sink(Protocol):
    """Takes the outputs of one call after the other."""

    def add(self, outputs: Mapping[str, Array]) -> None:
        """Take the outputs of the next call."""
        ...


class _Shapes:
    """Dtype and shape of each output, which must not change from call to call where calls are stacked."""

    def __init__(self, counted: bool) -> None:
        self.calls = 0
        self._counted = counted
        self._seen: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {}

    def note(self, outputs: Mapping[str, Array]) -> None:
        if self.calls and outputs.keys() != self._seen.keys():
            raise InputError(
                f"call {self.calls} has the outputs {', '.join(outputs)}, and the first one {', '.join(self._seen)}; "
                f"run these calls one by one"
            )
        for name, array in outputs.items():
            first = self._seen.setdefault(name, (array.dtype, array.shape))
            if first != (array.dtype, array.shape):
                raise InputError(
                    f"output {name!r} has the shape {list(array.shape)} in call {self.calls} and "
                    f"{list(first[1])} in the first; run these calls one by one"
                )
        self.calls += 1

    def __iter__(self) -> Iterator[tuple[str, np.dtype[Any], tuple[int, ...]]]:
        """Yield name, dtype and shape of each output, of all calls together."""
        for name, (dtype, shape) in self._seen.items():
            yield name, dtype, (self.calls, *shape) if self._counted else shape


class Summary:
    """Outputs as people want to see them: dtypes, shapes, first values, the highest of a vector of scores."""

    def __init__(self, counted: bool) -> None:
        self._shapes, self._counted = _Shapes(counted), counted
        self._values: dict[str, list[Any]] = {}
        self._top: dict[str, list[list[dict[str, Any]]]] = {}

    def add(self, outputs: Mapping[str, Array]) -> None:
        """Add the outputs of the next call to the summary."""
        self._shapes.note(outputs)
        for name, array in outputs.items():
            self._values.setdefault(name, array.reshape(-1)[:FIRST].tolist())
            scores = _scores(array)
            if scores is not None and self._shapes.calls <= CALLS_SHOWN:
                self._top.setdefault(name, []).append(_top(scores))

    def as_json(self) -> dict[str, Any]:
        """Return the summary for --json."""
        out: dict[str, Any] = {}
        for name, dtype, shape in self._shapes:
            out[name] = {"dtype": _dtype_text(dtype), "shape": list(shape), "values": self._values[name]}
            if name in self._top:
                out[name]["top"] = self._top[name] if self._counted else self._top[name][0]
        return out

    def lines(self) -> Iterator[str]:
        """Yield the summary as lines."""
        if not self._values:
            yield "no arrays: all outputs are empty sequences, or optional ones that are missing"
        for name, dtype, shape in self._shapes:
            yield f"{name}: {_dtype_text(dtype)}{list(shape)}"
            size = int(np.prod(shape))
            values = self._values[name]
            more = " ..." if size > len(values) else ""
            yield f"  {' '.join(_value(value) for value in values)}{more}" if size else "  no elements"
            for call, best in enumerate(self._top.get(name, [])):
                label = f"top {len(best)} of call {call}" if self._counted else f"top {len(best)}"
                shown = ", ".join(f"[{item['index']}] {_number(item['value'])}" for item in best)
                yield f"  {label}: {shown}"
            if self._counted and name in self._top and self._shapes.calls > CALLS_SHOWN:
                more_calls = self._shapes.calls - CALLS_SHOWN
                yield f"  ... and {more_calls} more calls; write them all to a file: --output y.npz"


class Writer:
    """Holds outputs in unnamed files until the last call, when the shapes of all are known."""

    def __init__(self, counted: bool, folder: Path | None) -> None:
        self._shapes, self._folder = _Shapes(counted), folder
        self._files: dict[str, IO[bytes]] = {}
        self._longest: dict[str, int] = {}
        """Length of the longest text of each output of texts."""

    def add(self, outputs: Mapping[str, Array]) -> None:
        """Append the outputs of the next call to the files."""
        self._shapes.note(outputs)
        for name, array in outputs.items():
            if name not in self._files:
                self._files[name] = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115  close() does
            if array.dtype.kind == "O":
                self._add_texts(name, array)
            else:
                self._files[name].write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)

    def write_into(self, target: IO[bytes]) -> None:
        """Write everything as one `.npz` file; the target may be a pipe."""
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for name, dtype, shape in self._shapes:
                file = self._files[name]
                file.seek(0)
                if name in self._longest:
                    dtype = self._text_type(name, int(np.prod(shape)))
                # A fixed time: the same outputs give the same file.
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                    header = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
                    npy.write_array_header_1_0(member, header)
                    if name in self._longest:
                        for line in file:
                            member.write(np.array(json.loads(line), dtype).tobytes())
                    else:
                        shutil.copyfileobj(file, member, _PORTION)

    def _add_texts(self, name: str, array: Array) -> None:
        """Append texts as lines of JSON: how much room each has in the end depends on the longest of all calls."""
        texts = array.reshape(-1).tolist()
        self._longest[name] = max(self._longest.get(name, 1), *map(len, texts), 1)
        for start in range(0, len(texts), _TEXTS):
            self._files[name].write(json.dumps(texts[start : start + _TEXTS]).encode() + b"\n")

    def _text_type(self, name: str, count: int) -> np.dtype[Any]:
        """Return NumPy's type for the texts of an output, which gives each of them the room of the longest."""
        dtype = np.dtype(f"<U{self._longest[name]}")
        if count * dtype.itemsize > TEXTS_MAX:
            raise InputError(
                f"output {name!r} would take {count * dtype.itemsize:,} bytes, as each of its {count:,} texts takes as "
                f"much as the longest, and at most {TEXTS_MAX:,} are written; give fewer calls at once"
            )
        return dtype

    def close(self) -> None:
        """Remove the unnamed files."""
        for file in self._files.values():
            file.close()


@contextlib.contextmanager
def written(path: str, counted: bool) -> Iterator[Writer]:
    """Give a writer whose file appears at `path`, or on stdout for `-`, when the block ends without an error."""
    if path == "-":
        if sys.stdout.isatty():
            raise UsageError("stdout is a terminal; redirect it into a file or a pipe, or give --output a file")
        with contextlib.closing(Writer(counted, None)) as writer:
            yield writer
            writer.write_into(sys.stdout.buffer)
            sys.stdout.buffer.flush()
        return
    # Made before the model runs, so that a folder that can't be written to is refused at once.
    with atomic_write(path) as file:
        # Beside the output, which is on a disk: the system's temporary folder is often memory.
        beside = Path(os.path.realpath(path)).parent if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else None
        with contextlib.closing(Writer(counted, beside)) as writer:
            yield writer
            writer.write_into(file)


def _scores(array: Array) -> Array | None:
    """Return the array as a vector of scores, one float for each of several things; None where it is none."""
    long_axes = [size for size in array.shape if size != 1]
    if array.dtype.kind != "f" or len(long_axes) != 1 or array.size > SCORES_MAX:
        return None
    return array.reshape(-1)


def _top(scores: Array) -> list[dict[str, Any]]:
    # Stable, so that of equal scores the first one wins on every machine; NaN sorts to the end.
    best = np.argsort(-scores, kind="stable")[:TOP]
    return [{"index": int(index), "value": float(scores[index])} for index in best]


def _dtype_text(dtype: np.dtype[Any]) -> str:
    return "string" if dtype.kind == "O" else str(dtype)


def _value(value: Any) -> str:
    return f'"{one_line(value)}"' if isinstance(value, str) else _number(value)


def _number(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)
