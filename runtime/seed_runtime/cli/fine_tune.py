"""`--fine-tune data.npz`: train the model on samples, and write what was learned as a seed on top of it."""

from __future__ import annotations

import contextlib
import math
import os
import shlex
import time
from dataclasses import asdict
from typing import Any

from seed_runtime.cli import entrypoint
from seed_runtime.cli.arguments import Job, TuneJob
from seed_runtime.cli.common import open_cache, open_seed
from seed_runtime.cli.terminal import Terminal, print_json, table
from seed_runtime.cli.tuned_output import reserved
from seed_runtime.data.sample_files import open_samples
from seed_runtime.errors import GoalNotMetError
from seed_runtime.system.files import check_writable
from seed_runtime.tune import Progress, Settings, TuneResult, class_count, tune
from seed_runtime.tuned_seed import check_tunable, write_tuned
from seed_runtime.units import mib, size_text


def fine_tune(job: Job, terminal: Terminal) -> int:
    """Train, write the seed, and show what it was worth; return the exit code."""
    asked = job.tune
    assert asked is not None
    written, checkpoint, started = 0, None, time.monotonic()
    with contextlib.ExitStack() as stack:
        if asked.output is not None:
            check_writable(asked.output)
            checkpoint = stack.enter_context(reserved(asked.output))
        seed = stack.enter_context(open_seed(job))
        check_tunable(
            seed, seed.name, f"make a whole seed: {_whole(job)} --assemble FOLDER writes the model, for seed-export"
        )
        if (shown := terminal.progress_line()) is not None:
            shown("reading the samples")
        classes = class_count(seed) if os.path.isdir(asked.data) else None
        samples = open_samples(asked.data, seed.inputs(), classes=classes, pixels=asked.pixels, limit=job.max_memory)
        arrays = stack.enter_context(samples)
        cache = stack.enter_context(open_cache(job))

        def write(found: TuneResult) -> None:
            # After each tier that was kept: a power cut then loses no more than the one that runs.
            nonlocal written
            if asked.output is not None:
                written = write_tuned(seed, found, asked.output, cache)

        settings = _settings(job, asked, terminal, started)
        found = tune(seed, arrays, settings, cache=cache, on_kept=write, checkpoint=checkpoint)
        if found.interruption is not None and found.tensors:
            entrypoint.listen_again()
            write(found)
    terminal.clear()
    if job.json:
        print_json(_facts(found, asked, written))
    else:
        print("\n".join(_lines(found, asked, written)))
    if found.interruption is not None:
        if isinstance(found.interruption, entrypoint.Stopped) and written:
            again = "; the same command goes on from its checkpoint" if checkpoint and checkpoint.exists() else ""
            found.interruption.said = (
                f"interrupted; the best so far, {written:,} bytes, was written to {asked.output}{again}"
            )
        raise found.interruption
    if not found.tensors:
        raise GoalNotMetError(
            "nothing got better on the samples that were held out, and no seed was written; give more samples, or try "
            "another --mode or --lr"
        )
    return 0


def _whole(job: Job) -> str:
    return shlex.join(["seed-run", job.seed, *(word for path in job.apply for word in ("--apply", path))])


def _settings(job: Job, asked: TuneJob, terminal: Terminal, started: float) -> Settings:
    """Return the settings that the command line gives, and the tuner's own for all others."""
    shown = terminal.progress_line()

    def report(progress: Progress) -> None:
        if shown is not None:
            shown(_progress_text(progress))

    given = {
        name: value
        for name in ("mode", "loss", "optimizer", "steps", "rate", "rng_seed", "delta_size", "time_limit")
        if (value := getattr(asked, name)) is not None
    }

    def interrupted() -> None:
        terminal.note("interrupted; scoring the best so far, which Ctrl-C ends as well")
        entrypoint.listen_again()

    return Settings(
        **given,
        started=started,
        max_memory=job.max_memory,
        threads=job.threads,
        progress=report,
        interrupted=interrupted,
        notice=terminal.note,
    )


def _progress_text(progress: Progress) -> str:
    parts = [f"{progress.tier}: {progress.step} of {progress.steps}"]
    if not math.isnan(progress.loss):
        parts.append(f"loss {progress.loss:.3g}")
    if not math.isnan(progress.score):
        parts.append(f"score {progress.score:.3g}")
    parts += [size_text(progress.memory), f"{progress.seconds_left:.0f} s left"]
    return ", ".join(parts)


def _facts(found: TuneResult, asked: TuneJob, written: int) -> dict[str, Any]:
    return {
        "mode": found.mode or None,
        "metric": found.metric,
        "before": found.before.value,
        "after": found.after.value,
        "held_out": found.held_out,
        "steps": found.steps,
        "tensors": len(found.tensors),
        "tiers": [asdict(each) | {"score": each.score.value, "loss": each.score.loss} for each in found.tiers],
        "output": asked.output if written else None,
        "bytes": written or None,
        "peak_rss_mib": mib(found.peak),
    }


def _lines(found: TuneResult, asked: TuneJob, written: int) -> list[str]:
    rows = [["tier", found.metric, "kept", "steps", "at once", "seconds"]]
    rows += [
        [
            each.tier,
            f"{each.score.value:.4g}",
            "yes" if each.kept else "no",
            str(each.steps or "-"),
            str(each.micro_batch),
            f"{each.seconds:.1f}",
        ]
        for each in found.tiers
    ]
    lines = table(rows, right=(1, 3, 4, 5))
    what = f"{found.metric} on {found.held_out:,} samples that were held out"
    lines.append(f"{what}: {found.before.value:.4g} before, {found.after.value:.4g} after")
    if written:
        lines.append(f"{asked.output}: {written:,} bytes; run it with --apply {asked.output}")
    elif found.tensors and asked.output is None:
        lines.append("nothing was written; give -o tuned.seed to keep what was learned")
    return lines
