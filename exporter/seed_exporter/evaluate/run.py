"""Run an assembled model over a sequence of feeds."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from seed_exporter.evaluate.model_files import backend_of
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


def are_finite(outputs: Mapping[str, Array], noisy: Collection[str] = ()) -> bool:
    """Return whether all floats of one run's outputs are finite, but for those of the outputs `noisy`."""
    floats = [array for name, array in outputs.items() if name not in noisy and array.dtype.kind == "f"]
    return all(bool(np.isfinite(array).all()) for array in floats)


def iterate_outputs(
    folder: Path, feeds: Sequence[Feeds], mode: str = "fast", threads: int | None = None
) -> Iterator[dict[str, Array]]:
    """Yield outputs feed by feed, so that a caller can stop early; arguments as for `run_all`."""
    runner = backend_of(folder).open(folder, mode, threads)
    try:
        for feed in feeds:
            yield runner.run(feed)
    finally:
        runner.close()
