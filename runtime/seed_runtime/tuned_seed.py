"""Write what a fine-tune has learned as a seed on top of the one that was tuned."""

from __future__ import annotations

import math
import os
from pathlib import Path

from seed_runtime.assembly.cache import ModelCache
from seed_runtime.delta import write_delta
from seed_runtime.errors import UnsupportedError
from seed_runtime.limits import CHAIN_MAX
from seed_runtime.seed import Seed
from seed_runtime.tune import TuneResult


def check_tunable(seed: Seed, name: str, advice: str) -> None:
    """Raise UnsupportedError for a seed that can't be tuned: no training graph, or no room for a seed on top of it.

    Args:
        seed: to be tuned.
        name: how messages name it.
        advice: what to do where it ends the longest chain.
    """
    if seed.header.depth_above > CHAIN_MAX:
        raise UnsupportedError(f"{name} stands on {CHAIN_MAX} versions already, which is the longest chain; {advice}")
    seed.training_graph()


def write_tuned(seed: Seed, result: TuneResult, path: str | os.PathLike[str], cache: ModelCache | None = None) -> int:
    """Write a seed with the result's values, scores and golden sample, and let this machine accept it.

    Args:
        seed: what was tuned.
        result: with tensors that changed.
        path: of the new seed, which replaces an older file in one step.
        cache: where the seed is assembled; None for the user's.

    Returns:
        Size of the new seed [B].

    Raises:
        UnsupportedError: the seed stands on too many others.
        TrustError: it is no longer accepted here, or that can't be noted.
    """
    values = (result.before.value, result.after.value)
    # Of the bytes that are written: by the time that the path names them, another process may have replaced them.
    is_kept = Path(path).is_file() or not Path(path).exists()
    return write_delta(
        seed,
        result.tensors,
        path,
        mode=result.mode,
        scores=(result.metric, *values) if all(map(math.isfinite, values)) else None,
        step=lambda hole, difference: result.quantization_steps[hole],
        golden=result.golden,
        cache=cache,
        before_publishing=seed.note_made_of_this if is_kept else lambda digest: None,
    )
