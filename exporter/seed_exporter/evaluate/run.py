"""Run an assembled model over a sequence of feeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from seed_runtime import backends
from seed_runtime.backends import Array, Feeds


def run_all(
    folder: Path, feeds: Sequence[Feeds], mode: str = "fast", threads: int | None = None
) -> list[dict[str, Array]]:
    """Run the model assembled in `folder` on every feed, and return its outputs by name, one dict per feed.

    Args:
        folder: the assembled model.
        feeds: inputs by name, one mapping per run.
        mode: a mode of the backend.
        threads: threads of the session; None for one per usable core.
    """
    return list(iterate_outputs(folder, feeds, mode, threads))


def iterate_outputs(
    folder: Path, feeds: Sequence[Feeds], mode: str = "fast", threads: int | None = None
) -> Iterator[dict[str, Array]]:
    """Yield outputs feed by feed, so that a caller can stop early; arguments as for `run_all`."""
    runner = backends.get().open(folder, mode, threads)
    try:
        for feed in feeds:
            yield runner.run(feed)
    finally:
        runner.close()
