"""A whole seed and versions of it, each on top of the one before."""

from __future__ import annotations

import functools
from pathlib import Path

from seed_runtime import generator
from seed_runtime.agent.store.store import Store
from seed_runtime.golden import Recipe
from tests.runtime.agent.support.device_agent import (
    INPUTS,
    NAME,
    digest_of,
    seed,
)
from tests.support.deltas import delta_on
from tests.support.model_seeds import F32

SAMPLE = Recipe(generator.NORMAL, F32, (1, INPUTS), 0.0, 1.0)


@functools.cache
def chain(length: int) -> tuple[bytes, ...]:
    """Return a whole seed and versions 2, 3, ... of it, each on top of the one before."""
    if length == 1:
        return (seed(1),)
    below = chain(length - 1)
    return (*below, delta_on(*below, version=length, recipes=(SAMPLE,)))


def digests(length: int) -> list[str]:
    return [digest_of(data) for data in chain(length)]


def model_of() -> Path:
    return Store().model(NAME).folder
