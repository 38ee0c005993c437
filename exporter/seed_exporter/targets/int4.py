"""`int4`: layers' weights and tables are integers of 4 bits in blocks."""

from __future__ import annotations

from functools import partial
from typing import Final

from seed_exporter.targets import blocks
from seed_exporter.targets.target import Target

TARGET: Final = Target(
    "int4", partial(blocks.lower, bits=4, table_bits=4), blocks.RESTRICTED, is_exact=False, decided=0.98, blocks=True
)
