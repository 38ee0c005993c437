"""`int2`: layers' weights are integers of 2 bits in blocks, tables alone of 4."""

from __future__ import annotations

from functools import partial
from typing import Final

from seed_exporter.targets import blocks
from seed_exporter.targets.target import Target

TARGET: Final = Target(
    "int2", partial(blocks.lower, bits=2, table_bits=4), blocks.RESTRICTED, is_exact=False, decided=0.98, blocks=True
)
