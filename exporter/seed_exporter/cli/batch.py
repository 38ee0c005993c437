"""`seed-export batch JOBS`: many models or checkpoints, each to a seed of its own."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seed_runtime.cli.terminal import one_line, table
from seed_runtime.errors import BatchError, UsageError
from seed_runtime.system.locks import FileLock

if TYPE_CHECKING:
    from seed_exporter.batch.jobs_file import Job
    from seed_exporter.batch.outcome import Outcome

_EPILOG = """\b
A file of jobs (TOML; paths are relative to its folder, keys are the options of seed-export):
  [defaults]
  target = "8x"
  calib = "calib.npz"
\b
  [[job]]
  model = "checkpoints/1000.onnx"
  output = "seeds/1000.seed"
\b
  [[job]]
  model = "checkpoints/2000.onnx"
  output = "seeds/2000.seed"
  size = "160KB"
\b
Exit codes: 0 ok, 2 the file of jobs is wrong, 16 part of the jobs failed, 20 the scheduler can't be reached,
130 interrupted; the same command again does what is missing.
"""


@click.command(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.argument("jobs_file", metavar="JOBS", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--jobs", type=click.IntRange(1), default=None, help="Exports side by side; as many as there are cores if left out."
)
@click.option(
    "--scheduler", metavar="ADDRESS", help="Dask scheduler whose workers do the jobs, such as tcp://host:8786."
)
@click.option("--force", is_flag=True, help="Make all seeds again, also those that would be the same.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def command(jobs_file: Path, jobs: int | None, scheduler: str | None, force: bool, as_json: bool, quiet: bool) -> None:
    """Make the seeds of many models that the file JOBS lists.

    A seed that is there is left as it is if it was made of the same model, data and options by the same version of
    seed-export. One job that fails stops no other. Each job is an export in a process of its own, on its share of the
    cores, and its seed has the bytes that it has when it is made alone, but for the memory that each export measures
    again.
    """
    # Later than the command line: its faults and its help need no joblib.
    from seed_exporter.batch import jobs_file as files
    from seed_exporter.batch.fingerprint import Fingerprints
    from seed_exporter.batch.run import run
    from seed_exporter.batch.state import State
    from seed_exporter.cli.export import command as export
    from seed_runtime import backends

    if scheduler is not None and jobs is not None:
        raise UsageError("--jobs is for this machine; with --scheduler the threads of its workers decide, leave it out")
    start = time.perf_counter()
    found = files.read(jobs_file, export)
    with FileLock(jobs_file.resolve(), create=False) as lock:
        if not lock.try_acquire():
            raise UsageError(f"another batch works on {jobs_file}; wait for it, or end it")
        state, fingerprints = State(jobs_file, found), Fingerprints()
        prints = {job.output: fingerprints.of(job) for job in found}
        outcomes: dict[Path, Outcome] = {}
        with _Progress(len(found), quiet or as_json) as progress:
            for job in [] if force else found:
                if (outcome := state.repeated(job, prints[job.output])) is not None:
                    outcomes[job.output] = outcome
                    progress.show(job, outcome)
            missing = [job for job in found if job.output not in outcomes]
            at_once = max(1, min(jobs or len(missing), backends.usable_cores(), len(missing)))
            for job, outcome in run(missing, at_once, scheduler):
                state.record(job, prints[job.output], outcome)
                outcomes[job.output] = outcome
                progress.show(job, outcome)
    ended = [(job, outcomes[job.output]) for job in found]
    seconds = time.perf_counter() - start
    click.echo(json.dumps(_as_json(ended, seconds)) if as_json else "\n".join(_table(ended)))
    if bad := [str(job.output) for job, outcome in ended if outcome.code]:
        raise BatchError(len(ended), bad)


class _Progress:
    """A line for each job that ends, and below them how many have; on a terminal only."""

    def __init__(self, total: int, quiet: bool) -> None:
        from tqdm import tqdm

        disabled = quiet or not sys.stderr.isatty()
        self._bar = tqdm(total=total, desc="batch", unit="job", leave=False, file=sys.stderr, disable=disabled)

    def show(self, job: Job, outcome: Outcome) -> None:
        """Count a job that ended."""
        if not self._bar.disable:
            self._bar.write("  ".join(_row(job, outcome)).rstrip(), file=sys.stderr)
        self._bar.update()

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()


def _row(job: Job, outcome: Outcome) -> list[str]:
    """Describe a job: its seed, how it ended, size, ratio, time, and what was wrong."""
    from seed_exporter.report.text import size

    made = outcome.result or {}
    return [
        one_line(str(job.output)),
        outcome.word,
        size(made["bytes"]) if "bytes" in made else "",
        f"{made['ratio']:.2f}x" if "ratio" in made else "",
        "" if outcome.repeated else f"{outcome.seconds:.1f} s",
        f"exit code {outcome.code}: {outcome.error}" if outcome.code else "",
    ]


def _table(ended: Sequence[tuple[Job, Outcome]]) -> list[str]:
    head = ["seed", "", "size", "ratio", "time", ""]
    return table([head, *(_row(job, outcome) for job, outcome in ended)], right=(2, 3, 4))


def _as_json(ended: Sequence[tuple[Job, Outcome]], seconds: float) -> dict[str, Any]:
    words = [outcome.word for _, outcome in ended]
    return {
        "jobs": [
            {
                "model": str(job.model),
                "seed": str(job.output),
                "outcome": outcome.word,
                "exit_code": outcome.code,
                "error": outcome.error or None,
                "seconds": round(outcome.seconds, 3),
                "result": outcome.result,
            }
            for job, outcome in ended
        ],
        "made": words.count("made"),
        "unchanged": words.count("unchanged"),
        "failed": len(words) - words.count("made") - words.count("unchanged"),
        "seconds": round(seconds, 3),
    }
