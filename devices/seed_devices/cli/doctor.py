"""`seed-deploy doctor`: what is wrong with devices, and how to fix it. Nothing on them is changed."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from typing import Any

import click

from seed_devices import profiles
from seed_devices.cli import options
from seed_devices.cli.fleet_request import Answer, request
from seed_devices.doctor import examine
from seed_devices.errors import FaultsFound, RemoteError
from seed_devices.fleet.parallel import Outcome
from seed_devices.fleet.target import Target
from seed_devices.remote.agent_client import AgentClient
from seed_devices.remote.facts import find_pythons, read_facts
from seed_devices.ssh.connection import Connection
from seed_runtime.errors import UnsupportedError

_DOCTOR = """\b
Examples:
  seed-deploy doctor pi@porch
  seed-deploy doctor --inventory hosts.toml
"""


@click.command(epilog=_DOCTOR, context_settings=options.SETTINGS)
@options.many
def doctor(quiet: bool, as_json: bool, **where: Any) -> int:
    """Name what is wrong with devices, and the command that fixes it; and how to export models for them."""
    outcomes = request(where, _examine, _print_faults, as_json=as_json, quiet=quiet)
    found = [_fault_count(outcome) for outcome in outcomes]
    if any(found):
        raise FaultsFound(sum(found), sum(map(bool, found)))
    return 0


def _examine(target: Target, connection: Connection) -> Answer:
    with AgentClient(connection) as agent:
        known = find_pythons(connection)
        try:
            facts = {**read_facts(connection, agent), "pythons": known.rows()}
        except (UnsupportedError, RemoteError):
            facts = None
        faults = examine(connection, facts)
    return {
        "faults": [dataclasses.asdict(fault) for fault in faults],
        "pythons": known.rows(),
        "processor": _processor_answer(facts),
    }


def _processor_answer(facts: Mapping[str, Any] | None) -> Answer | None:
    """Say how to export for a device; None where no model runs on it."""
    if facts is None or (processor := profiles.processor(facts)) is None:
        return None
    return {
        "machine": processor.machine,
        "instructions": list(processor.instructions),
        "dtype": processor.dtype,
        "reason": processor.reason,
        "export": f"seed-export MODEL --dtype auto --for {shlex.quote(str(processor))}",
    }


def _print_faults(outcomes: list[Outcome[Answer]]) -> None:
    for outcome in outcomes:
        if outcome.value is None:
            continue
        if not outcome.value["faults"]:
            print(f"{outcome.target}: no faults")
        for fault in outcome.value["faults"]:
            print(f"{outcome.target}: {fault['severity']}: {fault['what']}: {fault['why']}\n  fix it: {fault['fix']}")
        for row in outcome.value["pythons"]:
            title = " ".join(filter(None, (row["path"], row["version"])))
            use = "the runtime there is made with it" if row["in_use"] else "the next runtime is made with it"
            print(f"{outcome.target}: {title}: {row['reason'] or use}")
        if found := outcome.value["processor"]:
            print(f"{outcome.target}: models for it: {found['export']}: {found['dtype']}, as {found['reason']}")


def _fault_count(outcome: Outcome[Answer]) -> int:
    return sum(fault["severity"] == "fault" for fault in (outcome.value or {}).get("faults", []))
