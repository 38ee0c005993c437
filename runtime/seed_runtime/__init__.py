"""Runs neural networks from seeds: one small file that holds a graph and entropy-coded weights.

>>> import seed_runtime
>>> with seed_runtime.open("model.seed").session(max_memory=64_000_000) as session:
...     outputs = session.run({"input": array})
"""

from __future__ import annotations

from seed_runtime.errors import SeedError
from seed_runtime.seed import Seed, Session, open
from seed_runtime.version import __version__

__all__ = ["Seed", "SeedError", "Session", "__version__", "open"]
