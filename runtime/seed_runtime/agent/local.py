"""Make a seed that is on this device already a version: what was made here, such as by fine-tuning.

It is checked as one that was pushed is: the same installation, golden sample, switch and pruning.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Final

from seed_runtime.agent import activation, disk, install
from seed_runtime.agent.protocol.transport import Report
from seed_runtime.agent.store import partial
from seed_runtime.agent.store.installed_model import InstalledModel
from seed_runtime.format.reader import SeedReader
from seed_runtime.system.locks import lock_within

WAIT_S: Final = 5.0
"""Time to wait for a push of the same seed under another name, in seconds."""


def install_file(
    model: InstalledModel,
    path: Path,
    report: Report,
    *,
    max_memory: int | None = None,
    keep: int = 3,
    replace: bool = False,
) -> dict[str, Any]:
    """Make the seed at `path` a version of a model, and switch to it. If anything fails, what ran before runs.

    Args:
        model: the model, which is locked and has no interrupted switch.
        path: the seed, which is copied. If it has a base, that is a version of this model.
        report: called with the progress.
        max_memory: limit of this process's memory, as --max-memory [B].
        keep: how many versions to keep, see `activation.prune`.
        replace: whether it may replace a model of another id.

    Returns:
        The answers to `install` and `switch` together; without those to `install` where the version was stored.

    Raises:
        SeedError: as `install.install` and `activation.activate`.
        OSError: the disk fails.
    """
    with partial.open_file(path, "rb") as file:
        reader = SeedReader(file, path.name)
    digest = reader.digest.hex()
    answer: dict[str, Any] = {}
    if not model.has(digest) or not partial.is_whole(model.seed_path(digest), digest):
        base = None if reader.header.base is None else reader.header.base.digest.hex()
        disk.require_space(model, digest, base, reader.file_size, reader.header.weights.size)
        part = model.store.partial_path(digest)
        busy = "this seed is being pushed; wait, or run this again"
        with lock_within(part, WAIT_S, busy), activation.failures_logged(model, "install", digest):
            try:
                shutil.copyfile(path, part)
                answer = install.install(model, part, digest, max_memory, report)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
    return answer | activation.switch(model, digest, keep, {digest}, report, replace=replace)
