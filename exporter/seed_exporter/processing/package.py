"""A model and what stands beside it, for those who read how it is asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from seed_runtime.backends import TensorSpec
from seed_runtime.limits import PROCESSING_RAW_MAX

TOKENIZER: Final = "tokenizer.json"


@dataclass
class Package:
    """A model and what stands beside it."""

    folder: Path | None
    """Folder of the model's file; None for a model that isn't one."""
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    metadata: Mapping[str, str]
    data: memoryview | None = None
    """All of a TFLite file; None for other models."""
    used: list[str] = field(default_factory=list)
    """Names of the files and entries that were used."""

    def json(self, name: str) -> dict[str, Any]:
        """Return the object in a file beside the model; an empty one where there is none."""
        try:
            value = json.loads(self.bytes(name) or b"{}")
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}

    def bytes(self, name: str) -> bytes | None:
        """Return a file beside the model; None where there is none."""
        path = None if self.folder is None else self.folder / name
        try:
            if path is None or not path.is_file() or path.stat().st_size > PROCESSING_RAW_MAX:
                return None
            data = path.read_bytes()
        except OSError:
            return None
        if name not in self.used:
            self.used.append(name)
        return data

    def rank(self, spec: TensorSpec) -> int:
        """Return the number of axes, -1 where it isn't stated."""
        return -1 if spec.shape is None else len(spec.shape)

    def with_rank(self, rank: int) -> list[TensorSpec]:
        """Return the outputs with so many axes."""
        return [spec for spec in self.outputs.values() if self.rank(spec) == rank]


Found = tuple[dict[str, Any], dict[str, bytes]]
"""A description with its attachments."""
