"""Turns a seed that has arrived into a version: checked, assembled, its golden sample run, then put in place.

Nothing is published before all of it has passed. What fails leaves the partial file, so that a second try sends
nothing again, unless the seed itself is to blame.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seed_runtime.agent.store import history, partial
from seed_runtime.agent.store.installed_model import Model
from seed_runtime.errors import FormatError, UnsupportedError, UntrustedError

if TYPE_CHECKING:
    from seed_runtime.format.header import Header
    from seed_runtime.seed import Seed

Report = Callable[[str, int, int], None]
"""Called with a step's name, what is done of it, and all of it."""


def install(model: Model, part: Path, digest: str, max_memory: int | None, report: Report) -> dict[str, Any]:
    """Make `part` a version of `model`, which is locked. Not yet the one that runs.

    `max_memory` [B] bounds this process, as --max-memory does. Returns the answer to `install`.

    Errors: FormatError and its kin, TrustError, UnsupportedError where the golden sample fails, MemoryBudgetError,
    DiskSpaceError, OSError.
    """
    from seed_runtime import trust
    from seed_runtime.memory import process

    try:
        seconds, found, header = _examine(part, digest, max_memory, report)
    except UntrustedError:
        # Not for a TrustError that the next try may be spared: no ssh-keygen, a wrong clock, a signer to be added.
        part.unlink()
        raise
    except FormatError:
        # All its bytes are those that were sent, and still it is no seed: sending it again won't help.
        if partial.is_whole(part, digest):
            part.unlink()
        raise
    start = time.perf_counter()
    report("place", 0, 1)
    record = {
        "digest": digest,
        "model_id": header.model.model_id,
        "model_version": header.model.version,
        "bytes": part.stat().st_size,
        "weights_bytes": header.weights.size,
        "pushed": history.now(),
        **found,
    }
    model.place(digest, part, record)
    trust.accept(header, digest, kept=True)
    history.append(model.folder, "install", digest)
    report("place", 1, 1)
    seconds["place"] = time.perf_counter() - start
    rounded = {step: round(value, 4) for step, value in seconds.items()}
    return {"record": record, "seconds": rounded, "peak_rss": process.peak_rss()}


def _examine(
    part: Path, digest: str, max_memory: int | None, report: Report
) -> tuple[dict[str, float], dict[str, Any], Header]:
    import seed_runtime
    from seed_runtime import backends

    start = time.perf_counter()
    size = part.stat().st_size
    report("verify", 0, size)
    seed_runtime.open(part)  # TrustError unless this device takes it
    # It counts as accepted once it is in place, and not if its golden sample fails.
    seed = seed_runtime.open(part, enforce=False)
    if seed.digest.hex() != digest:
        raise FormatError(part.name, f"it holds another seed, {seed.digest.hex()[:12]}")
    front = partial.check(part, digest, lambda done, total: report("verify", done, total))
    if not front.whole:
        raise FormatError(part.name, f"of {size:,} bytes {front.have:,} are right")
    seconds = {"verify": time.perf_counter() - start}
    found: dict[str, Any] = {"golden": None, "golden_distance": None, "planned_bytes": None, "backend": None}
    if backends.get(seed.kind.backend).available():
        _run(seed, max_memory, report, seconds, found)
    else:
        # 32-bit boards have no ONNX Runtime: they assemble, and something else runs the model.
        start = time.perf_counter()
        found["planned_bytes"] = seed.plan_assembly(max_memory).needed_bytes
        seed.check(lambda done, total: report("assemble", done, total))
        seconds["assemble"] = time.perf_counter() - start
    return seconds, found, seed.header


def _run(seed: Seed, max_memory: int | None, report: Report, seconds: dict[str, float], found: dict[str, Any]) -> None:
    report("assemble", 0, seed.header.weights.size)
    start = time.perf_counter()
    with seed.session(
        max_memory=max_memory,
        feeds=seed.golden_shapes(),
        progress=lambda done, total: report("assemble", done, total),
        notice=lambda line: print(line, file=sys.stderr),
        verify=True,
        # Not only for who looks on: it raises Gone once nobody does, which ends a model that would run for ever.
        watch=lambda: report("golden", 0, 1),
    ) as session:
        seconds["assemble"] = time.perf_counter() - start
        start = time.perf_counter()
        report("golden", 0, 1)
        verdict = session.verify()
        found["planned_bytes"] = session.needed_bytes
    if not verdict.ok:
        raise UnsupportedError(verdict.problem)
    report("golden", 1, 1)
    seconds["golden"] = time.perf_counter() - start
    found["backend"] = seed.kind.backend
    if verdict.present:
        found |= {"golden": True, "golden_distance": verdict.worst}
