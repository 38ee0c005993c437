"""Define public models: a file to prepare, inputs to calibrate with, a task to score.

A module per model makes one `PublicModel` of four functions; `bench.public.MODELS` lists them.
The original and any candidate are scored through the same `Run`, so only their weights differ.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Feeds = dict[str, np.ndarray]
Run = Callable[[Feeds], list[np.ndarray]]
Score = dict[str, Any]

SPLITS = ("calib", "test")


@dataclass(frozen=True)
class PublicModel:
    """A model that anyone can download, with its task.

    Attributes:
        name: the key in `MODELS`, also the folder in the cache.
        about: one line for people.
        prepare: `(cache) -> path` of the fp32 ONNX file, made on the first call.
        inputs: `(cache, n, split) -> feeds`, one sample each and all of equal shapes, so that
            they can be stacked. 'calib' and 'test' share no source (package, font, ...).
        score: `(cache, run, limit) -> Score` with at least `metric`, `better` ('higher' or
            'lower'), `value`, `n` and `outputs`, the arrays that `compare` needs. Uses the
            'test' split, at most `limit` samples.
        compare: `(original, candidate) -> dict` with the metric of both and how far the
            outputs lie apart; ValueError where the two were not taken on the same samples.
    """

    name: str
    about: str
    prepare: Callable[[Path], Path]
    inputs: Callable[[Path, int, str], list[Feeds]]
    score: Callable[..., Score]
    compare: Callable[[Score, Score], dict[str, Any]]


def onnx_run(path: Path, threads: int = 2) -> Run:
    """Return a `Run` of an ONNX file in ONNX Runtime on the CPU; ValueError where it can't be loaded."""
    # Imported here, because the tests that feed a seed's session need no second runtime.
    from seed_runtime import backends

    backends.get().load()  # without its telemetry
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors share no other base
        raise ValueError(f"{path} is no model that ONNX Runtime loads: {error}") from error
    return lambda feeds: session.run(None, feeds)


def check_split(split: str) -> None:
    """Refuse a split that doesn't exist."""
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; use one of {', '.join(SPLITS)}")


def shuffled(items: Sequence[str], salt: str) -> list[str]:
    """Return the items ordered by a hash: a fixed draw that an added item hardly changes."""
    return sorted(items, key=lambda item: hashlib.sha256(f"{salt}/{item}".encode()).digest())


def batches(items: Any, size: int) -> list[Any]:
    """Cut a list or an array into runs of at most `size` items along its first axis."""
    return [items[at : at + size] for at in range(0, len(items), size)]
