"""`seed-deploy logs`: the history of a model on its device. Nothing on it is changed."""

from __future__ import annotations

from typing import Any

import click

from seed_devices.cli import options, show
from seed_devices.cli.fleet_request import Answer, model_name, request
from seed_devices.fleet.parallel import Outcome
from seed_devices.fleet.target import Target
from seed_devices.remote.agent_client import AgentClient
from seed_devices.ssh.connection import Connection

_LOGS = """\b
Examples:
  seed-deploy logs pi@porch:doorbell
  seed-deploy logs pi@porch:doorbell --lines 100
"""


@click.command(short_help="Show the history of a model on its device.", epilog=_LOGS, context_settings=options.SETTINGS)
@options.many
@click.option("--lines", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many, the newest.")
def logs(quiet: bool, as_json: bool, lines: int, **where: Any) -> int:
    """Show the history of a model on its device, and what its service printed."""

    def work(target: Target, connection: Connection) -> Answer:
        with AgentClient(connection) as agent:
            found = agent.call("log", name=model_name(agent, target), lines=lines)
        return {"lines": found.get("lines") or [], "service": found.get("service") or []}

    request(where, work, _print_logs, as_json=as_json, quiet=quiet)
    return 0


def _print_logs(outcomes: list[Outcome[Answer]]) -> None:
    for outcome in outcomes:
        if outcome.value is None:
            continue
        start = f"{outcome.target}: " if len(outcomes) > 1 else ""
        for line in outcome.value["lines"]:
            time, what, digest, result = (line.get(key) or "" for key in ("time", "what", "digest", "result"))
            print(f"{start}{time}  {what:8}  {digest[: show.SHORT]}  {result}")
        for text in outcome.value["service"]:
            print(f"{start}{text}")
