"""Which release of ONNX Runtime takes which models: its IR versions and opsets. Nothing is imported for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

RELEASES: Final = {
    (1, 19): (10, 21),
    (1, 21): (10, 22),
    (1, 23): (11, 23),
    (1, 24): (13, 25),
    (1, 25): (13, 26),
    (1, 32): (14, 28),
}
"""First release, newest IR version, newest opset of the domain ai.onnx that it takes.

Found by opening models of all versions in each release. Older versions are taken as well; all take ai.onnx.ml up to 5.
"""
_ML_OPSET: Final = 5


def oldest_release(ir_version: int, opsets: Mapping[str, int]) -> str | None:
    """Return the oldest release that takes a model of these versions, such as "1.23"; None where none is known."""
    if opsets.get("ai.onnx.ml", 0) > _ML_OPSET:
        return None
    for release, (ir, opset) in RELEASES.items():
        if ir_version <= ir and opsets.get("", 0) <= opset:
            return ".".join(map(str, release))
    return None


def is_older(version: str, release: str) -> bool:
    """Return whether a version such as "1.20.1" came before a release such as "1.23"; False where it can't be read."""
    parts = [int(part) if part.isascii() and part.isdigit() else -1 for part in version.split(".")[:2]]
    return len(parts) == 2 and min(parts) >= 0 and parts < [int(part) for part in release.split(".")]
