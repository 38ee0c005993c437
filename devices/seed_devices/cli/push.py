"""`seed-deploy push`: send a seed to devices, and let it run there."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from seed_devices.cli import options, show
from seed_devices.cli.progress import LiveProgress
from seed_devices.cli.push_results import next_command, print_results, result_text, totals, totals_text
from seed_devices.cli.rates import Rates
from seed_devices.cli.rollout import WATCH_S, Plan, Rollout
from seed_devices.errors import ReplacementError
from seed_devices.fleet import canary
from seed_devices.fleet.parallel import Outcome, combined_error, run_on_each
from seed_devices.fleet.target import Target
from seed_devices.push import one_device, preflight
from seed_devices.push.candidates import find_candidates
from seed_devices.push.job import Options, PushResult
from seed_devices.ssh.connection import Connection
from seed_devices.ssh.pace import Pace
from seed_runtime.errors import UsageError
from seed_runtime.units import MEMORY_MIN, MEMORY_USUAL

_EPILOG = """\b
Examples:
  seed-deploy push model.seed pi@raspberrypi.local
  seed-deploy push model.seed pi@porch:doorbell --dry-run
  seed-deploy push model.seed --inventory hosts.toml --group porch --parallel 16
  seed-deploy push model.seed pi@gate --max-rate 20KB --max-memory 64MB
  seed-deploy push model.seed pi@porch --service
  seed-deploy push other.seed pi@porch:doorbell --replace
  seed-deploy push v2.seed pi@porch --delta v2-on-v1.seed
  seed-deploy push v2-on-v1.seed pi@porch --whole v2.seed
  seed-deploy push model.seed --inventory hosts.toml --canary 2 --watch 10min
\b
A push that was interrupted continues where it stopped: give the same command again.
hosts.toml lists devices:
  [[host]]
  target = "pi@porch.local"
  name = "doorbell"
  groups = ["porch"]
"""


@click.command(
    short_help="Send a seed to devices, check it there, and run it.", epilog=_EPILOG, context_settings=options.SETTINGS
)
@click.argument("seed", type=click.Path(path_type=Path, dir_okay=False), metavar="MODEL.seed")
@options.many
@click.option(
    "--dry-run", is_flag=True, help="Check everything, write nothing on the device, and say what would be done."
)
@click.option(
    "--max-rate",
    type=options.Size(options.RATE_MIN, options.RATE_USUAL),
    help="Largest rate per second of all transfers together, such as 200KB.",
)
@click.option(
    "--max-rate-per-device",
    type=options.Size(options.RATE_MIN, options.RATE_USUAL),
    help="Largest rate per second of each device.",
)
@click.option(
    "--max-memory",
    type=options.Size(MEMORY_MIN, MEMORY_USUAL),
    help="How much memory the device may use to assemble and run it.",
)
@click.option(
    "--keep", type=click.IntRange(1, 64), default=3, show_default=True, metavar="N",
    help="How many versions to keep there; the running one, the one before it and their bases are always kept.",
)  # fmt: skip
@click.option("--service", is_flag=True, help="Serve it there, as a systemd user unit.")
@click.option(
    "--service-address",
    metavar="unix|127.0.0.1:PORT",
    help="Where it serves; a Unix socket if left out. Needs --service.",
)
@click.option(
    "--online", is_flag=True, help="Let a device without a runtime download what that needs from its package index."
)
@click.option(
    "--update-runtime", is_flag=True,
    help="Install this machine's runtime on devices whose own is older or broken, and restart their services.",
)  # fmt: skip
@click.option(
    "--python",
    metavar="PATH",
    help="The device's Python to make its runtime with, a path or a command; the best one that is there if left out.",
)
@click.option(
    "--delta", "deltas", multiple=True, type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="A delta of the same version, to send in place of MODEL.seed where a device has its base; may be repeated.",
)  # fmt: skip
@click.option(
    "--whole", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="The whole seed of the same version, to send where a device can't take MODEL.seed, a delta.",
)  # fmt: skip
@click.option(
    "--replace", is_flag=True,
    help="Let the seed replace a model of another id that has the same name there; a terminal is asked otherwise.",
)  # fmt: skip
@click.option(
    "--canary",
    metavar="N|HOST,...",
    help="Push to the first N devices, or to these, watch them, and only then push to the others: see docs/devices.md.",
)
@click.option(
    "--watch", type=options.Duration(), metavar="TIME",
    help=f"How long canaries are watched, such as 30s or 1h; {show.duration_text(WATCH_S)} if left out.",
)  # fmt: skip
def push(
    seed: Path, hosts: tuple[str, ...], inventory_path: Path | None, groups: tuple[str, ...], parallel: int,
    as_json: bool, quiet: bool, config: Path | None, accept_new: bool, **chosen: Any,
) -> int:  # fmt: skip
    """Send MODEL.seed to devices, check it there, and let them run it."""
    address = chosen.pop("service_address")
    if address and not chosen["service"]:
        raise UsageError("--service-address needs --service")
    targets = options.targets(hosts, inventory_path, groups)
    plan = _plan(chosen.pop("canary"), chosen.pop("watch"), targets)
    rates = Rates(chosen.pop("max_rate"), chosen.pop("max_rate_per_device"), parallel)
    pace = None if rates.together is None else Pace(rates.together)
    deltas, whole = chosen.pop("deltas"), chosen.pop("whole")
    push_options = Options(address=address, max_rate=rates.per_device, shared_pace=pace, **chosen)
    seed_file = preflight.load(seed)
    candidates = find_candidates(seed_file, deltas, whole)
    access = options.access(config, accept_new)

    def push_to(targets: list[Target], push_options: Options) -> list[Outcome[PushResult]]:
        rate = rates.of_one if len(targets) == 1 else rates.together
        live = LiveProgress(len(targets), quiet=quiet or as_json, rate=rate)

        def work(target: Target, connection: Connection) -> PushResult:
            return one_device.push(connection, candidates, target.name, push_options, live.progress_of(target))

        def done(outcome: Outcome[PushResult]) -> None:
            live.end(outcome, result_text(outcome, rates))

        try:
            return run_on_each(targets, live.watch(work), access=access, parallel=parallel, done=done)
        finally:
            live.clear()

    def push_all(targets: list[Target]) -> list[Outcome[PushResult]]:
        outcomes = push_to(targets, push_options)
        refused = [outcome for outcome in outcomes if isinstance(outcome.error, ReplacementError)]
        if refused and not (quiet or as_json or push_options.dry_run) and _wants_replacement(refused):
            again = push_to([outcome.target for outcome in refused], replace(push_options, replace=True))
            replaced = {outcome.target: outcome for outcome in again}
            outcomes = [replaced.get(outcome.target, outcome) for outcome in outcomes]
        return outcomes

    rollout = None
    if plan is None or push_options.dry_run:
        outcomes = push_all(targets)
    else:
        rollout = Rollout(
            plan, seed_file.default_name, access=access, parallel=parallel,
            max_memory=push_options.max_memory, quiet=quiet or as_json, again=options.words_again("canary", "watch"),
        )  # fmt: skip
        by_target = {outcome.target: outcome for outcome in rollout.run(push_all)}
        outcomes = [by_target[target] for target in targets if target in by_target]
    if as_json:
        more = {"canary": rollout.as_json() if rollout else plan.as_json()} if plan is not None else {}
        show.print_hosts(outcomes, PushResult.as_json, **totals(outcomes, rates), **more)
    elif not quiet:
        print_results(outcomes, rates)
        if len(outcomes) > 1 and not push_options.dry_run:
            print(totals_text(outcomes, rates), file=sys.stderr)
        for text in rollout.lines() if rollout else [] if plan is None else [plan.text()]:
            print(text)
        words = _config_words(config)
        if len(targets) > 1:
            words += _selection(hosts, inventory_path, groups)
        stopped = rollout is not None and rollout.error() is not None
        if not stopped and (line := next_command(outcomes, words)) is not None:
            print(f"  {line}" if len(outcomes) == 1 else line)
    show.print_failures(outcomes if quiet or as_json else [])
    if (error := (rollout.error() if rollout else None) or combined_error(outcomes)) is not None:
        raise error
    return 0


def _plan(canaries: str | None, watch_s: float | None, targets: list[Target]) -> Plan | None:
    """Return the rollout that the options ask for; None for a push to all devices at once."""
    if canaries is None:
        if watch_s is not None:
            raise UsageError("--watch is for canaries; add --canary 1, or how many devices are pushed to first")
        return None
    chosen = canary.choose(canaries, targets)
    waiting = [target for target in targets if target not in chosen]
    return Plan(chosen, waiting, WATCH_S if watch_s is None else watch_s)


def _config_words(config: Path | None) -> list[str]:
    """Return the words for an ssh_config that the command line names; the environment's holds for other commands."""
    source = click.get_current_context().get_parameter_source("config")
    return ["-F", str(config)] if source is click.core.ParameterSource.COMMANDLINE else []


def _selection(hosts: Sequence[str], inventory_path: Path | None, groups: Sequence[str]) -> list[str]:
    """Return the words of the command line that name the devices."""
    inventory = [] if inventory_path is None else ["--inventory", str(inventory_path)]
    return [*hosts, *inventory, *(word for group in groups for word in ("--group", group))]


def _wants_replacement(refused: list[Outcome[PushResult]]) -> bool:
    """Ask on the terminal whether the models that have the seed's name on devices are to be replaced.

    Returns:
        False as well where there is no terminal to ask on.
    """
    if not (sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    for error in (outcome.error for outcome in refused):
        if isinstance(error, ReplacementError):
            print(f"{error.host}: {error.name} is {error.there} there, this seed is {error.seed}", file=sys.stderr)
    what = "it" if len(refused) == 1 else f"them on {len(refused)} devices"
    print(f"These are other models. Replace {what}? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
