"""Versions of one small model, their outputs on one input, and what a device answered."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np

import seed_runtime
from seed_exporter.build import draft
from tests.exporter.support.exporting import layers, quick_export

MODEL = "soak"
TOLERANCE = 1e-4
"""Of the largest output. Two machines differ by 1e-6, two versions by about 1."""


@dataclass(frozen=True)
class Version:
    """One seed, and what its model gives for the input."""

    path: Path
    digest: str
    output: np.ndarray

    @property
    def size(self) -> int:
        return self.path.stat().st_size


def versions(
    folder: Path, count: int, *, hidden: int = 256, min_runtime: tuple[int, int, int] | None = None
) -> list[Version]:
    """As many versions, each with weights of its own. The same call gives the same seeds."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for number in range(1, count + 1):
        path = folder / f"v{number}.seed"
        rng = np.random.default_rng(number)
        with mock.patch.object(draft, "MIN_RUNTIME", min_runtime or draft.MIN_RUNTIME):
            quick_export(layers(rng, 96, hidden, 40), path, model_id=MODEL, model_version=number)
        seed = seed_runtime.open(path)
        with seed.session() as session:
            output = session.run({"x": question()})["y"]
        made.append(Version(path, seed.digest.hex(), output))
    return made


def question() -> np.ndarray:
    """The input that every device is asked."""
    return np.random.default_rng(0).standard_normal((2, 96)).astype(np.float32)


def question_file() -> bytes:
    """The same as `seed-run --input` takes it."""
    file = io.BytesIO()
    np.savez(file, x=question())
    return file.getvalue()


def answered(data: bytes, known: list[Version]) -> Version | None:
    """Which version gave this answer; None if none of them did."""
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        output = arrays["y"]
    for version in known:
        if output.shape == version.output.shape:
            worst = np.abs(output - version.output).max()
            if worst <= TOLERANCE * np.abs(version.output).max():
                return version
    return None
