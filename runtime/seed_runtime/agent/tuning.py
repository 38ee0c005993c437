"""Fine-tune the version of a model that runs, on samples that a client has sent, and switch to what got better.

The run ends with the connection: what it learned by then is in the checkpoint, and the same request goes on from there.
The model is locked for the switch alone, so that it can be rolled back or replaced all along.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from seed_runtime.agent import disk
from seed_runtime.agent.local import install_file
from seed_runtime.agent.protocol.schema import DATA_BLOCK_MAX, TUNE
from seed_runtime.agent.protocol.transport import Transport
from seed_runtime.agent.store.installed_model import InstalledModel
from seed_runtime.agent.store.tuning_folder import TuningFolder, clear_unused
from seed_runtime.errors import DiskSpaceError, InputError, UsageError
from seed_runtime.stored_bases import SEED_FILE

if TYPE_CHECKING:
    from seed_runtime.seed import Seed
    from seed_runtime.tune import Progress, TuneResult

BLOCK: Final = 1 << 18
"""Least size of a block of samples whose digest the client compares [B]."""
_BLOCKS_MAX: Final = 4096
"""Most digests of blocks in an answer."""
_NOTES_MAX: Final = 32
"""Most lines for the user in an answer."""
_NICE: Final = 10
"""How far the run steps back behind the model's service."""
_OOM_SCORE: Final = b"500"
"""What makes the kernel end this process, and not the service, where memory runs out. Source: proc(5)"""
Locked = Callable[[str], contextlib.AbstractContextManager[InstalledModel]]
"""Holds the lock of a model by its name for a block."""


class StopRequested(BaseException):
    """The client wants the best so far."""


def describe_inputs(model: InstalledModel) -> dict[str, Any]:
    """Return the inputs of the version that runs, and its number of classes.

    Raises:
        SeedError: it can't be tuned.
    """
    from seed_runtime.tune import class_count

    seed, _ = _open(model)
    return {"inputs": [asdict(spec) for spec in seed.inputs()], "classes": class_count(seed)}


def receive(folder: TuningFolder, digest: str, size: int) -> dict[str, Any]:
    """Make room for samples, and say what of them is there; samples of another run are removed.

    Raises:
        DiskSpaceError: they don't fit.
    """
    folder.clear(digest)
    path, block = folder.data(digest), min(max(BLOCK, -(-size // _BLOCKS_MAX)), DATA_BLOCK_MAX)
    tail: list[str] = []
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600), "r+b") as file:
        have = file.seek(0, os.SEEK_END)
        if have > size:
            file.truncate(size)
        missing = max(0, size - have) + disk.EXTRA
        if disk.free_bytes(folder.path) < missing:
            clear_unused(folder.path.parent)
        if (free := disk.free_bytes(folder.path)) < missing:
            raise DiskSpaceError(str(folder.path), missing, free)
        file.seek(0)
        while data := file.read(block):
            tail.append(hashlib.sha256(data).hexdigest())
    return {"path": str(path), "have": min(have, size), "tail": tail, "block": block}


def tune_version(
    model: InstalledModel, digest: str, options: dict[str, Any], keep: int, transport: Transport, locked: Locked
) -> dict[str, Any]:
    """Fine-tune the version that runs, and switch to the result if it is better on what was held out.

    Args:
        model: the model, which isn't locked.
        digest: of the samples, all of which have arrived.
        options: fields of the request by their names in `Settings`; None for the tuner's own.
        keep: how many versions to keep.
        transport: gets the progress, and may have a request to stop.
        locked: locks the model for the switch.

    Returns:
        The fields of the answer.

    Raises:
        SeedError: it can't be tuned; what ran there still runs.
        ClientGone: the client left; the same request goes on from here.
    """
    from seed_runtime.data.sample_files import open_samples
    from seed_runtime.tune import CheckpointError, Settings, tune
    from seed_runtime.tuned_seed import write_tuned

    folder = TuningFolder.of(model.store, model.name)
    seed, base = _open(model)
    notes: list[str] = []
    given = {name: value for name, value in options.items() if value is not None}
    settings = Settings(**given, **_callbacks(transport, notes))
    data = folder.data(digest)
    _check_data(data, digest, transport)
    _step_back()
    with open_samples(str(data), seed.inputs(), limit=settings.max_memory) as samples:
        try:
            result = tune(seed, samples, settings, checkpoint=folder.checkpoint)
        except CheckpointError as error:
            if error.is_of_options:
                raise
            # Of a version that no longer runs, or of other samples: nobody can go on from it.
            folder.checkpoint.unlink()
            result = tune(seed, samples, settings, checkpoint=folder.checkpoint)
    is_stopped = isinstance(result.interruption, StopRequested)
    if result.interruption is not None and not is_stopped:
        raise result.interruption
    answer = _answer(result, notes, is_stopped)
    if result.tensors:
        write_tuned(seed, result, folder.seed)
        with locked(model.name) as found:
            if found.running != base:
                raise UsageError(
                    f"another version of {model.name} was activated meanwhile; it still runs. Run this again to tune it"
                )
            installed = install_file(found, folder.seed, transport.report, max_memory=settings.max_memory, keep=keep)
            answer |= {"digest": found.running, "previous": installed["previous"], "bytes": folder.seed.stat().st_size}
            answer["path"] = str(found.seed_path(str(found.running)))
    if result.tensors or not is_stopped:
        folder.clear()
    return answer


def _open(model: InstalledModel) -> tuple[Seed, str]:
    """Return the version that runs, which can be tuned, and its digest."""
    import seed_runtime
    from seed_runtime.tuned_seed import check_tunable

    if (base := model.running) is None:
        raise UsageError(f"{model.name} has no version that runs; push one first")
    seed = seed_runtime.open(model.seed_path(base))
    advice = (
        f"tune an earlier one (see seed-deploy list HOST:{model.name}, seed-deploy rollback HOST:{model.name} --to "
        f"DIGEST), or push a whole seed: seed-run {model.link / SEED_FILE} --assemble FOLDER writes the model, for "
        f"seed-export"
    )
    check_tunable(seed, model.name, advice)
    return seed, base


def _callbacks(transport: Transport, notes: list[str]) -> dict[str, Any]:
    """Return what the tuner calls: for its progress, for a look at the client, and for its notices."""
    is_stopping = False

    def watch() -> None:
        nonlocal is_stopping
        request = transport.poll()
        if request is not None and request.get("op") == "stop" and not is_stopping:
            is_stopping = True
            raise StopRequested

    def report(progress: Progress) -> None:
        detail = {
            "tier": progress.tier,
            "loss": _finite(progress.loss),
            "score": _finite(progress.score),
            "memory": progress.memory,
            "seconds_left": round(progress.seconds_left, 1) if math.isfinite(progress.seconds_left) else 0.0,
        }
        transport.report(TUNE, progress.step, progress.steps, detail)
        watch()

    def note(line: str) -> None:
        if len(notes) < _NOTES_MAX:
            notes.append(line)

    return {"progress": report, "watch": watch, "notice": note}


def _answer(result: TuneResult, notes: list[str], is_stopped: bool) -> dict[str, Any]:
    tiers = [
        asdict(each) | {"score": _finite(each.score.value), "loss": _finite(each.score.loss)} for each in result.tiers
    ]
    return {
        "mode": result.mode or None,
        "metric": result.metric,
        "before": _finite(result.before.value),
        "after": _finite(result.after.value),
        "held_out": result.held_out,
        "steps": result.steps,
        "tiers": tiers,
        "stopped": is_stopped,
        "notes": notes,
        "peak_rss": result.peak,
        **dict.fromkeys(("digest", "previous", "bytes", "path")),
    }


def _check_data(path: Path, digest: str, transport: Transport) -> None:
    """Raise InputError unless all samples have arrived as they are."""
    found, done = hashlib.sha256(), 0
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb") as file:
            total = os.fstat(file.fileno()).st_size
            while data := file.read(1 << 20):
                found.update(data)
                done += len(data)
                transport.report("verify", done, total)
    except FileNotFoundError:
        raise UsageError("no samples were sent; send them first") from None
    if found.hexdigest() != digest:
        path.unlink()
        raise InputError("the samples arrived damaged, and were removed; run the same command again")


def _step_back() -> None:
    """Let everything else on this device come first: its processor, and its memory."""
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "wb") as file:
        file.write(_OOM_SCORE)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
