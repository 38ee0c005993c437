"""`seed-deploy push`: send a seed to devices, and let it run there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from seed_devices.cli import options, show
from seed_devices.fleet.parallel import Outcome, combined_error, run_on_each
from seed_devices.fleet.target import Target
from seed_devices.push import one_device, preflight
from seed_devices.push.job import Options, PushResult
from seed_devices.ssh.connection import Connection
from seed_runtime.errors import UsageError
from seed_runtime.units import size_text

_EPILOG = """\b
Examples:
  seed-deploy push model.seed pi@raspberrypi.local
  seed-deploy push model.seed pi@porch:doorbell --dry-run
  seed-deploy push model.seed --inventory hosts.toml --group porch --parallel 16
  seed-deploy push model.seed pi@gate --max-rate 20KB --max-memory 64MB
  seed-deploy push model.seed pi@porch --service
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
@click.option("--max-rate", type=options.Size(), help="Largest rate of the transfer per second, such as 200KB.")
@click.option("--max-memory", type=options.Size(), help="How much memory the device may use to assemble and run it.")
@click.option(
    "--keep", type=click.IntRange(1, 64), default=3, show_default=True, metavar="N",
    help="How many versions to keep there; the running one and the one before it are always kept.",
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
def push(
    seed: Path, hosts: tuple[str, ...], inventory_path: Path | None, groups: tuple[str, ...], parallel: int,
    as_json: bool, quiet: bool, config: Path | None, accept_new: bool, **chosen: Any,
) -> int:  # fmt: skip
    """Send MODEL.seed to devices, check it there, and let them run it."""
    address = chosen.pop("service_address")
    if address and not chosen["service"]:
        raise UsageError("--service-address needs --service")
    targets = options.targets(hosts, inventory_path, groups)
    push_options, seed_file = Options(address=address, **chosen), preflight.load(seed)
    line = show.ProgressLine(len(targets), quiet=quiet or as_json)

    def work(target: Target, connection: Connection) -> PushResult:
        return one_device.push(connection, seed_file, target.name, push_options, line.progress_of(target))

    def done(outcome: Outcome[PushResult]) -> None:
        line.print_done(outcome, _result_text(outcome))

    try:
        outcomes = run_on_each(targets, work, access=options.access(config, accept_new), parallel=parallel, done=done)
    finally:
        line.clear()
    if as_json:
        show.print_hosts(outcomes, PushResult.as_json)
    elif not quiet:
        _print(outcomes)
    show.print_failures(outcomes if quiet or as_json else [])
    if (error := combined_error(outcomes)) is not None:
        raise error
    return 0


def _print(outcomes: list[Outcome[PushResult]]) -> None:
    if len(outcomes) == 1:
        if outcomes[0].value is not None:
            print(f"{outcomes[0].target}: {_result_text(outcomes[0])}")
            if outcomes[0].value.facts and outcomes[0].value.state.startswith("would"):
                print(f"  device: {_device_text(outcomes[0].value.facts)}")
            for note in outcomes[0].value.notes:
                print(f"  note: {note}")
        return
    rows = []
    for outcome in outcomes:
        value = outcome.value
        rows.append(
            [
                outcome.target.host,
                value.name if value else outcome.target.name or "",
                value.state if value else "failed",
                value.digest[: show.SHORT] if value else "",
                size_text(value.sent) if value else "",
                f"{outcome.seconds:.1f} s",
                "" if value else show.reason(outcome),
            ]
        )
    notes = [f"{outcome.target}: note: {note}" for outcome in outcomes if outcome.value for note in outcome.value.notes]
    show.print_rows(["host", "name", "result", "digest", "sent", "time", ""], rows, right=[4, 5])
    if notes:
        print("\n".join(notes))


def _result_text(outcome: Outcome[PushResult]) -> str:
    value = outcome.value
    if value is None:
        return f"failed: {show.reason(outcome)}"
    short = value.digest[: show.SHORT]
    if value.state == "unchanged":
        what = f"runtime {value.runtime} installed" if value.runtime_installed else "nothing was sent"
        return f"{value.name} {short} runs already, {what} ({outcome.seconds:.1f} s)"
    if value.state.startswith("would"):
        actions = ["install the runtime"] if value.runtime_installed else []
        if value.state == "would push":
            actions.append(f"send {size_text(value.sent)} and switch")
        elif value.state == "would switch":
            actions.append("switch")
        return f"{value.name} {short}: it would {', '.join(actions)}; nothing was written"
    parts = [f"{size_text(value.sent)} sent"] if value.state == "pushed" else ["it was kept there"]
    if value.runtime_installed:
        parts.insert(0, f"runtime {value.runtime} installed")
    if value.record is not None:
        golden = {True: "golden sample right", None: "no golden sample"}
        parts.append(golden.get(value.record.get("golden"), "golden sample not run"))
    if value.previous and value.previous != value.digest:
        parts.append(f"before it {value.previous[: show.SHORT]}")
    if value.service:
        parts.append(f"serves on {value.service.get('address', 'its socket')}")
    return f"{value.name} {short} runs ({', '.join(parts)}, {outcome.seconds:.1f} s)"


def _device_text(facts: dict[str, Any]) -> str:
    """Return what a device is and has, in one line."""
    parts = [facts.get("model"), facts.get("machine"), facts.get("os"), f"Python {facts.get('python')}"]
    names = {"numpy": "NumPy", "onnxruntime": "ONNX Runtime", "litert": "LiteRT"}
    parts += [f"{name} {facts[key]}" for key, name in names.items() if facts.get(key)]
    sizes = {"ram": "of memory", "ram_available": "of it free", "disk_free": "free on its disk"}
    parts += [f"{size_text(facts[key])} {what}" for key, what in sizes.items() if isinstance(facts.get(key), int)]
    return ", ".join(str(part) for part in parts if part)
