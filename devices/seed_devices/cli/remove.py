"""`seed-deploy remove`: versions that devices keep are deleted."""

from __future__ import annotations

from typing import Any

import click

from seed_devices.cli import options, show
from seed_devices.cli.fleet_request import Answer, find_version, model_names, request, which_model
from seed_devices.fleet.parallel import Outcome
from seed_devices.fleet.target import Target
from seed_devices.remote.agent_client import AgentClient
from seed_devices.ssh.connection import Connection
from seed_runtime.errors import UsageError
from seed_runtime.units import size_text

_REMOVE = """\b
Examples:
  seed-deploy remove pi@porch:doorbell                    all versions but the one that runs
  seed-deploy remove pi@porch:doorbell --digest 3f2a9c    this one
  seed-deploy remove pi@porch:doorbell --all              the model, its service and all its versions
"""


@click.command(epilog=_REMOVE, context_settings=options.SETTINGS)
@options.many
@click.option("--digest", metavar="DIGEST", help="Only this version, by the beginning of its digest.")
@click.option("--all", "everything", is_flag=True, help="The version that runs and the service, too.")
def remove(quiet: bool, as_json: bool, digest: str | None, everything: bool, **where: Any) -> int:
    """Remove versions that devices keep, and what an unfinished fine-tune left.

    The version that runs stays, with its bases, unless --all is given.
    """
    if digest and everything:
        raise UsageError("--digest and --all contradict each other; give one of them")

    def work(target: Target, connection: Connection) -> Answer:
        with AgentClient(connection) as agent:
            # What can't be undone is not done to a model that the user didn't name.
            if target.name is None:
                raise which_model(target, model_names(agent))
            whole = None if digest is None else find_version(agent, target, target.name, digest)
            answer = agent.call("remove", name=target.name, digest=whole, all=everything)
        return {
            "removed": answer.get("removed") or [],
            "bytes": answer.get("bytes") or 0,
            "removed_model": target.name if everything else None,
        }

    request(where, work, _print_removed, as_json=as_json, quiet=quiet)
    return 0


def _print_removed(outcomes: list[Outcome[Answer]]) -> None:
    for outcome in outcomes:
        if (value := outcome.value) is not None:
            removed = ", ".join(digest[: show.SHORT] for digest in value["removed"]) or "nothing"
            if value["removed_model"]:
                what = f"the model {value['removed_model']}, its service if it had one, and its versions"
                removed = f"{what} {removed}" if value["removed"] else what.rpartition(", and")[0]
            print(f"{outcome.target}: {removed} removed, {size_text(value['bytes'])} free again")
