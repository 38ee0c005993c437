"""Section MODEL: which model this is, and which level of the format it uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from seed_runtime.errors import UnsupportedError
from seed_runtime.format import primitives
from seed_runtime.format.primitives import Cursor
from seed_runtime.format.sections.section import Parsed, Section
from seed_runtime.limits import FEATURE_LEVEL_MAX, WEIGHTS_MAX
from seed_runtime.version import __version__

FEATURE_LEVEL: Final = 1
"""The level of the format that this runtime reads and writes (SPEC.md, "Versions")."""
_RELEASES: Final = ((0, 0, 0), (0, 1, 0))
"""The first release of seed-runtime that reads seeds of each level."""


@dataclass(frozen=True)
class ModelInfo:
    """Identity of the model, and its size before compression."""

    model_id: str
    version: int
    """Version of the model, which grows with every release of the same `model_id`."""
    feature_level: int
    """The level of the format that a reader must know to read the seed."""
    parameters: int
    """Number of distinct weights of the source, in elements."""
    source_bytes: int
    """Size of these weights in the source; the ratio is this over the seed's size [B]."""

    @property
    def min_runtime(self) -> tuple[int, int, int]:
        """The oldest release of seed-runtime that can take the seed."""
        return _RELEASES[self.feature_level]


def check_level(model: ModelInfo) -> None:
    """Raise UnsupportedError where the seed is of a higher level than this runtime."""
    if model.feature_level > FEATURE_LEVEL:
        raise UnsupportedError(
            f"this seed needs level {model.feature_level} of the format and seed-runtime {__version__} reads level "
            f"{FEATURE_LEVEL}; update it: pip install -U seed-runtime"
        )


def _parse(cursor: Cursor, _: Parsed) -> ModelInfo:
    return ModelInfo(
        model_id=cursor.string("model id"),
        version=cursor.varint("model version", limit=(1 << 63) - 1),
        feature_level=cursor.varint("feature level", limit=FEATURE_LEVEL_MAX),
        parameters=cursor.varint("parameters", limit=WEIGHTS_MAX * 2),
        source_bytes=cursor.varint("source bytes", limit=WEIGHTS_MAX * 8),
    )


def _serialize(model: ModelInfo) -> bytes:
    numbers = (model.version, model.feature_level, model.parameters, model.source_bytes)
    return primitives.string(model.model_id) + b"".join(map(primitives.varint, numbers))


MODEL: Final = Section(0x0001, "MODEL", _parse, _serialize, required=True)
