"""Section FOOTPRINT: measured memory of a session, which seed_runtime.memory.footprint reads."""

from __future__ import annotations

from typing import Final

from seed_runtime.format.sections.section import OPTIONAL, opaque
from seed_runtime.limits import FOOTPRINT_MAX

FOOTPRINT: Final = opaque(OPTIONAL | 0x0007, "FOOTPRINT", FOOTPRINT_MAX)
