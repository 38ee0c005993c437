"""`seed-deploy tune`: let devices fine-tune their models on samples from here, and run what is better."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click

from seed_devices.cli import options, show
from seed_devices.cli.fleet_request import Answer, model_name
from seed_devices.cli.progress import LiveProgress
from seed_devices.cli.tune_results import facts, print_results, progress_text, result_text, totals_text
from seed_devices.errors import FleetError, NotTunedError
from seed_devices.fleet.parallel import Outcome, run_on_each
from seed_devices.fleet.target import Target
from seed_devices.remote import tuning
from seed_devices.remote.agent_client import AgentClient
from seed_devices.remote.sample_files import SampleFiles
from seed_devices.ssh.connection import Connection
from seed_runtime.errors import GoalNotMetError, UsageError
from seed_runtime.system.files import check_writable
from seed_runtime.system.scratch import scratch_beside_cache
from seed_runtime.units import MEMORY_MIN, MEMORY_USUAL

_EPILOG = """\b
Examples:
  seed-deploy tune pi@porch --data data.npz
  seed-deploy tune pi@porch:doorbell --data data.npz --mode small --max-memory 160MB --time-limit 10m
  seed-deploy tune pi@porch:doorbell --data pictures --pixels 0..1
  seed-deploy tune pi@porch:doorbell --data data.npz --fetch tuned.seed --json
  seed-deploy tune --inventory hosts.toml --group porch --data samples/{host} --fetch tuned/{host}.seed
  seed-deploy rollback pi@porch:doorbell
\b
data.npz has one array per model input, samples first, and labels. A folder has one folder a class, of pictures or
arrays, or .npz files; it is packed here, so pictures need Pillow on this machine alone. All devices get the same
samples, unless the path holds {host}, which stands for each one's host.
What is learned runs only if it is better on samples that are held out; else the exit code is 15, and the model is as
before. Ctrl-C keeps the best so far. Where the connection is lost, the run ends, and the same command goes on from
its last checkpoint.
"""
_HOST: Final = "{host}"
"""What stands for a device's host in the paths of --data and --fetch."""
_INTERRUPTED = 130


@click.command(
    short_help="Fine-tune the models of devices on samples from here.", epilog=_EPILOG,
    context_settings=options.SETTINGS,
)  # fmt: skip
@options.many
@click.option("--data", required=True, metavar="DATA.npz|FOLDER", help="The samples, on this machine.")
@click.option(
    "--pixels", metavar="RANGE", help="What bytes of pictures become, as in training: 0..1, -1..1, 0..255 or imagenet."
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
    "--fetch", metavar="TUNED.seed",
    help="Bring what was learned here as well, a seed on top of the version that was tuned.",
)  # fmt: skip
def tune(
    hosts: tuple[str, ...], inventory_path: Path | None, groups: tuple[str, ...], parallel: int, as_json: bool,
    quiet: bool, config: Path | None, accept_new: bool, data: str, fetch: str | None, pixels: str | None,
    lr: float | None, **fields: Any,
) -> int:  # fmt: skip
    """Let devices fine-tune the models that they run on DATA, and run what they learned if that is better."""
    targets = options.targets(hosts, inventory_path, groups)
    given = {target: _path_for(data, target) for target in targets}
    fetched = _fetched(fetch, targets)
    live = LiveProgress(len(targets), quiet=quiet or as_json)
    with scratch_beside_cache() as scratch, tuning.Interrupts() as interrupts:
        files = SampleFiles(scratch, pixels)
        if _HOST not in data:
            files.check(Path(data))

        def work(target: Target, connection: Connection) -> Answer:
            files.check(given[target])
            shown = live.progress_of(target)

            def report(phase: str, done: int, total: int) -> None:
                interrupts.check(target.device)
                if shown is not None:
                    shown(phase, done, total)

            def report_tuning(phase: str, done: int, total: int, detail: dict[str, Any]) -> None:
                live.put(target, phase, done, total, progress_text(phase, done, total, detail))

            with AgentClient(connection) as agent:
                name = model_name(agent, target)
                samples = files.of(
                    given[target], lambda: tuning.describe_inputs(connection, agent, name), report
                )  # fmt: skip
                sent = tuning.send_samples(connection, agent, name, samples, report)
                with interrupts.asking(agent, target.device):
                    answer = tuning.tune(
                        agent, report_tuning, target.device, name=name, digest=samples.digest, rate=lr, **fields
                    )
                if (local := fetched.get(target)) is not None and answer["digest"] is not None:
                    tuning.fetch(connection, str(answer["path"]), answer["digest"], answer["bytes"] or 0, local)
            return facts(name, answer, given[target], sent, local)

        def done(outcome: Outcome[Answer]) -> None:
            live.end(_judged(outcome), result_text(_judged(outcome)))

        try:
            outcomes = run_on_each(
                targets, live.watch(work), access=options.access(config, accept_new), parallel=parallel, done=done
            )
        finally:
            live.clear()
    outcomes = [_judged(outcome) for outcome in outcomes]
    if as_json:
        show.print_hosts(outcomes, dict, sent=sum(outcome.value["sent"] for outcome in outcomes if outcome.value))
    elif not quiet:
        print_results(outcomes)
        if len(outcomes) > 1:
            print(totals_text(outcomes), file=sys.stderr)
    show.print_failures(outcomes if quiet or as_json else [])
    return _end(outcomes, quiet=quiet)


def _path_for(text: str, target: Target) -> Path:
    return Path(text.replace(_HOST, target.file_name))


def _fetched(text: str | None, targets: list[Target]) -> dict[Target, Path]:
    """Return where what each device learned is written; nothing without --fetch.

    Raises:
        UsageError: two devices would write the same file, or one can't be written.
    """
    if text is None:
        return {}
    found = {target: _path_for(text, target) for target in targets}
    if len(set(found.values())) < len(found):
        advice = "tune models of one host one by one" if _HOST in text else f"write {_HOST} into the path"
        raise UsageError(f"--fetch {text}: what several devices learned can't be one file; {advice}")
    for path in found.values():
        check_writable(path)
    return found


def _judged(outcome: Outcome[Answer]) -> Outcome[Answer]:
    """Return an outcome with the error of a device on which nothing got better."""
    value = outcome.value
    if value is None or value["digest"] is not None or value["stopped"]:
        return outcome
    error = GoalNotMetError(
        f"{outcome.target.device}: nothing got better on the samples that were held out, and {value['name']} is as "
        f"before; give more samples, or try another --mode or --lr"
    )
    return replace(outcome, error=error)


def _end(outcomes: list[Outcome[Answer]], *, quiet: bool) -> int:
    """Return the exit code, or raise the error of a device, or of a fleet."""
    if any(_is_interrupted(outcome) for outcome in outcomes):
        if not quiet:
            value = outcomes[0].value
            where = "each device runs the best that it found, or what it ran before"
            if len(outcomes) == 1 and value is not None:
                where = (
                    f"what was learned runs as {value['name']}" if value["digest"] else f"{value['name']} is as before"
                )
            print(f"seed-deploy: interrupted; {where}", file=sys.stderr)
        return _INTERRUPTED
    failed = [outcome.error for outcome in outcomes if outcome.error is not None]
    if failed:
        raise failed[0] if len(outcomes) == 1 else FleetError(
            len(failed), len(outcomes), "run the command again for these alone: what the others learned runs there"
        )  # fmt: skip
    return 0


def _is_interrupted(outcome: Outcome[Answer]) -> bool:
    is_stopped = outcome.value is not None and outcome.value["stopped"]
    return is_stopped or isinstance(outcome.error, NotTunedError)
