"""`seed-deploy` rollback and remove."""

from __future__ import annotations

from typing import Any

import click

from seed_devices.cli import options, show
from seed_devices.cli.look import ask, model_name
from seed_devices.fleet.parallel import Outcome, combined_error
from seed_devices.fleet.target import Target
from seed_devices.remote.agent_client import AgentClient
from seed_devices.ssh.connection import Connection
from seed_runtime.errors import UsageError
from seed_runtime.units import size_text

_ROLLBACK = """\b
Examples:
  seed-deploy rollback pi@porch:doorbell
  seed-deploy rollback pi@porch:doorbell --to 3f2a9c
"""
_REMOVE = """\b
Examples:
  seed-deploy remove pi@porch:doorbell                    all versions but the one that runs
  seed-deploy remove pi@porch:doorbell --digest 3f2a9c    this one
  seed-deploy remove pi@porch:doorbell --all              the model, its service and all its versions
"""


@click.command(
    short_help="Let devices run an earlier version again.", epilog=_ROLLBACK, context_settings=options.SETTINGS
)
@options.many
@click.option("--to", metavar="DIGEST", help="The version to run, by the beginning of its digest; else the one before.")
def rollback(quiet: bool, as_json: bool, to: str | None, **where: Any) -> int:
    """Let devices run the version that ran before, or another one that they keep. Nothing is sent."""

    def work(target: Target, connection: Connection) -> dict[str, Any]:
        with AgentClient(connection) as agent:
            name = model_name(agent, target)
            answer = agent.call("rollback", name=name, to=to)
        return {"name": name, "digest": answer.get("current"), "previous": answer.get("previous")}

    outcomes = ask(where, work, quiet=quiet)
    if as_json:
        show.print_hosts(outcomes, dict)
    elif not quiet:
        for outcome in outcomes:
            if (value := outcome.value) is not None:
                before = f", before it {value['previous'][: show.SHORT]}" if value["previous"] else ""
                print(f"{outcome.target.host}: {value['name']} {str(value['digest'])[: show.SHORT]} runs again{before}")
    return _end(outcomes)


@click.command(epilog=_REMOVE, context_settings=options.SETTINGS)
@options.many
@click.option("--digest", metavar="DIGEST", help="Only this version, by the beginning of its digest.")
@click.option("--all", "everything", is_flag=True, help="The version that runs and the service, too.")
def remove(quiet: bool, as_json: bool, digest: str | None, everything: bool, **where: Any) -> int:
    """Remove versions that devices keep. The one that runs stays, unless --all is given."""
    if digest and everything:
        raise UsageError("--digest and --all contradict each other; give one of them")

    def work(target: Target, connection: Connection) -> dict[str, Any]:
        with AgentClient(connection) as agent:
            # What can't be undone is not done to a model that nobody named.
            if target.name is None:
                model_name(agent, target)
                raise UsageError(f"{target.host}: which model? write {target.host}:NAME")
            answer = agent.call("remove", name=target.name, digest=digest, all=everything)
        return {"removed": answer.get("removed") or [], "bytes": answer.get("bytes") or 0}

    outcomes = ask(where, work, quiet=quiet)
    if as_json:
        show.print_hosts(outcomes, dict)
    elif not quiet:
        for outcome in outcomes:
            if (value := outcome.value) is not None:
                gone = ", ".join(each[: show.SHORT] for each in value["removed"]) or "nothing"
                print(f"{outcome.target}: {gone} removed, {size_text(value['bytes'])} free again")
    return _end(outcomes)


def _end(outcomes: list[Outcome[dict[str, Any]]]) -> int:
    show.print_failures(outcomes)
    if (error := combined_error(outcomes)) is not None:
        raise error
    return 0
