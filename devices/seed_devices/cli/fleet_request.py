"""Send one request to several devices and print their results on stdout; shared by the commands that ask devices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from seed_devices.cli import options, show
from seed_devices.fleet.parallel import Outcome, combined_error, run_on_each
from seed_devices.fleet.target import Target
from seed_devices.remote.agent_client import AgentClient
from seed_devices.ssh.connection import Connection
from seed_runtime.errors import UsageError

Answer = dict[str, Any]
"""Result of a request to one device, as `--json` prints it."""


def request(
    where: Mapping[str, Any],
    work: Callable[[Target, Connection], Answer],
    print_all: Callable[[list[Outcome[Answer]]], None],
    *,
    as_json: bool,
    quiet: bool,
) -> list[Outcome[Answer]]:
    """Do the same work on the devices that the command line names, and print what came of it.

    Args:
        where: the options that say which devices, and how they are reached.
        work: called with a device and a connection to it.
        print_all: prints the outcomes for people.
        as_json: print one JSON object instead.
        quiet: print nothing but errors and JSON.

    Raises:
        SeedError: of the device, or FleetError where several were asked.
    """
    outcomes = run_on_each(
        options.targets(where["hosts"], where["inventory_path"], where["groups"]),
        work,
        access=options.access(where["config"], where["accept_new"]),
        parallel=where["parallel"],
    )
    if as_json:
        show.print_hosts(outcomes, dict)
    elif not quiet:
        print_all(outcomes)
    show.print_failures(outcomes)
    if (error := combined_error(outcomes)) is not None:
        raise error
    return outcomes


def model_name(agent: AgentClient, target: Target) -> str:
    """Return the name of the model that is meant: the one that was named, or the only one on the device.

    Raises:
        UsageError: none was named, and the device has none or several.
    """
    if target.name is not None:
        return target.name
    names = [model["name"] for model in agent.call("status").get("models") or []]
    if len(names) == 1:
        return names[0]
    there = ", ".join(names) or "none; push one first"
    raise UsageError(f"{target.host}: which model? write {target.host}:NAME; there are: {there}")
