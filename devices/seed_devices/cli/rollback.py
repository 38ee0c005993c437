"""`seed-deploy rollback`: an earlier version runs again. Nothing is sent."""

from __future__ import annotations

from typing import Any

import click

from seed_devices.cli import options, show
from seed_devices.cli.fleet_request import Answer, find_version, model_name, request
from seed_devices.fleet.parallel import Outcome
from seed_devices.fleet.target import Target
from seed_devices.remote.agent_client import AgentClient
from seed_devices.ssh.connection import Connection

_ROLLBACK = """\b
Examples:
  seed-deploy rollback pi@porch:doorbell
  seed-deploy rollback pi@porch:doorbell --to 3f2a9c
"""


@click.command(
    short_help="Let devices run an earlier version again.", epilog=_ROLLBACK, context_settings=options.SETTINGS
)
@options.many
@click.option("--to", metavar="DIGEST", help="The version to run, by the beginning of its digest; else the one before.")
def rollback(quiet: bool, as_json: bool, to: str | None, **where: Any) -> int:
    """Let devices run the version that ran before, or another one that they keep. Nothing is sent."""

    def work(target: Target, connection: Connection) -> Answer:
        with AgentClient(connection) as agent:
            name = model_name(agent, target)
            digest = None if to is None else find_version(agent, target, name, to)
            answer = agent.call("rollback", name=name, to=digest)
        return {"name": name, "digest": answer.get("current"), "previous": answer.get("previous")}

    request(where, work, _print_versions, as_json=as_json, quiet=quiet)
    return 0


def _print_versions(outcomes: list[Outcome[Answer]]) -> None:
    for outcome in outcomes:
        if (value := outcome.value) is not None:
            before = f", before it {value['previous'][: show.SHORT]}" if value["previous"] else ""
            print(f"{outcome.target.device}: {value['name']} {str(value['digest'])[: show.SHORT]} runs again{before}")
