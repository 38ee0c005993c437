"""Section MODEL: which model this is, and which runtime it needs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from seed_runtime.errors import UnsupportedError
from seed_runtime.format import primitives
from seed_runtime.format.primitives import Cursor
from seed_runtime.format.sections.section import Parsed, Section
from seed_runtime.limits import WEIGHTS_MAX
from seed_runtime.version import __version__


@dataclass(frozen=True)
class ModelInfo:
    """Identity of the model, and its size before compression."""

    model_id: str
    version: int
    """Version of the model, which grows with every release of the same `model_id`."""
    min_runtime: tuple[int, int, int]
    """The oldest release of seed-runtime that can take the seed."""
    parameters: int
    """Number of distinct weights of the source, in elements."""
    source_bytes: int
    """Size of these weights in the source; the ratio is this over the seed's size [B]."""


def check_runtime(model: ModelInfo) -> None:
    """Raise UnsupportedError where this runtime is older than the seed needs."""
    # A pre-release of 0.2.0 counts as 0.2.0.
    running = tuple(int(number) for number in re.findall(r"\d+", __version__)[:3])
    if model.min_runtime > running:
        wanted = ".".join(map(str, model.min_runtime))
        raise UnsupportedError(
            f"this seed needs seed-runtime {wanted} and this is {__version__}; "
            f"update it: pip install -U 'seed-runtime>={wanted}'"
        )


def _parse(cursor: Cursor, _: Parsed) -> ModelInfo:
    return ModelInfo(
        model_id=cursor.string("model id"),
        version=cursor.varint("model version", limit=(1 << 63) - 1),
        min_runtime=(
            cursor.varint("minimum runtime, major", limit=1 << 16),
            cursor.varint("minimum runtime, minor", limit=1 << 16),
            cursor.varint("minimum runtime, patch", limit=1 << 16),
        ),
        parameters=cursor.varint("parameters", limit=WEIGHTS_MAX * 2),
        source_bytes=cursor.varint("source bytes", limit=WEIGHTS_MAX * 8),
    )


def _serialize(model: ModelInfo) -> bytes:
    numbers = (model.version, *model.min_runtime, model.parameters, model.source_bytes)
    return primitives.string(model.model_id) + b"".join(map(primitives.varint, numbers))


MODEL: Final = Section(0x0001, "MODEL", _parse, _serialize, required=True)
