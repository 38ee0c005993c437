"""Compare lossless differences between checkpoints of one training run with ZipNN, xz and zstd on the same ones.

A small byte-level language model is trained on this machine's own Python sources, and then tuned on their comments
(bench/checkpoint_runs.py). Each checkpoint is coded on an earlier one. ZipNN gets the exclusive or of both, and their
difference as integers, and the smaller result counts; xz (-9e) and zstd (-19) get both as planes of bytes. The seed's
figure is the whole file, and its bits are compared with the checkpoint's. Beside them stand estimates of what is
possible from the base alone, and from the checkpoint before it as well (bench/checkpoint_bound.py).
"""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from typing import Final

import numpy as np

from bench import checkpoint_runs, measure
from bench.checkpoint_bound import bound
from bench.checkpoint_runs import Checkpoint
from bench.lossless import planes, xz_size, zipnn_size, zstd_size
from bench.measure import Figures, Goal
from seed_runtime.codecs import BY_NAME as CODECS
from seed_runtime.codecs.delta import difference_of_bits
from seed_runtime.codecs.encode import delta
from seed_runtime.format.dtypes import BY_NAME
from seed_runtime.format.header import Hole

STEPS: Final = 2000
TUNING: Final = 100
SHARE_MOST: Final = 0.6
PAIRS: Final = (
    ("training", "early", 100, 101), ("training", "middle", 1000, 1001), ("training", "late", 1900, 1901),
    ("training", "early", 100, 110), ("training", "middle", 1000, 1010), ("training", "late", 1900, 1910),
    ("training", "last", 1990, 2000),
    ("training", "early", 100, 200), ("training", "middle", 1000, 1100), ("training", "last", 1900, 2000),
    ("tuning", "first", 0, 10), ("tuning", "last", 90, 100), ("tuning", "all", 0, 100),
)  # fmt: skip
"""Run, part of it, and the steps of the base and of what is coded on it."""
OTHER_TYPES: Final = (("training", "middle", 1000, 1010),)
"""Pairs that are measured as float32 and float16 as well."""
_SEED_BYTES: Final = 260
"""Header of a seed with its base's graph, which a stream is counted with [B]."""


def run(quick: bool = False) -> Figures:
    scale = 20 if quick else 1
    kept = _train(scale)
    # Shorter ones would begin and end at the same step.
    pairs = [pair for pair in PAIRS if not quick or pair[3] - pair[2] == TUNING]
    rows = [
        _measured(kept, pair, dtype, scale)
        for pair in pairs
        for dtype in ("bfloat16", *(("float32", "float16") if pair in OTHER_TYPES else ()))
    ]
    goals = [Goal(_title(row) + ": bytes, of ZipNN's", row["share"], SHARE_MOST, "x") for row in rows]
    goals.append(Goal("bits of every checkpoint the same", float(all(row["exact"] for row in rows)), 1, "", least=True))
    return {"weights": rows[0]["weights"], "rows": rows, "goals": [goal.as_json() for goal in goals]}


def _train(scale: int) -> dict[tuple[str, int], Checkpoint]:
    """Return the checkpoints of both runs as float32, by run and step."""
    sources, prose = checkpoint_runs.text()
    wanted = {(pair[0], step // scale) for pair in PAIRS for step in (*pair[2:], 2 * pair[2] - pair[3])}
    kept: dict[tuple[str, int], Checkpoint] = {}
    trained = None
    for name, data, steps, rate in (("training", sources, STEPS, 1e-3), ("tuning", prose, TUNING, 2e-4)):
        for step, model, loss in checkpoint_runs.train(data, steps // scale, rate=rate, start=trained):
            trained = model
            measure.note(f"checkpoints: {name}, step {step} of {steps // scale}, loss {loss:.2f}")
            if (name, step) in wanted:
                kept[name, step] = checkpoint_runs.weights(model)
    return kept


def _measured(
    kept: Mapping[tuple[str, int], Checkpoint], pair: tuple[str, str, int, int], dtype: str, scale: int
) -> Figures:
    name, part, first, last = pair
    base, new = (checkpoint_runs.cast(kept[name, step // scale], dtype) for step in (first, last))
    measure.note(f"checkpoints: {name}, {part}, {last - first} steps, {dtype}")
    spent_before = time.process_time()
    chunks = _coded(base, new, dtype)
    coding, spent_before = time.process_time() - spent_before, time.process_time()
    exact = _decoded(base, chunks, dtype) == b"".join(values.tobytes() for values in new.values())
    decoding = time.process_time() - spent_before
    size = sum(map(len, chunks)) + _SEED_BYTES
    peers = _peers(base, new, dtype)
    bounds = {}
    if dtype == "bfloat16":
        before = kept.get((name, (2 * first - last) // scale))
        bounds["base"] = bound(base, new, None)
        bounds["before"] = before and bound(base, new, checkpoint_runs.cast(before, dtype))
    return {
        "run": name, "part": part, "steps": last - first, "dtype": dtype,
        "weights": sum(values.size for values in new.values()), "bytes": sum(values.nbytes for values in new.values()),
        "seed": size, "peers": peers, "share": size / peers["ZipNN"], "exact": exact, "bounds": bounds,
        "coding_s": round(coding, 2), "mb_per_s": measure.rounded(sum(v.nbytes for v in new.values()) / decoding / 1e6),
    }  # fmt: skip


def _coded(base: Checkpoint, new: Checkpoint, dtype: str) -> list[bytes]:
    changes = []
    for name, values in new.items():
        view = delta.view_of(values.shape, values.size)
        integers = difference_of_bits(values.reshape(-1), base[name].reshape(-1), BY_NAME[dtype])
        changes.append(delta.exact(integers.reshape(view), base[name].reshape(view), BY_NAME[dtype]))
    return delta.encode(changes).chunks


class _Base:
    """A checkpoint as the base of a stream."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._tensors = [values.reshape(-1) for values in checkpoint.values()]

    def read(self, hole: int, start: int, stop: int) -> np.ndarray:
        return self._tensors[hole][start:stop]


def _decoded(base: Checkpoint, chunks: list[bytes], dtype: str) -> bytes:
    holes = [Hole(BY_NAME[dtype], values.shape, 0) for values in base.values()]
    views, out = iter([memoryview(chunk) for chunk in chunks]), io.BytesIO()
    for block in CODECS["delta"].decode(holes, views, "bench", _Base(base)):
        out.write(np.ascontiguousarray(block).tobytes())
    return out.getvalue()


def _peers(base: Checkpoint, new: Checkpoint, dtype: str) -> dict[str, int]:
    """Return the bytes of peers, each on whichever difference it codes in fewer."""
    pairs = [(values, base[name]) for name, values in new.items()]
    both = [b"".join((a ^ b).tobytes() for a, b in pairs), b"".join((a - b).tobytes() for a, b in pairs)]
    width = BY_NAME[dtype].bits // 8
    return {
        "ZipNN": min(zipnn_size(each, dtype) for each in both),
        "xz": min(xz_size(planes(each, width)) for each in both),
        "zstd": min(zstd_size(planes(each, width)) for each in both),
    }


def _title(row: Figures) -> str:
    return f"{row['run']}, {row['part']}, {row['steps']} steps, {row['dtype']}"


def table(figures: Figures) -> list[str]:
    lines = [
        "| run, part | steps | type | seed | ZipNN | xz -9e | zstd -19 | of ZipNN's | bound | coded in | decoding |",
        "|---|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in figures["rows"]:
        peers, bounds = row["peers"], [each for each in row["bounds"].values() if each]
        bound_text = ", ".join(f"{each / peers['ZipNN']:.2f}" for each in bounds)
        sizes = " | ".join(f"{peers[name]:,}" for name in ("ZipNN", "xz", "zstd"))
        lines.append(
            f"| {row['run']}, {row['part']} | {row['steps']} | {row['dtype']} | **{row['seed']:,}** | {sizes} "
            f"| {row['share']:.2f} | {bound_text} | {row['coding_s']:.2f} s | {row['mb_per_s']:.0f} MB/s |"
        )
    return lines
