"""Check a kept seed with the runtime alone, on the sample that is kept beside it.

Beside `NAME.seed` are `NAME.npz`, the sample, and `NAME.json`, what was measured where it was made.

The sample has `x` (glyphs `(n, 48, 24)` uint8, ids `(n, length)` uint16, windows `(n, 1025)` uint16), for classes
`label` and `answer` (the teacher's) `(n,)`, `cluster` `(n,)` (font or source package), and `teacher` and `trained_on`
`(n,)`: right or wrong, or mean negative log-likelihood, of the teacher and of the teacher trained on for as many steps
as the healing took. Drawn before anything was judged, from the held-out side.

The JSON has `parameters` (distinct, of the teacher), `licence` of the sample, `healing` with `seconds` and `steps`,
`teacher` and `trained_on` with `held` on the whole held-out side, and `controls`: `label`, `bytes`, `kept` (middle,
low, high) and `note` of each.

A step counts as one whatever it costs: those of the healing get cheaper by its cuts, those of the teacher are of small
batches, recorded, so that it takes as many beside it (`plan.MANY`).
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import seed_runtime

from .goals import Goal
from .inputs import glyph_inputs, text_inputs
from .intervals import Interval, bootstrap, paired, perplexity_ratio

SEEDS = Path(__file__).parent / "seeds"
LARGEST_SAMPLE, LARGEST_ALL = 2_000_000, 12_000_000  # [B]
BATCH = {"glyphs": 64, "text": 32, "windows": 2}


@dataclass(frozen=True)
class Row:
    """A seed beside its goal.

    Attributes:
        name: of the network.
        bytes: of the whole seed.
        ratio: bytes of the teacher's distinct weights at fp32 over it.
        quality: on the sample.
        reference: the better of the teacher and the teacher trained on, on the sample.
        kept: quality over the reference, with the interval of the paired difference.
        clustered: the same by drawing fonts or packages, None for windows.
        agreement: share of the teacher's answers that are the seed's as well, None for windows.
        assembly_s: of writing the model as files.
        assembled_bytes: of these files.
        misses: what isn't reached, for people.
        kept_beside: what `NAME.json` says.
    """

    name: str
    bytes: int
    ratio: float
    quality: float
    reference: float
    kept: Interval
    clustered: Interval | None
    agreement: float | None
    assembly_s: float
    assembled_bytes: int
    misses: tuple[str, ...]
    kept_beside: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)


def check(goal: Goal, folder: Path = SEEDS) -> Row | None:
    """Check one kept seed; None where none is kept.

    Raises:
        FileNotFoundError: the seed is there and its sample or its JSON isn't.
        SeedError: the seed is damaged.
    """
    path = folder / f"{goal.name}.seed"
    if not path.is_file():
        return None
    beside = json.loads(path.with_suffix(".json").read_text())
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as arrays:
        sample = dict(arrays)
    size = path.stat().st_size
    with tempfile.TemporaryDirectory() as made:
        start = time.perf_counter()
        assembled = seed_runtime.open(path, enforce=False).assemble(Path(made) / "model")
        assembly_s = time.perf_counter() - start
        assembled_bytes = sum(file.stat().st_size for file in assembled.iterdir())
    verdicts, answers = _verdicts(path, sample)
    better = max if goal.measure == "accuracy" else min
    reference = better((sample["teacher"], sample["trained_on"]), key=lambda held: float(held.mean()))
    clustered = None
    if goal.measure == "accuracy":
        kept, clustered = paired(reference, verdicts), bootstrap(reference, verdicts, sample["cluster"])
        quality, base = float(verdicts.mean()), float(reference.mean())
    else:
        kept = perplexity_ratio(reference, verdicts)
        quality, base = (float(np.exp(held.mean())) for held in (verdicts, reference))
    row = Row(
        goal.name, size, 4 * beside["parameters"] / size, quality, base, kept, clustered,
        None if answers is None else float((answers == sample["answer"]).mean()),
        assembly_s, assembled_bytes, (), beside,
    )  # fmt: skip
    misses = _misses(goal, row, path.with_suffix(".npz").stat().st_size)
    return Row(**{**row.__dict__, "misses": misses})


def too_large(folder: Path = SEEDS) -> int:
    """Return by how many bytes all kept seeds together are larger than the repository should hold."""
    return max(0, sum(path.stat().st_size for path in folder.glob("*.seed")) - LARGEST_ALL)


def _misses(goal: Goal, row: Row, sample_bytes: int) -> tuple[str, ...]:
    found = []
    if row.bytes > goal.size:
        found.append(f"{row.bytes:,} bytes, {goal.size:,} at most")
    if row.ratio < goal.ratio:
        found.append(f"{row.ratio:.1f}x, {goal.ratio:g}x at least")
    if not goal.keeps(row.kept):
        shown = f"{row.kept.middle:.4f} ({row.kept.low:.4f} to {row.kept.high:.4f})"
        wanted = "at least .99, the lower end .98" if goal.measure == "accuracy" else f"at most {goal.growth:g}"
        found.append(f"quality over the reference's is {shown}, {wanted}")
    before, healed = row.kept_beside["trained_on"]["steps"], row.kept_beside["healing"]["steps"]
    if before < healed:
        found.append(f"the teacher was trained on for {before:,} steps, the healing took {healed:,}")
    if sample_bytes > LARGEST_SAMPLE:
        found.append(f"the sample has {sample_bytes:,} bytes, {LARGEST_SAMPLE:,} at most")
    return tuple(found)


def _verdicts(path: Path, sample: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray | None]:
    """Return right or wrong, and answers, of a classifier; log-likelihoods and None of a language model."""
    x, found = sample["x"], []
    kind = "glyphs" if x.ndim == 3 else "text" if "label" in sample else "windows"
    size = BATCH[kind]
    # Texts by length, so that a batch holds little padding.
    order = np.argsort((x != 0).sum(1), kind="stable") if kind == "text" else np.arange(len(x))
    with seed_runtime.open(path, enforce=False).session() as session:
        for first in range(0, len(x), size):
            rows = x[order[first : first + size]]
            if kind == "glyphs":
                feeds = {session.inputs[0].name: glyph_inputs(rows)}
            elif kind == "text":
                feeds = text_inputs(rows)
            else:
                feeds = {session.inputs[0].name: rows[:, :-1].astype(np.int64)}
            (logits,) = session.run(feeds).values()
            found.append(negative_log_likelihood(logits, rows[:, 1:]) if kind == "windows" else logits.argmax(1))
    result = np.empty(len(x), np.float64 if kind == "windows" else np.int64)
    result[order] = np.concatenate(found)
    return (result, None) if kind == "windows" else (result == sample["label"], result)


def negative_log_likelihood(logits: np.ndarray, following: np.ndarray) -> np.ndarray:
    """Return the mean negative log-likelihood of each window [nat a token].

    Args:
        logits: `(n, length, words)`.
        following: `(n, length)` the tokens that came.
    """
    shifted = logits - logits.max(2, keepdims=True)
    picked = np.take_along_axis(shifted, following[:, :, None].astype(np.int64), 2)[:, :, 0]
    return np.asarray((np.log(np.exp(shifted).sum(2, dtype=np.float64)) - picked).mean(1))
