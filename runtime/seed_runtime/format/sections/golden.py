"""Section GOLDEN: the golden sample, which seed_runtime.golden reads."""

from __future__ import annotations

from typing import Final

from seed_runtime.format.sections.section import OPTIONAL, opaque
from seed_runtime.limits import GOLDEN_MAX

GOLDEN: Final = opaque(OPTIONAL | 0x0006, "GOLDEN", GOLDEN_MAX)
