"""`seed-deploy` list and status: what devices have, and what runs there. Nothing on them is changed."""

from __future__ import annotations

from typing import Any

import click

from seed_devices.cli import options, show
from seed_devices.cli.fleet_request import Answer, request
from seed_devices.fleet.parallel import Outcome
from seed_devices.fleet.target import Target
from seed_devices.remote.agent_client import AgentClient
from seed_devices.ssh.connection import Connection
from seed_runtime.units import size_text

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


@click.command("list", epilog=_LIST, context_settings=options.SETTINGS)
@options.many
def list_(quiet: bool, as_json: bool, **where: Any) -> int:
    """List the versions that devices keep, the newest first."""
    request(where, _read_status, _print_versions, as_json=as_json, quiet=quiet)
    return 0


@click.command(epilog=_STATUS, context_settings=options.SETTINGS)
@options.many
def status(quiet: bool, as_json: bool, **where: Any) -> int:
    """Show what runs on devices, and which versions they keep beside it."""
    request(where, _read_status, _print_status, as_json=as_json, quiet=quiet)
    return 0


def _read_status(target: Target, connection: Connection) -> Answer:
    with AgentClient(connection) as agent:
        if agent.runtime is None and not agent.start_error:
            return {"runtime": None, "disk_free": None, "models": []}
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
                "base": current.get("base"),
                "kept": [version["digest"] for version in versions],
            }
        )
    return {"runtime": agent.runtime, "disk_free": answer.get("disk_free"), "models": models}


def _print_versions(outcomes: list[Outcome[Answer]]) -> None:
    rows = [
        [
            outcome.target.device, model["name"], version["digest"][: show.SHORT],
            str(version.get("model_version", "")), size_text(version.get("bytes") or 0),
            size_text(version.get("weights_bytes") or 0), (version.get("base") or "")[: show.SHORT],
            _golden_text(version), _time_text(version), _version_state(model, version),
        ]
        for outcome in outcomes for model in _models(outcome) for version in model["versions"]
    ]  # fmt: skip
    heads = ["host", "name", "digest", "version", "seed", "weights", "base", "golden sample", "pushed", ""]
    show.print_rows(heads, rows, right=[3, 4, 5])


def _print_status(outcomes: list[Outcome[Answer]]) -> None:
    rows = []
    for outcome in outcomes:
        if outcome.value is None:
            continue
        host, known = outcome.target.device, outcome.value["disk_free"]
        # Without a runtime nothing there tells it.
        free = "" if known is None else size_text(known)
        for model in _models(outcome):
            digest = (model["digest"] or "none")[: show.SHORT]
            version = str(model["version"] if model["version"] is not None else "")
            if model["base"]:
                version += f" on {model['base'][: show.SHORT]}"
            kept = str(len(model["kept"]))
            rows.append([host, model["name"], digest, version, kept, _service_text(model), free, _remarks(model)])
        if not outcome.value["models"]:
            rows.append(
                [
                    host,
                    outcome.target.name or "",
                    "nothing",
                    "",
                    "",
                    "",
                    free,
                    "" if outcome.value["runtime"] else "no runtime",
                ]
            )
    show.print_rows(["host", "name", "runs", "version", "kept", "service", "disk free", ""], rows, right=[3, 4, 6])


def _models(outcome: Outcome[Answer]) -> list[Answer]:
    return outcome.value["models"] if outcome.value is not None else []


def _remarks(model: Answer) -> str:
    """Return what went wrong last, and what a fine-tune left there."""
    last, samples = model.get("last") or {}, model.get("tuning_bytes")
    parts = [] if last.get("result") in (None, "ok") else [f"{last.get('what')} failed: {last['result']}"]
    if samples:
        parts.append(f"{size_text(samples)} of an unfinished fine-tune")
    return "; ".join(parts)


def _golden_text(version: Answer) -> str:
    distance = version.get("golden_distance")
    if version.get("golden") is not True:
        return "not run" if version.get("backend") is None else "none"
    return "right" if distance is None else f"right, {distance:.2g} of tolerance"


def _time_text(version: Answer) -> str:
    return str(version.get("pushed", ""))[:16].replace("T", " ")


def _version_state(model: Answer, version: Answer) -> str:
    if not version.get("intact", True):
        return "damaged"
    if version.get("running"):
        return "runs"
    return "before it" if version["digest"] == model.get("previous") else ""


def _service_text(model: Answer) -> str:
    service = model.get("service")
    if not service:
        return ""
    state = "installing" if service.get("installing") else service.get("active")
    return str(service.get("error") or state or "installed")
