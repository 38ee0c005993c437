"""`seed-deploy` list, status, logs and doctor: nothing on the device is changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import click

from seed_devices.cli import options, show
from seed_devices.doctor import examine
from seed_devices.errors import FaultsFound, RemoteError
from seed_devices.fleet.parallel import Outcome, combined_error, run_on_each
from seed_devices.fleet.target import Target
from seed_devices.remote.agent_client import AgentClient
from seed_devices.remote.facts import read_facts
from seed_devices.ssh.connection import Connection
from seed_runtime.errors import UnsupportedError, UsageError
from seed_runtime.units import size_text

Answer = dict[str, Any]

_LIST = """\b
Examples:
  seed-deploy list pi@porch
  seed-deploy list pi@porch:doorbell --json
"""
_STATUS = """\b
Examples:
  seed-deploy status pi@porch pi@gate
  seed-deploy status --inventory hosts.toml --json
"""
_LOGS = """\b
Examples:
  seed-deploy logs pi@porch:doorbell
  seed-deploy logs pi@porch:doorbell --lines 100
"""
_DOCTOR = """\b
Examples:
  seed-deploy doctor pi@porch
  seed-deploy doctor --inventory hosts.toml
"""


@click.command("list", epilog=_LIST, context_settings=options.SETTINGS)
@options.many
def list_(quiet: bool, as_json: bool, **where: Any) -> int:
    """List the versions that devices keep, the newest first."""

    def show_all(outcomes: list[Outcome[Answer]]) -> None:
        rows = [
            [
                outcome.target.host, model["name"], version["digest"][: show.SHORT],
                str(version.get("model_version", "")),
                size_text(version.get("bytes") or 0), size_text(version.get("weights_bytes") or 0), _golden(version),
                _day(version), _state(model, version),
            ]
            for outcome in outcomes for model in _models(outcome) for version in model["versions"]
        ]  # fmt: skip
        heads = ["host", "name", "digest", "version", "seed", "weights", "golden sample", "pushed", ""]
        show.print_rows(heads, rows, right=[3, 4, 5])

    return _ask(where, as_json, quiet, _status_of, show_all)


@click.command(epilog=_STATUS, context_settings=options.SETTINGS)
@options.many
def status(quiet: bool, as_json: bool, **where: Any) -> int:
    """Show what runs on devices, and what they keep beside it."""

    def show_all(outcomes: list[Outcome[Answer]]) -> None:
        rows = []
        for outcome in outcomes:
            for model in _models(outcome):
                last = model.get("last") or {}
                trouble = "" if last.get("result") in (None, "ok") else f"{last.get('what')} failed: {last['result']}"
                rows.append(
                    [
                        outcome.target.host, model["name"], (model["digest"] or "none")[: show.SHORT],
                        str(model["version"] if model["version"] is not None else ""), str(len(model["kept"])),
                        _serving(model), size_text(outcome.value["disk_free"]) if outcome.value else "", trouble,
                    ]
                )  # fmt: skip
            if outcome.value is not None and not outcome.value["models"]:
                rows.append([outcome.target.host, "", "nothing", "", "", "", size_text(outcome.value["disk_free"]), ""])
        show.print_rows(["host", "name", "runs", "version", "kept", "service", "disk free", ""], rows, right=[3, 4, 6])

    return _ask(where, as_json, quiet, _status_of, show_all)


@click.command(
    short_help="Show what happened to a model on its device.", epilog=_LOGS, context_settings=options.SETTINGS
)
@options.many
@click.option("--lines", type=click.IntRange(1, 1000), default=20, show_default=True, help="The newest ones.")
def logs(quiet: bool, as_json: bool, lines: int, **where: Any) -> int:
    """Show what happened to a model on its device, and what its service wrote."""

    def work(target: Target, connection: Connection) -> Answer:
        with AgentClient(connection) as agent:
            found = agent.call("log", name=model_name(agent, target), lines=lines)
        return {"lines": found.get("lines") or [], "service": found.get("service") or []}

    def show_all(outcomes: list[Outcome[Answer]]) -> None:
        for outcome in outcomes:
            if outcome.value is None:
                continue
            start = f"{outcome.target}: " if len(outcomes) > 1 else ""
            for line in outcome.value["lines"]:
                time, what, digest, result = (line.get(key) or "" for key in ("time", "what", "digest", "result"))
                print(f"{start}{time}  {what:8}  {digest[: show.SHORT]}  {result}")
            for text in outcome.value["service"]:
                print(f"{start}{text}")

    return _ask(where, as_json, quiet, work, show_all)


@click.command(epilog=_DOCTOR, context_settings=options.SETTINGS)
@options.many
def doctor(quiet: bool, as_json: bool, **where: Any) -> int:
    """Name what is wrong with devices, and the command that mends it."""

    def work(target: Target, connection: Connection) -> Answer:
        with AgentClient(connection) as agent:
            try:
                facts = read_facts(connection, agent)
            except (UnsupportedError, RemoteError):
                facts = None
            faults = examine(connection, facts)
        return {"faults": [dataclasses.asdict(fault) for fault in faults]}

    def show_all(outcomes: list[Outcome[Answer]]) -> None:
        for outcome in outcomes:
            if outcome.value is None:
                continue
            if not outcome.value["faults"]:
                print(f"{outcome.target}: all is well")
            for fault in outcome.value["faults"]:
                print(
                    f"{outcome.target}: {fault['severity']}: {fault['what']}: {fault['why']}\n  mend it: {fault['fix']}"
                )

    outcomes: list[Outcome[Answer]] = []
    code = _ask(where, as_json, quiet, work, show_all, outcomes)
    found = [len(_faults(outcome)) for outcome in outcomes]
    if any(found):
        raise FaultsFound(sum(found), sum(map(bool, found)))
    return code


def model_name(agent: AgentClient, target: Target) -> str:
    """The model that is meant: the one that was named, or the only one there."""
    if target.name is not None:
        return target.name
    names = [model["name"] for model in agent.call("status").get("models") or []]
    if len(names) == 1:
        return names[0]
    there = ", ".join(names) or "none; push one first"
    raise UsageError(f"{target.host}: which model? write {target.host}:NAME; there are: {there}")


def ask(
    where: Mapping[str, Any],
    work: Callable[[Target, Connection], Answer],
    *,
    quiet: bool,
    parallel: int | None = None,
) -> list[Outcome[Answer]]:
    """Do this work on the devices that the command line names."""
    targets = options.targets(where["hosts"], where["inventory_path"], where["groups"])
    steps = show.Steps(len(targets), quiet=True)
    try:
        return run_on_each(
            targets, work, access=options.access(where["config"], where["accept_new"]),
            parallel=parallel or where["parallel"],
        )  # fmt: skip
    finally:
        steps.clear()


def _ask(
    where: Mapping[str, Any],
    as_json: bool,
    quiet: bool,
    work: Callable[[Target, Connection], Answer],
    show_all: Callable[[list[Outcome[Answer]]], None],
    into: list[Outcome[Answer]] | None = None,
) -> int:
    outcomes = ask(where, work, quiet=quiet)
    if as_json:
        show.print_hosts(outcomes, dict)
    elif not quiet:
        show_all(outcomes)
    show.print_failures(outcomes)
    if (error := combined_error(outcomes)) is not None:
        raise error
    if into is not None:
        into += outcomes
    return 0


def _status_of(target: Target, connection: Connection) -> Answer:
    with AgentClient(connection) as agent:
        if agent.runtime is None and not agent.start_error:
            return {"runtime": None, "disk_free": 0, "models": []}
        answer = agent.call("status", name=target.name)
    models = []
    for model in answer.get("models") or []:
        versions = model.get("versions") or []
        current: Answer = next((version for version in versions if version.get("running")), {})
        models.append(
            {
                **model,
                "versions": versions,
                "version": current.get("model_version"),
                "digest": model.get("current"),
                "kept": [version["digest"] for version in versions],
            }
        )
    return {"runtime": agent.runtime, "disk_free": answer.get("disk_free") or 0, "models": models}


def _models(outcome: Outcome[Answer]) -> list[Answer]:
    return outcome.value["models"] if outcome.value is not None else []


def _faults(outcome: Outcome[Answer]) -> list[Answer]:
    return [fault for fault in (outcome.value or {}).get("faults", []) if fault["severity"] == "fault"]


def _golden(version: Answer) -> str:
    distance = version.get("golden_distance")
    if version.get("golden") is not True:
        return "not run" if version.get("backend") is None else "none"
    return "right" if distance is None else f"right, {distance:.2g} of tolerance"


def _day(version: Answer) -> str:
    return str(version.get("pushed", ""))[:16].replace("T", " ")


def _state(model: Answer, version: Answer) -> str:
    if not version.get("intact", True):
        return "damaged"
    if version.get("running"):
        return "runs"
    return "before it" if version["digest"] == model.get("previous") else ""


def _serving(model: Answer) -> str:
    service = model.get("service")
    if not service:
        return ""
    state = "installing" if service.get("installing") else service.get("active")
    return str(service.get("error") or state or "installed")
