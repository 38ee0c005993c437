"""Install a seed that has arrived: check it, assemble it, run its golden sample, then make it a version.

Nothing is published before all of that has passed. A failure leaves the partial file, so that a second try transfers
nothing again, unless the seed itself is the cause. A seed with a base is assembled on top of the version with that
digest.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seed_runtime.agent.protocol.transport import Report
from seed_runtime.agent.store import history, partial
from seed_runtime.agent.store.chains import check_bases
from seed_runtime.agent.store.installed_model import InstalledModel
from seed_runtime.errors import FormatError, UnsupportedError, UntrustedError

if TYPE_CHECKING:
    from seed_runtime.format.header import Header
    from seed_runtime.seed import Seed


def install(model: InstalledModel, part: Path, digest: str, max_memory: int | None, report: Report) -> dict[str, Any]:
    """Make the seed at `part` a version of `model`, which is locked. It doesn't run yet.

    Args:
        model: the model.
        part: the seed, which is moved.
        digest: the seed's digest.
        max_memory: limit of this process's memory, as --max-memory [B].
        report: called with the progress.

    Returns:
        The answer to `install`.

    Raises:
        FormatError: the seed is damaged or incomplete.
        TrustError: this device doesn't accept it.
        BaseError: the version that it stands on isn't stored, or was damaged.
        UnsupportedError: its golden sample fails.
        MemoryBudgetError: it needs more than `max_memory`.
        DiskSpaceError: the disk is full.
        OSError: the disk fails otherwise.
    """
    from seed_runtime import trust
    from seed_runtime.memory import process

    try:
        seconds, results, header = _examine(model, part, digest, max_memory, report)
    except UntrustedError:
        # Not for other TrustErrors: without ssh-keygen, with a wrong clock or before a signer is added, the same
        # bytes may be accepted at the next try.
        part.unlink()
        raise
    except FormatError:
        # If all its bytes are those that were sent, sending them again won't help.
        if partial.is_whole(part, digest):
            part.unlink()
        raise
    start = time.perf_counter()
    report("place", 0, 1)
    record = {
        "digest": digest,
        "model_id": header.model.model_id,
        "model_version": header.model.version,
        "base": None if header.base is None else header.base.digest.hex(),
        "bytes": part.stat().st_size,
        "weights_bytes": header.weights.size,
        "pushed": history.now(),
        **results,
    }
    model.add_version(digest, part, record)
    trust.accept(header, digest, stored=True)
    history.append(model.folder, "install", digest)
    report("place", 1, 1)
    seconds["place"] = time.perf_counter() - start
    rounded = {phase: round(value, 4) for phase, value in seconds.items()}
    return {"record": record, "seconds": rounded, "peak_rss": process.peak_rss()}


def _examine(
    model: InstalledModel, part: Path, digest: str, max_memory: int | None, report: Report
) -> tuple[dict[str, float], dict[str, Any], Header]:
    """Check a seed in full, and run it where this device can. Return times by phase [s], results and the header."""
    import seed_runtime
    from seed_runtime import backends
    from seed_runtime.seed import open_bases

    start = time.perf_counter()
    size = part.stat().st_size
    report("verify", 0, size)
    # Not accepted here, since opening it so would note that, and its golden sample may still fail.
    seed = seed_runtime.open(part, enforce=False)
    if seed.digest.hex() != digest:
        raise FormatError(part.name, f"it holds another seed, {seed.digest.hex()[:12]}")
    if seed.header.base is not None:
        check_bases(model, digest, seed.header.base)
        seed = seed_runtime.open(part, enforce=False, base=open_bases(model.versions, seed))
    seed.check_trust()
    front = partial.check(part, digest, lambda done, total: report("verify", done, total))
    if not front.is_whole:
        raise FormatError(part.name, f"of {size:,} bytes {front.have:,} are right")
    seconds = {"verify": time.perf_counter() - start}
    results: dict[str, Any] = {"golden": None, "golden_distance": None, "planned_bytes": None, "backend": None}
    if backends.get(seed.kind.backend).available():
        _run(seed, max_memory, report, seconds, results)
    else:
        # 32-bit boards have no ONNX Runtime: they assemble the model, and another program runs it.
        start = time.perf_counter()
        results["planned_bytes"] = seed.plan_assembly(max_memory, cores=1).needed_bytes
        seed.check(lambda done, total: report("assemble", done, total))
        seconds["assemble"] = time.perf_counter() - start
    return seconds, results, seed.header


def _run(
    seed: Seed, max_memory: int | None, report: Report, seconds: dict[str, float], results: dict[str, Any]
) -> None:
    """Assemble a model and run its golden sample; fill in `seconds` and `results`."""
    report("assemble", 0, seed.header.weights.size)
    start = time.perf_counter()
    with seed.session(
        max_memory=max_memory,
        feeds=seed.golden_shapes(),
        progress=lambda done, total: report("assemble", done, total),
        notice=lambda line: print(line, file=sys.stderr),
        verify=True,
        # Also ends a model that would run for ever: once the client has left, it raises ClientGone.
        watch=lambda: report("golden", 0, 1),
    ) as session:
        seconds["assemble"] = time.perf_counter() - start
        start = time.perf_counter()
        report("golden", 0, 1)
        verdict = session.verify()
        results["planned_bytes"] = session.needed_bytes
    if not verdict.ok:
        raise UnsupportedError(verdict.problem)
    report("golden", 1, 1)
    seconds["golden"] = time.perf_counter() - start
    results["backend"] = seed.kind.backend
    if verdict.present:
        results |= {"golden": True, "golden_distance": verdict.worst}
