"""What one conformance vector is, and its record in vectors.json."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

NAMES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    16: "bfloat16",
    17: "float8e4m3fn",
    18: "float8e4m3fnuz",
    19: "float8e5m2",
    20: "float8e5m2fnuz",
    21: "uint4",
    22: "int4",
}
"""SPEC.md's names of the element types, by their numbers."""


@dataclass(frozen=True)
class Hole:
    """A tensor's place in the weights file, as vectors.json states it."""

    dtype: int
    dims: Sequence[int]
    offset: int


@dataclass(frozen=True)
class Vector:
    """A seed, what it shows, and what a conforming decoder makes of it."""

    name: str
    """Letters, digits and hyphens; the file is `seeds/NAME.seed`."""
    tests: str
    """What the seed has that others have not, or what is wrong with it."""
    seed: bytes
    exit_code: int = 0
    model: bytes = b""
    """The ONNX model."""
    weights: bytes = b""
    holes: Sequence[Hole] = ()
    tflite: bytes = b""
    """The TFLite model, in place of both files of an ONNX one."""
    bases: tuple[Vector, ...] = ()
    """The seed's base, that one's own, and so on; a decoder is given all of them."""

    def record(self) -> dict[str, Any]:
        """Return its entry in vectors.json."""
        record: dict[str, Any] = {"name": self.name, "tests": self.tests, "exit_code": self.exit_code}
        if self.bases:
            record["bases"] = [base.name for base in self.bases]
        if not self.exit_code:
            files = {"model.onnx": self.model, "model.weights": self.weights}
            if self.tflite:
                files = {"model.tflite": self.tflite}
            record |= {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
            record["weights_size"] = len(self.weights)
            record["holes"] = [
                {"dtype": NAMES[hole.dtype], "dims": list(hole.dims), "offset": hole.offset} for hole in self.holes
            ]
        return record
