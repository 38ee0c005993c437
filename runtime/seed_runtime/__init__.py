"""Runs neural networks from seeds: one small file that holds a graph and entropy-coded weights.

>>> import seed_runtime
>>> with seed_runtime.open("model.seed").session(max_memory=64_000_000) as session:
...     outputs = session.run({"input": array})
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seed_runtime.errors import SeedError
from seed_runtime.version import __version__

if TYPE_CHECKING:
    from seed_runtime.seed import Seed, open
    from seed_runtime.session import Session

__all__ = ["Seed", "SeedError", "Session", "__version__", "open"]


def __getattr__(name: str) -> Any:
    # Later than this package: seed-run takes over signals and answers --help before NumPy is imported.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from seed_runtime import seed, session

    return getattr(session if name == "Session" else seed, name)
