"""`seed-deploy tune`: let a device fine-tune its model on samples from here, and run the result if it is better."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import click

from seed_devices.cli import options, show
from seed_devices.cli.fleet_request import model_name
from seed_devices.cli.progress import LiveProgress
from seed_devices.fleet.parallel import open_connection
from seed_devices.fleet.target import Target, parse
from seed_devices.remote import tuning
from seed_devices.remote.agent_client import AgentClient
from seed_runtime.cli.terminal import print_json, table
from seed_runtime.errors import GoalNotMetError
from seed_runtime.system.files import check_writable
from seed_runtime.units import MEMORY_MIN, MEMORY_USUAL, mib, size_text

_EPILOG = """\b
Examples:
  seed-deploy tune pi@porch --data data.npz
  seed-deploy tune pi@porch:doorbell --data data.npz --mode small --max-memory 160MB --time-limit 10m
  seed-deploy tune pi@porch:doorbell --data data.npz --fetch tuned.seed --json
  seed-deploy rollback pi@porch:doorbell
\b
data.npz has one array per model input, samples first, and labels. What is learned runs only if it is better on samples
that are held out; else the exit code is 15, and the model is as before. Ctrl-C keeps the best so far. Where the
connection is lost, the run ends, and the same command goes on from its last checkpoint.
"""
_INTERRUPTED = 130


@click.command(
    short_help="Fine-tune a device's model on samples from here.", epilog=_EPILOG, context_settings=options.SETTINGS
)
@click.argument("host", metavar="[USER@]HOST[:NAME]")
@click.option(
    "--data", required=True, type=click.Path(path_type=Path), metavar="DATA.npz", help="The samples, on this machine."
)
@click.option("--mode", metavar="MODE", help="auto, bn, head, small or full; auto if left out.")
@click.option("--loss", metavar="LOSS", help="cross-entropy, squared-error or cosine; by the labels if left out.")
@click.option("--optimizer", metavar="NAME", help="adam or sgd; adam if left out.")
@click.option("--steps", type=click.IntRange(1), metavar="N", help="Most steps of gradients; 120 if left out.")
@click.option("--lr", type=click.FloatRange(0, min_open=True), metavar="RATE", help="Rate of steps; by the mode.")
@click.option("--rng-seed", type=click.IntRange(0), metavar="N", help="Decides what is held out; 0 if left out.")
@click.option("--time-limit", type=options.Duration(), metavar="TIME", help="Longest time; the best so far is kept.")
@click.option("--threads", type=click.IntRange(1, 1024), metavar="N", help="Threads there; one per core if left out.")
@click.option(
    "--max-memory",
    type=options.Size(MEMORY_MIN, MEMORY_USUAL),
    help="How much memory the run may take there; without it, beside a service, the kernel ends the run first.",
)
@click.option(
    "--keep", type=click.IntRange(1, 64), default=3, show_default=True, metavar="N", help="How many versions to keep."
)
@click.option(
    "--fetch", type=click.Path(path_type=Path, dir_okay=False), metavar="TUNED.seed",
    help="Bring what was learned here as well, a seed on top of the version that was tuned.",
)  # fmt: skip
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors and, with --json, the result.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@options.reach
def tune(
    host: str, data: Path, fetch: Path | None, quiet: bool, as_json: bool, config: Path | None, accept_new: bool,
    lr: float | None, **fields: Any,
) -> int:  # fmt: skip
    """Let a device fine-tune the model that it runs on DATA.npz, and run what it learned if that is better."""
    target = parse(host)
    if fetch is not None:
        check_writable(fetch)
    digest, size = tuning.file_digest(data)
    live = LiveProgress(1, quiet=quiet or as_json)
    try:
        with (
            open_connection(target, options.access(config, accept_new)) as connection,
            AgentClient(connection) as agent,
        ):
            name, progress = model_name(agent, target), live.progress_of(target)
            sent = tuning.send_samples(connection, agent, name, data, digest, size, progress)

            def shown(phase: str, done: int, total: int, detail: dict[str, Any]) -> None:
                if progress is not None:
                    progress(*(_phase(done, total, detail) if detail and phase == "tune" else (phase, done, total)))

            answer = tuning.tune(agent, shown, target.device, name=name, digest=digest, rate=lr, **fields)
            if fetch is not None and answer["digest"] is not None:
                tuning.fetch(connection, str(answer["path"]), answer["digest"], answer["bytes"] or 0, fetch)
    finally:
        live.clear()
    if as_json:
        print_json(_facts(target, name, answer, sent, fetch))
    elif not quiet:
        print("\n".join(_lines(target, name, answer, fetch)))
    return _end(target, name, answer, quiet=quiet)


def _end(target: Target, name: str, answer: dict[str, Any], *, quiet: bool) -> int:
    runs = f"what was learned runs as {name}" if answer["digest"] else f"{name} is as before"
    if answer["stopped"]:
        if not quiet:
            print(f"seed-deploy: interrupted; {runs}", file=sys.stderr)
        return _INTERRUPTED
    if answer["digest"] is None:
        raise GoalNotMetError(
            f"{target.device}: nothing got better on the samples that were held out, and {runs}; give more samples, or "
            f"try another --mode or --lr"
        )
    return 0


def _phase(done: int, total: int, detail: dict[str, Any]) -> tuple[str, int, int]:
    """Return a phase whose name says how far a fine-tune is."""
    parts = [f"{detail['tier']}: {done} of {total}"]
    parts += [f"{what} {detail[what]:.3g}" for what in ("loss", "score") if detail[what] is not None]
    left = show.duration_text(detail["seconds_left"]) if math.isfinite(detail["seconds_left"]) else "some time"
    return ", ".join([*parts, size_text(detail["memory"]), f"{left} left"]), 0, 0


def _facts(target: Target, name: str, answer: dict[str, Any], sent: int, fetch: Path | None) -> dict[str, Any]:
    left_out = ("ok", "path", "peak_rss")
    return {
        "host": target.device,
        "name": name,
        **{key: value for key, value in answer.items() if key not in left_out},
        "peak_rss_mib": None if answer["peak_rss"] is None else mib(answer["peak_rss"]),
        "sent": sent,
        "fetched": None if fetch is None or answer["digest"] is None else str(fetch),
    }


def _lines(target: Target, name: str, answer: dict[str, Any], fetch: Path | None) -> list[str]:
    rows = [["tier", str(answer["metric"]), "kept", "steps", "at once", "seconds"]]
    rows += [
        [
            each["tier"],
            _number(each["score"]),
            "yes" if each["kept"] else "no",
            str(each["steps"] or "-"),
            str(each["micro_batch"]),
            f"{each['seconds']:.1f}",
        ]
        for each in answer["tiers"] or []
    ]
    lines = [*(answer["notes"] or []), *table(rows, right=(1, 3, 4, 5))]
    what = f"{answer['metric']} on {answer['held_out']:,} samples that were held out"
    lines.append(f"{what}: {_number(answer['before'])} before, {_number(answer['after'])} after")
    if answer["digest"] is not None:
        size = f"{answer['bytes']:,} bytes, " if answer["bytes"] is not None else ""
        back = f"; go back with: seed-deploy rollback {target.of(name)}" if answer["previous"] else ""
        lines.append(f"{target.device}: {name} {answer['digest'][: show.SHORT]} runs, {size}tuned there{back}")
        if fetch is not None:
            lines.append(f"{fetch}: what was learned, for --apply")
    return lines


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
