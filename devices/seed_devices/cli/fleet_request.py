"""Send one request to several devices and print their results on stdout; shared by the commands that ask devices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from seed_devices.cli import options, show
from seed_devices.cli.progress import LiveProgress
from seed_devices.fleet.parallel import Outcome, combined_error, run_on_each
from seed_devices.fleet.target import Target
from seed_devices.remote.agent_client import AgentClient
from seed_devices.ssh.connection import Connection
from seed_devices.terminal_text import plain
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
    targets = options.targets(where["hosts"], where["inventory_path"], where["groups"])
    live = LiveProgress(len(targets), quiet=quiet or as_json)
    try:
        outcomes = run_on_each(
            targets,
            live.watch(work),
            access=options.access(where["config"], where["accept_new"]),
            parallel=where["parallel"],
            done=live.end,
        )
    finally:
        live.clear()
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
    names = model_names(agent)
    if len(names) == 1:
        return names[0]
    raise which_model(target, names)


def model_names(agent: AgentClient) -> list[str]:
    """Return the names of the models on the device."""
    return [model["name"] for model in agent.call("status").get("models") or []]


def which_model(target: Target, names: Sequence[str]) -> UsageError:
    """Return the error of a command that needs a model's name, with the names that there are."""
    there = ", ".join(names) or "none; push one first"
    return UsageError(f"{target.device}: which model? write {target.of('NAME')}; there are: {there}")


def find_version(agent: AgentClient, target: Target, name: str, beginning: str) -> str:
    """Return the digest of the one version that begins as the user wrote.

    Raises:
        UsageError: there is none, or more than one; the message lists those that may be meant.
    """
    models = agent.call("status", name=name).get("models") or []
    if not models:
        there = ", ".join(model_names(agent)) or "none; push one first"
        raise UsageError(f"{target.device}: there is no model {name}; there are: {there}")
    versions = models[0].get("versions") or []
    if models[0].get("left_out"):
        return beginning  # more than an answer can carry: the device searches them all
    found = [version for version in versions if version["digest"].startswith(beginning.lower())]
    if len(found) == 1:
        digest: str = found[0]["digest"]
        return digest
    what = f"{len(found)} versions of {name} begin" if found else f"no version of {name} begins"
    digests = [version["digest"] for version in found or versions]
    there = ", ".join(_version_text(version, digests) for version in found or versions) or "none; push one first"
    raise UsageError(f"{target.device}: {what} with {plain(beginning)!r}; write one of: {there}")


def _version_text(version: Mapping[str, Any], digests: Sequence[str]) -> str:
    """Return enough of a digest to tell it from the others, and what is known of the version."""
    short = show.SHORT
    while short < len(version["digest"]) and len({digest[:short] for digest in digests}) < len(set(digests)):
        short += 1
    known = [f"version {version['model_version']}"] if version.get("model_version") is not None else []
    known += ["runs"] if version.get("running") else []
    return version["digest"][:short] + (f" ({', '.join(known)})" if known else "")
